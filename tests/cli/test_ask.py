"""``kimi-vl ask``: pictures on disk, pipes, PDFs. What nano says is no matter here, only how its answer arrives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.conftest import FEW, KIMI_VL, Run


def test_ask_streams_text_and_says_if_it_was_cut(run: Run, folder: Path) -> None:
    ended = run("ask", "red.png", "blue.jpg", "What is this?", *FEW)
    assert ended.code == 0
    assert ended.out.endswith("\n")
    assert ended.err in ("", "kimi-vl: cut after 3 tokens; --max-new-tokens allows more\n")


def test_ask_json_is_one_object(run: Run, folder: Path) -> None:
    one = run("ask", "red.png", "What?", "--json", *FEW)
    both = run("ask", "red.png", "blue.jpg", "What?", "--json", *FEW)
    said = json.loads(one.out)
    assert one.err == ""
    assert list(said) == ["model", "text", "thought", "finish_reason", "stop_string", "usage", "timings"]
    assert said["model"] == "nano"
    assert said["finish_reason"] in ("stop", "length")
    assert set(said["timings"]) == {"preparing", "first_token", "generating"}
    usage = said["usage"]
    assert usage["image_tokens"] == 7 * 5
    assert json.loads(both.out)["usage"]["image_tokens"] == 7 * 5 + 4 * 6
    assert usage["total_tokens"] == usage["text_tokens"] + usage["image_tokens"] + usage["completion_tokens"]


def test_ask_about_a_pdf(run: Run, folder: Path) -> None:
    red = Image.open("red.png")
    red.save("both.pdf", save_all=True, append_images=[red], resolution=300)
    usage = json.loads(run("ask", "both.pdf", "What?", "--json", *FEW).out)["usage"]
    assert usage["image_tokens"] == 2 * 7 * 5
    Path("none.pdf").write_bytes(b"%PDF-1.7")
    ended = run("ask", "none.pdf", "What?")
    assert (ended.code, ended.out) == (2, "")
    assert "picture 1 of 1: PDF cannot be read" in ended.err


def test_ask_without_a_picture(run: Run, folder: Path) -> None:
    draw = ("ask", "Hello", "--json", "--temperature", "1", "--top-p", "0.9", "--seed", "5", *FEW)
    first, second = json.loads(run(*draw).out), json.loads(run(*draw).out)
    assert first["text"] == second["text"]
    assert first["usage"]["image_tokens"] == 0
    longer = json.loads(run(*draw, "--system", "You are a very thorough proof-reader.").out)
    assert longer["usage"]["text_tokens"] != first["usage"]["text_tokens"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("--choice red --choice blue", "red|blue"),
        ("--regex [0-9]{3}", "[0-9]{3}"),
        ("--json-schema good.json", "[0-9]"),
    ],
)
def test_ask_for_a_form(form: str, expected: str, run: Run, folder: Path) -> None:
    ended = run("ask", "red.png", "Which?", *form.split(), "--temperature", "1")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(expected, ended.out.removesuffix("\n"))


def test_threads_are_those_asked_for(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run("ask", "Hello", "--threads", "3", *FEW).code == 0
    assert asked == [3]


def test_ask_stops_before_a_text(run: Run, folder: Path) -> None:
    whole = json.loads(run("ask", "red.png", "What?", "--json", *FEW).out)["text"]
    said = json.loads(run("ask", "red.png", "What?", "--json", *FEW, "--stop", "\n\n\n", "--stop", whole[1]).out)
    assert said["text"] == whole.partition(whole[1])[0]
    assert (said["finish_reason"], said["stop_string"]) == ("stop", whole[1])


def test_ask_takes_dtype_and_what_is_no_utf8(run: Run, folder: Path) -> None:
    assert run("ask", "\udcff?", "--dtype", "float32", *FEW).code == 0


def test_ask_in_a_pipeline(folder: Path) -> None:
    """The installed script: a picture comes in by stdin, to a locale that has ASCII only."""
    script = Path(sys.executable).with_name("kimi-vl")
    command = [str(script), "ask", "blue.jpg", "-", "Was ist das?", "--json", *FEW]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    picture = Path("red.png").read_bytes()
    ended = subprocess.run(command, input=picture, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["usage"]["image_tokens"] == 4 * 6 + 7 * 5
    assert ended.stderr == b""


@pytest.mark.parametrize("line", ["info a3b", "ask Hello --max-new-tokens 3"])
def test_a_reader_that_left_is_no_error(line: str, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([*KIMI_VL, *line.split()], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
