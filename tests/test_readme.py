"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from rapidfuzz.distance import Levenshtein

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_shown_answer_is_the_answer() -> None:
    first_block, shown = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)[:2]
    command = shlex.split(first_block.splitlines()[-1])
    assert command[:2] == ["kimi-vl", "ask"]
    said = subprocess.run(
        [sys.executable, "-c", "from kimi_vl.cli import main; main()", *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Processors round bfloat16 sums in different orders, which may turn a letter that was in doubt.
    assert Levenshtein.distance(said.strip(), shown.strip()) <= 2
    assert (ROOT / command[2]).is_file()
    assert f"({command[2]})" in README


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
