"""MLVU: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Marked, Verdict, macro
from kimi_vl.eval.tasks import mlvu
from tests.eval.films import LOTS, Rows, fails, told, write_json

MLVU_ROW = {
    "video": "film.mp4",
    "duration": 8,
    "question": "Which colour?",
    "candidates": ["Yellow", "Red", "Green", "Blue"],
    "answer": "Red",
    "question_type": "plotQA",
}


def mlvu_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, film: Path, **rows: Rows) -> Path:
    """``rows`` by their types; of others there are none."""
    counts = {name: len(rows.get(name.partition("_")[2], [])) for name in mlvu._COUNTS}
    monkeypatch.setattr(mlvu, "_COUNTS", counts)
    monkeypatch.setattr(mlvu, "_FRAMES", 3)
    for name in counts:
        write_json(folder / "MLVU" / "json" / f"{name}.json", rows.get(name.partition("_")[2], []))
        path = folder / "MLVU" / "video" / name / "film.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(film.read_bytes())
    return folder


def test_mlvu_begins_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    (question,) = mlvu.MLVU.load(mlvu_folder(tmp_path, monkeypatch, film, needle=[MLVU_ROW]))
    assert (question.id, mlvu.MLVU.groups(question)) == ("needle/0", ("needle",))
    way = mlvu.MLVU.ways["official"]
    first, second = way.ask(question)
    assert (first.role, told(first)) == (
        "system",
        [
            "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
            "option that accurately addresses the question."
        ],
    )
    words = "Question: Which colour?\nOptions:\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue\nOnly give the best option."
    assert (second.role, told(second)) == ("user", [6, 19, 32, words])
    assert way.begun == "Best option: ("


@pytest.mark.parametrize(
    ("options", "answer", "said", "score", "read", "fixed"),
    [
        (["Yellow", "Red", "Green", "Blue"], "Red", "B) Red", 1.0, "B", 1.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", " B\n", 1.0, "B", 1.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", "B. Red", 0.0, None, 0.0),  # no bracket
        (["Yellow", "Red", "Green", "Blue"], "Red", "(A) or (B)", 0.0, "A", 0.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", "Red) that is (B)", 0.0, None, 0.0),
        # of numbers the letter counts
        (["2", "1", "5", "4"], "1", "B) 1", 1.0, "B", 1.0),
        (["2", "1", "5", "4"], "1", "1)", 0.0, None, 0.0),
        # of options that say the same, officially the last is right
        (["Six", "Three", "Three", "Eight"], "Three", "B)", 0.0, "B", 1.0),
        (["Six", "Three", "Three", "Eight"], "Three", "C)", 1.0, "C", 1.0),
        # officially nothing is right
        (["Fishing", "Catching the drone", "a", "b"], "Catching a flying drone quadcopter", "B)", 0.0, "B", 1.0),
        (["Fishing", "Catching the drone", "a", "b"], "Catching a flying drone quadcopter", "A)", 0.0, "A", 0.0),
    ],
)
def test_mlvu_marks_the_letter_before_the_bracket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    film: Path,
    options: list[str],
    answer: str,
    said: str,
    score: float,
    read: str | None,
    fixed: float,
) -> None:
    row = {**MLVU_ROW, "candidates": options, "answer": answer}
    (question,) = mlvu.MLVU.load(mlvu_folder(tmp_path, monkeypatch, film, count=[row]))
    assert mlvu.MLVU.ways["official"].mark(question, said, LOTS) == Verdict(score, read, fixed=fixed)


def test_types_of_mlvu_count_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    folder = mlvu_folder(tmp_path, monkeypatch, film, plotQA=[MLVU_ROW] * 3, order=[MLVU_ROW])
    questions = mlvu.MLVU.load(folder)
    assert [question.id for question in questions] == ["plotQA/0", "plotQA/1", "plotQA/2", "order/0"]
    way = mlvu.MLVU.ways["official"]
    marked = [
        Marked(question, way.mark(question, said, LOTS)) for question, said in zip(questions, "BBBA", strict=True)
    ]
    assert way.total(marked) == 1 / 2
    assert way.more["mean of all questions"](marked) == 3 / 4


def test_a_macro_mean_of_nothing_is_nothing() -> None:
    def part(question: mlvu.Question) -> str:
        return question.type

    assert macro([], part) == 0


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "Pink"}, r"3_ego.json, row 0: the answer 'Pink' is none of the options \('Yellow', 'Red'"),
        ({"candidates": "Red"}, r"row 0: candidates must be a list, not 'Red'"),
        ({"video": "b.mp4"}, r"row 0: there is no video .*video/3_ego/b.mp4"),
    ],
)
def test_broken_data_of_mlvu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path, row: dict[str, Any], says: str
) -> None:
    fails(mlvu.MLVU.load, mlvu_folder(tmp_path, monkeypatch, film, ego=[{**MLVU_ROW, **row}]), says)


def test_mlvu_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    assert sum(mlvu._COUNTS.values()) == 2175
    fails(mlvu.MLVU.load, tmp_path, r"has no MLVU/json/1_plotQA.json or json/1_plotQA.json")
    folder = mlvu_folder(tmp_path, monkeypatch, film, ego=[MLVU_ROW])
    monkeypatch.setitem(mlvu._COUNTS, "3_ego", 352)
    fails(mlvu.MLVU.load, folder, r"3_ego.json has 1 items, and the benchmark 352")
