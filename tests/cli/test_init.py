"""``kimi-vl init``: new weights, and nothing half-written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kimi_vl import checkpoint
from kimi_vl.config import nano
from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor
from tests.cli.conftest import FEW, KIMI_VL, Run, write_config


def test_init_nano_can_answer_at_once(run: Run, folder: Path) -> None:
    made = run("init", "new", "--preset", "nano", "--seed", "7", "--dtype", "float32")
    assert (made.code, made.err) == (0, "")
    assert made.out == "new: 19.40 M parameters, 77.7 MB\n"
    assert run("ask", "red.png", "What is this?", "--model", "new", *FEW).code == 0
    assert not list(folder.glob(".new*"))
    again = run("init", "new", "--preset", "nano", "--force")
    assert again.out == "new: 19.40 M parameters, 38.9 MB\n"


def test_init_of_a_config_says_what_is_missing(run: Run, folder: Path) -> None:
    config = replace(nano(), vision_config=replace(nano().vision_config, patch_size=16))
    write_config(Path("mine"), config.to_dict())
    made = run("init", "new", "--config", "mine/config.json")
    assert made.code == 0
    assert made.err == "kimi-vl: new can answer once tiktoken.model is copied into it\n"
    shutil.copy(NANO / "tiktoken.model", "new")
    assert KimiVLProcessor.from_pretrained("new").image_config.patch_size == 16


def test_init_of_the_first_shards(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(checkpoint.write_random_checkpoint, shard_bytes=4_000_000)
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", small)
    assert run("init", "new", "--preset", "nano", "--shards", "2").code == 0
    files = sorted(file.name for file in Path("new").glob("*.safetensors"))
    assert [name[:11] for name in files] == ["model-00001", "model-00002"]
    assert run("ask", "What?", "--model", "new").code == 2


def test_init_looks_at_the_disk_first(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 6 * 10**9))
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", lambda config, folder, **_: None)
    ended = run("init", "deep/new", "--preset", "a3b")
    assert ended.code == 2
    assert ended.err.startswith("kimi-vl: deep/new needs 32.8 GB, but 6.0 GB are free there: ")
    assert not Path("deep").exists()
    assert run("init", "new", "--preset", "a3b", "--shards", "1").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_init_leaves_nothing(number: signal.Signals, code: int, folder: Path) -> None:
    # a quarter of a gigabyte: long enough to be met in the middle
    text = replace(nano().text_config, num_hidden_layers=20, n_routed_experts=256, hidden_size=1024)
    write_config(Path("mine"), replace(nano(), text_config=text).to_dict())
    before = sorted(folder.rglob("*"))
    command = [*KIMI_VL, "init", "new", "--config", "mine/config.json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not any(file.stat().st_size for file in folder.glob(".*/**/*.safetensors")):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    child.send_signal(number)
    assert child.communicate() == ("", "")
    assert child.returncode == code
    assert sorted(folder.rglob("*")) == before
