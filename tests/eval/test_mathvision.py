"""MathVision: in its official format, what each way asks, and what its rule's faults are worth."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from kimi_vl.eval.tasks import mathvision
from tests.eval.pictures import asked, write_images

OPTIONS = ["A", "B", "C", "D", "E"]
OPEN = {
    "id": "4",
    "question": "Which number should be written in place of the question mark?\n<image1>",
    "options": [],
    "image": "images/4.jpg",
    "answer": "60",
    "level": 2,
    "subject": "arithmetic",
}
BIKES = OPEN | {"id": "5", "question": "Which bike is most expensive?\n<image1>", "options": OPTIONS, "answer": "A"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [OPEN | {"image": "images/4.png"}, BIKES | {"image": "images/5.png"}]
    write_images(tmp_path / "images", **{"4": "red", "5": "blue"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path


def problem(answer: str, options: tuple[str, ...] = ()) -> mathvision.Problem:
    return mathvision.Problem("1", "?", options, answer, 1, "algebra", Path("1.png"))


STEPS = 'Please solve the problem step by step and put your answer in one "\\boxed{}".'


@pytest.mark.parametrize(
    ("way", "texts"),
    [
        (
            "official",
            [
                f"{STEPS}\nWhich number should be written in place of the question mark?",
                f"{STEPS}\nWhich bike is most expensive?\nChoices: A. A\nB. B\nC. C\nD. D\nE. E",
            ],
        ),
        (
            # As version 0.7.3 sent it.
            "lmms-eval",
            [
                f"{STEPS}Which number should be written in place of the question mark?\n<image1>",
                f"{STEPS}Which bike is most expensive?\n<image1>\nChoices: A. A\nB. B\nC. C\nD. D\nE. E\n"
                "Answer the question with the option's letter from the given choices directly.",
            ],
        ),
    ],
)
def test_what_each_way_asks(folder: Path, way: str, texts: list[str]) -> None:
    problems = mathvision.load(folder, count=2)
    task = mathvision.MATHVISION
    shown = ("[red]", "[blue]")
    assert [asked(task, way, one) for one in problems] == [list(pair) for pair in zip(shown, texts, strict=True)]
    assert [task.groups(one) for one in problems] == [("level 2", "arithmetic")] * 2
    assert [task.wanted(one) for one in problems] == ["60", "A A"]


@pytest.mark.parametrize(
    ("wanted", "said", "score", "fixed"),
    [
        (problem("60"), "So it is \\boxed{60}.", 1.0, 1.0),
        (problem("60"), "61", 0.0, 0.0),
        # Two digits after the point are looked at, so that these are one number.
        (problem("0.004"), "\\boxed{0}", 1.0, 0.0),
        (problem("12"), "\\boxed{12 cm}", 0.0, 1.0),
        (problem("B", ("3", "\\frac{4}{3}")), "\\boxed{4/3}", 1.0, 1.0),
        (problem("B", ("3", "4")), "B", 1.0, 1.0),
        (problem("B", ("3", "4")), "", 0.0, 0.0),
    ],
)
def test_marks_with_the_rules_faults_and_without(
    wanted: mathvision.Problem, said: str, score: float, fixed: float
) -> None:
    verdict = mathvision.MATHVISION.ways["official"].mark(wanted, said, Random(0))
    assert (verdict.score, verdict.without_faults) == (score, fixed)


def test_lots_are_letters_or_one() -> None:
    peer = mathvision.MATHVISION.peers["letters by lot"]
    drawn = {peer.answer(mathvision.Problem(str(i), "?", ("1", "2"), "A", 1, "", Path())) for i in range(40)}
    assert drawn == {"A", "B"}
    assert peer.answer(problem("60")) == "1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "F"}, "id 5: the answer 'F' is none of 5 options"),
        ({"image": "images/6.png"}, "id 5: there is no picture"),
    ],
)
def test_broken_rows_are_told(folder: Path, change: dict[str, str], says: str) -> None:
    (folder / "data/test.jsonl").write_text(json.dumps({**BIKES, "image": "images/5.png", **change}))
    with pytest.raises(ValueError, match=says):
        mathvision.load(folder, count=1)


def test_it_must_be_whole(folder: Path) -> None:
    with pytest.raises(ValueError, match="has 2 items, and the benchmark 3040"):
        mathvision.load(folder)
