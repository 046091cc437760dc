"""The command line in a process that has torch already, in a folder with pictures good and bad."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from kimi_vl.cli import main
from kimi_vl.config import a3b

KIMI_VL = [sys.executable, "-m", "kimi_vl.cli"]
FEW = ("--max-new-tokens", "3")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which has imported torch already."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with pictures good and bad, and configs."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (100, 70), "red").save("red.png")
    Image.new("RGB", (64, 90), "blue").save("blue.jpg")
    Image.new("RGB", (20_000, 4)).save("thread.png")
    noise = Image.effect_noise((200, 200), 50)
    noise.save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:5000])
    Path("text.txt").write_text("no picture")
    Path("list.json").write_text("[1]")
    Path("bad.json").write_text('{"type": "colour"}')
    Path("good.json").write_text('{"type": "integer", "minimum": 0, "maximum": 9}')
    write_config(Path("a3b"), a3b().to_dict())
    write_config(Path("llama"), {"model_type": "llama"})
    write_config(Path("other-4-bits"), a3b().to_dict() | {"quantization_config": {"quant_method": "awq"}})
    return tmp_path


def write_config(folder: Path, config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
