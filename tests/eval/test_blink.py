"""BLINK: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Marked, Verdict, mean
from kimi_vl.eval.tasks import (
    blink,
)
from tests.eval.pictures import TOTALS, asked, mark, rows_of, write_parquet


def blink_row(task: str, number: int, **changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "idx": f"val_{task}_{number}",
        "question": "Which is nearer?",
        "prompt": "Which is nearer?\n(A) Point A\n(B) Point B",
        "sub_task": task,
        "image_1": "red",
        "image_2": "green",
        "image_3": None,
        "image_4": None,
        "choices": ["Point A", "Point B"],
        "answer": "(B)",
    }
    return row | changed


BLINK_IMAGES = [f"image_{number}" for number in range(1, 5)]


@pytest.fixture
def blink_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blink, "_TASKS", ("Jigsaw", "Relative_Depth"))
    monkeypatch.setattr(blink, "_COUNT", 4)
    write_parquet(tmp_path / "Jigsaw/val-00000-of-00001.parquet", [blink_row("Jigsaw", 1)], BLINK_IMAGES)
    several = [blink_row("Relative_Depth", number) for number in (1, 2, 3)]
    write_parquet(tmp_path / "Relative_Depth/val-00000-of-00001.parquet", several, BLINK_IMAGES)
    return tmp_path


def test_blink_asks(blink_folder: Path) -> None:
    jigsaw, item, *_ = blink.BLINK.load(blink_folder)
    assert asked(blink.BLINK, "official", item) == [item.prompt, "[red]", "[green]"]
    assert asked(blink.BLINK, "official", jigsaw) == [
        "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give "
        "your assessment on this question. You don't need to identify the real people. You just need to analyze based "
        f"on the information I gave you.\n\n{jigsaw.prompt}",
        "[red]",
        "[green]",
    ]
    assert asked(blink.BLINK, "lmms-eval", item) == [
        "[red]",
        "[green]",
        f"Note: You only need to respond with A, B without providing any additional information.\n{item.prompt}",
    ]
    assert asked(blink.BLINK, "vlmevalkit", item) == [
        "[red]",
        "[green]",
        "Question: Which is nearer?\nOptions:\nA. Point A\nB. Point B\n"
        "Please select the correct answer from the options above. \n",
    ]
    assert blink.BLINK.groups(item) == ("Relative_Depth",)


@pytest.mark.parametrize(
    ("said", "official", "lmms_eval", "vlmevalkit"),
    [
        ("B", Verdict(1.0, "B"), Verdict(1.0, "B", fixed=1.0), Verdict(1.0, "B")),
        ("(B) Point B", Verdict(1.0, "B"), Verdict(1.0, "B", fixed=1.0), Verdict(1.0, "B")),
        ("The answer is B", Verdict(0.0, None), Verdict(0.0, "T", fixed=1.0), Verdict(1.0, "B")),
        ("(A) is far.\n(B) it is", Verdict(1.0, "B"), Verdict(0.0, "A", fixed=1.0), Verdict(0.0, None)),
        ("both", Verdict(0.0, None), Verdict(1.0, "B", fixed=0.0), Verdict(0.0, None)),
        ("", Verdict(0.0, None), Verdict(0.0, None, fixed=0.0), Verdict(0.0, None)),
    ],
)
def test_blink_marks(blink_folder: Path, said: str, official: Verdict, lmms_eval: Verdict, vlmevalkit: Verdict) -> None:
    item, *_ = blink.BLINK.load(blink_folder)
    assert mark(blink.BLINK, "official", item, said) == official
    assert mark(blink.BLINK, "lmms-eval", item, said) == lmms_eval
    assert mark(blink.BLINK, "vlmevalkit", item, said) == vlmevalkit


def test_blink_counts_tasks_alike(blink_folder: Path) -> None:
    items = blink.BLINK.load(blink_folder)
    marked = [Marked(item, mark(blink.BLINK, "official", item, said)) for item, said in zip(items, "BABA", strict=True)]
    assert blink.BLINK.ways["official"].total(marked) == pytest.approx((1 + 1 / 3) / 2)
    assert blink.BLINK.ways["vlmevalkit"].total(marked) == 0.5
    assert blink.BLINK.ways["lmms-eval"].total is mean


def test_blink_comes_to_what_is_published() -> None:
    marked = []
    for row in rows_of("blink_val_predictions"):
        task = row["idx"].removeprefix("val_").rpartition("_")[0]
        question = blink.Question(row["idx"], task, "", "", (), row["answer"].strip("()"), ())
        marked.append(Marked(question, mark(blink.BLINK, "official", question, row["GPT4o"])))
    assert blink.BLINK.ways["official"].total(marked) == pytest.approx(TOTALS["blink"]["GPT4o"]["macro"], abs=1e-12)
    assert {one.item.task for one in marked} == set(blink._TASKS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "(C)"}, r"val_Jigsaw_1: the answer '\(C\)' is none of 2 choices"),
        ({"answer": "hidden"}, "val_Jigsaw_1: the answer 'hidden' is none of 2 choices"),
        ({"sub_task": "Counting"}, "val_Jigsaw_1: a question of Counting in the folder of Jigsaw"),
        ({"image_1": None}, "val_Jigsaw_1: there is no picture in image_1"),
        ({"idx": "val_Relative_Depth_2"}, "has 'val_Relative_Depth_2' 2 times"),
    ],
)
def test_blink_refuses_broken_rows(blink_folder: Path, changed: dict[str, Any], message: str) -> None:
    row = blink_row("Jigsaw", 1, **changed)
    write_parquet(blink_folder / "Jigsaw/val-00000-of-00001.parquet", [row], BLINK_IMAGES)
    with pytest.raises(ValueError, match=message):
        blink.BLINK.load(blink_folder)


def test_blink_refuses_what_is_not_whole(blink_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blink, "_COUNT", 1901)
    with pytest.raises(ValueError, match="has 4 items, and the benchmark 1901"):
        blink.BLINK.load(blink_folder)
    (blink_folder / "Jigsaw/val-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no Jigsaw/val-\*.parquet"):
        blink.BLINK.load(blink_folder)
