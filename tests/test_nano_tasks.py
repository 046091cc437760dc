"""Nano's held-out sets as benchmarks: right answers are marked right, peers answer too, and missing data is told of."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from kimi_vl.chat import PicturePart, TextPart
from kimi_vl.eval import naming
from kimi_vl.eval.task import Marked, Task
from recipes.nano import heldout, tasks, tesseract
from recipes.nano.evaluate import character_error_rate
from recipes.nano.packages import DATA
from recipes.nano.tasks import Held
from tests.nano import needs_data, needs_screens

OF_SCREENS = ("SCREENS", "POINTING", "POINTING_LARGE")
OF_LINES = ("LINES", "SCREENS")
NAMES = [name.removeprefix("recipes.nano.tasks:") for name in naming.names_in("recipes.nano.tasks")]
lots = Random(0)


def some(name: str, count: int) -> tuple[Task[Held], list[Held]]:
    """The first items of a set."""
    task = getattr(tasks, name)
    draw, _ = task.load.args
    return task, list(tasks._load(draw, count, DATA))


def check(name: str) -> None:
    task, items = some(name, 8)
    assert len(items) == 8
    way = task.ways["nano"]
    for item in items:
        (message,) = way.ask(item)
        shown = [part for part in message.parts if isinstance(part, PicturePart)]
        assert len(shown) == len(item.pictures)
        assert isinstance(message.parts[-1], TextPart) and message.parts[-1].text.endswith(item.exam.question)
        assert way.mark(item, item.exam.wanted, lots).score == 1.0
        wrong = way.mark(item, f"{item.exam.wanted} or not", lots)
        assert wrong.score == 0.0 or (name in OF_LINES and 0 < wrong.score < 1)
        nothing = way.mark(item, " ", lots)
        assert (nothing.score, nothing.read) == (0.0, None)
    assert [repr(item) for item in some(name, 8)[1]] == list(map(repr, items))


@needs_data
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_SCREENS])
def test_what_is_wanted_is_right_and_other_things_are_not(name: str) -> None:
    check(name)


@needs_screens
@pytest.mark.parametrize("name", OF_SCREENS)
def test_so_it_is_on_screens(name: str) -> None:
    check(name)


@needs_data
def test_lines_are_told_by_the_characters_that_are_right() -> None:
    task, items = some("LINES", 6)
    said = [
        items[0].exam.wanted,
        f" {items[1].exam.wanted}\n",
        items[2].exam.wanted[1:],
        "",
        items[4].exam.wanted.upper(),
        "a" * 300,
    ]
    way = task.ways["nano"]
    marked = [Marked(item, way.mark(item, text, lots)) for item, text in zip(items, said, strict=True)]
    figures = character_error_rate(heldout.lines(6), said)
    assert way.total(marked) == pytest.approx(1 - figures["character_error_rate"])
    assert way.more["whole lines"](marked) == pytest.approx(figures["lines_right"])
    assert all(0 <= one.verdict.score <= 1 for one in marked)


@needs_data
@pytest.mark.skipif(tesseract.version() is None, reason="there is no tesseract")
def test_tesseract_reads_the_same_pictures() -> None:
    task, items = some("LINES", 5)
    peer = task.peers["Tesseract"]
    said = [peer.answer(item) for item in items]
    assert sum(task.ways["nano"].mark(item, text, lots).score for item, text in zip(items, said, strict=True)) > 4
    assert said == [tesseract.read(line.image) for line in heldout.lines(5)]


@needs_data
def test_who_does_not_look_says_one_thing() -> None:
    task, items = some("COUNTING", 40)
    (peer,) = task.peers.values()
    assert {peer.answer(item) for item in items} == {"1"}
    scores = [task.ways["nano"].mark(item, peer.answer(item), lots).score for item in items]
    assert 0 < sum(scores) < 20


def test_data_of_elsewhere_and_no_data_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nano's data lies in .*: name another folder by NANO_DATA"):
        tasks.LINES.load(tmp_path)
    monkeypatch.setattr(tasks, "DATA", tmp_path / "none")
    with pytest.raises(ValueError, match=r"there is no .*none: fetch nano's data with python -m recipes\.nano\.fetch"):
        tasks.LINES.load(tmp_path / "none")
