"""MathVista: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Verdict
from kimi_vl.eval.tasks import (
    mathvista,
)
from tests.eval.pictures import asked, mark, write_images, write_parquet

MORE = {"task": "math word problem", "skills": ["arithmetic reasoning", "algebraic reasoning"]}
CHOSEN: dict[str, Any] = {
    "pid": "1",
    "question": "Is it?",
    "image": "images/1.png",
    "choices": ["Yes", "No"],
    "unit": None,
    "precision": None,
    "answer": "No",
    "question_type": "multi_choice",
    "answer_type": "text",
    "metadata": MORE,
}
COUNTED = CHOSEN | {
    "pid": "2",
    "question": "How heavy?",
    "choices": None,
    "unit": "g",
    "precision": 1.0,
    "answer": "1.2",
    "question_type": "free_form",
    "answer_type": "float",
}


def problem(answer: str, answer_type: str, *, precision: int | None = None, choices: Sequence[str] = ()) -> Any:
    return mathvista.Problem(
        "1", "?", "", tuple(choices), answer, answer_type, precision, "a task", ("a skill",), Path("1.png")
    )


@pytest.fixture(params=["table", "json"])
def mathvista_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setattr(mathvista, "_COUNT", 2)
    rows = [CHOSEN, COUNTED]
    if request.param == "table":
        pictures = [row | {"decoded_image": colour} for row, colour in zip(rows, ("red", "blue"), strict=True)]
        write_parquet(tmp_path / "data/testmini-00000-of-00001.parquet", pictures, ["decoded_image"])
    else:
        write_images(tmp_path / "data/images", **{"1": "red", "2": "blue"})
        told = {row["pid"]: row | {"image": f"images/{row['pid']}.png"} for row in rows}
        (tmp_path / "data/testmini.json").write_text(json.dumps(told))
    return tmp_path


def test_mathvista_asks(mathvista_folder: Path) -> None:
    chosen, counted = mathvista.MATHVISTA.load(mathvista_folder)
    assert asked(mathvista.MATHVISTA, "official", chosen) == [
        "[red]",
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: Is it?\nChoices:\n(A) Yes\n(B) No",
    ]
    assert asked(mathvista.MATHVISTA, "vlmevalkit", counted) == [
        "[blue]",
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the "
        "final value, e.g., 1.2, 1.3, 1.4, at the end.\nQuestion: How heavy? (Unit: g)",
    ]
    assert mathvista.MATHVISTA.groups(chosen) == ("math word problem", "arithmetic reasoning", "algebraic reasoning")


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("No", Verdict(1.0, "No", fixed=1.0)),
        ("It is (A), no, it is (B).", Verdict(1.0, "No", fixed=1.0)),
        ('The answer is "B".', Verdict(1.0, "No", fixed=1.0)),
        ("Answer: A", Verdict(0.0, "Yes", fixed=0.0)),
        # Nothing is most like "No", which has the fewest letters.
        ("", Verdict(1.0, None, by_lot=True, fixed=0.0)),
    ],
)
def test_mathvista_marks_choices(said: str, verdict: Verdict) -> None:
    asked_of = problem("No", "text", choices=["Yes", "No"])
    assert mark(mathvista.MATHVISTA, "official", asked_of, said) == verdict


@pytest.mark.parametrize(
    ("answer", "answer_type", "precision", "said", "verdict"),
    [
        ("14", "integer", None, "14", Verdict(1.0, "14", fixed=1.0)),
        ("14", "integer", None, "There were 20, so 14 are left.", Verdict(1.0, "14", fixed=1.0)),
        ("-3", "integer", None, "x = -3", Verdict(1.0, "-3", fixed=1.0)),
        ("2008", "integer", None, "2007-2008", Verdict(1.0, "2008", fixed=1.0)),
        ("1234", "integer", None, "That is $1,234.00", Verdict(1.0, "1234", fixed=1.0)),
        ("14", "integer", None, "none", Verdict(0.0, None, fixed=0.0)),
        # Its own number with a comma, or a sign, is no number to the official rule.
        ("1234", "integer", None, 'The answer is "1,234".', Verdict(0.0, None, fixed=1.0)),
        ("45", "integer", None, 'The answer is "45%".', Verdict(0.0, None, fixed=1.0)),
        ("1.2", "float", 1, "about 1.23 g", Verdict(1.0, "1.2", fixed=1.0)),
        # Two digits are wanted, and a rounded number has no zero at its end.
        ("1.20", "float", 2, "1.2", Verdict(0.0, "1.2", fixed=1.0)),
        ("1.20", "float", 2, "1.3", Verdict(0.0, "1.3", fixed=0.0)),
        ("[2014, 2016]", "list", None, "Between [1, 2] it is [2014, 2016].", Verdict(1.0, "[2014, 2016]", fixed=1.0)),
        ("[2014, 2016]", "list", None, "[2014,2016]", Verdict(0.0, "[2014,2016]", fixed=1.0)),
        ("[2014, 2016]", "list", None, "2014", Verdict(0.0, None, fixed=0.0)),
    ],
)
def test_mathvista_marks_numbers(
    answer: str, answer_type: str, precision: int | None, said: str, verdict: Verdict
) -> None:
    asked_of = problem(answer, answer_type, precision=precision)
    assert mark(mathvista.MATHVISTA, "official", asked_of, said) == verdict


def test_mathvista_marks_as_vlmevalkit() -> None:
    chosen = problem("No", "text", choices=["Yes", "No"])
    assert mark(mathvista.MATHVISTA, "vlmevalkit", chosen, "It is (B)") == Verdict(1.0, "B")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", chosen, "") == Verdict(0.0, None)
    counted = problem("1.20", "float", precision=2)
    assert mark(mathvista.MATHVISTA, "vlmevalkit", counted, "1.2") == Verdict(1.0, "1.2")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", counted, "It is 1.2") == Verdict(0.0, None)
    whole = problem("14", "integer")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", whole, "14") == Verdict(1.0, "14")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", whole, "14.0") == Verdict(0.0, None)
    several = problem("[1, 2]", "list")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", several, "[1, 2]") == Verdict(0.0, "[1, 2]", fixed=1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "Maybe"}, "1: the answer 'Maybe' is none of 2 choices"),
        ({"answer_type": "colour"}, "1: an answer of the type 'colour'; known are text, integer, float 1"),
        ({"choices": None}, "1: a question of the type multi_choice with 0 choices"),
        ({"pid": "2"}, "has '2' 2 times"),
        ({"metadata": {"task": "x"}}, "1: skills missing; there are task"),
        ({"image": "images/9.png"}, r"1: there is no picture .*9\.png"),
    ],
)
def test_mathvista_refuses_broken_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(mathvista, "_COUNT", 2)
    write_images(tmp_path / "images", **{"1": "red"})
    path = tmp_path / "testmini.json"
    path.write_text(json.dumps({"1": CHOSEN | changed, "2": COUNTED}))
    with pytest.raises(ValueError, match=message):
        mathvista.MATHVISTA.load(tmp_path)


def test_mathvista_refuses_what_is_not_whole(mathvista_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathvista, "_COUNT", 1000)
    with pytest.raises(ValueError, match="has 2 items, and the benchmark 1000"):
        mathvista.MATHVISTA.load(mathvista_folder)
