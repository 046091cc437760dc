"""What the command line says of itself, at once and without torch; and that its defaults are the package's."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from kimi_vl.cli import ask, chat
from kimi_vl.cli.thought import TOKENS
from kimi_vl.sampling import SamplingParams


def test_help_info_and_early_mistakes_do_not_import_torch(folder: Path) -> None:
    code = """
import sys
from kimi_vl.cli import main
early = ("info a3b", "plan a3b --size 9x9", "plan a3b --train", "ask none.png what", "serve --limit picture=1")
for line in ("--help", "--version", "ask --help", "chat --help", "init --help", *early):
    try:
        main(line.split())
    except SystemExit:
        pass
    assert "torch" not in sys.modules and "rich" not in sys.modules, line
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for word in ("ask", "chat", "info", "init", "kimi-vl 0."):
        assert word in ended.stdout


@pytest.mark.parametrize("command", [ask.ask, chat.chat])
def test_defaults_are_those_of_the_package(command: Callable[..., None]) -> None:
    offered = inspect.signature(command).parameters
    shared = [field.name for field in fields(SamplingParams) if field.name in offered]
    assert set(shared) == {field.name for field in fields(SamplingParams)} - {"n", "logit_bias", "logprobs", "grammar"}
    shared.remove("stop")  # a list here, and a tuple there
    shared.remove("max_new_tokens")  # more for a model that thinks
    assert SamplingParams().max_new_tokens == TOKENS
    for name in shared:
        assert offered[name].default == getattr(SamplingParams(), name)
