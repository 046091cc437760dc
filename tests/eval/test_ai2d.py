"""AI2D with and without masks: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Task, Verdict
from kimi_vl.eval.tasks import (
    ai2d,
)
from tests.eval.pictures import asked, mark, write_parquet

DIAGRAM = {"question": "What is D?", "options": ["frog", "fly", "hawk", "algae"], "answer": "1", "image": "red"}


@pytest.fixture
def ai2d_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ai2d, "_COUNT", 2)
    other = DIAGRAM | {"answer": "0", "image": "blue"}
    write_parquet(tmp_path / "data/test-00000-of-00002.parquet", [DIAGRAM], ["image"])
    write_parquet(tmp_path / "data/test-00001-of-00002.parquet", [other], ["image"])
    return tmp_path


@pytest.mark.parametrize("task", [ai2d.AI2D, ai2d.AI2D_NO_MASK], ids=lambda task: task.name)
def test_ai2d_asks(ai2d_folder: Path, task: Task[ai2d.Question]) -> None:
    item, other = task.load(ai2d_folder)
    assert (item.id, item.answer, other.id, other.answer) == ("0", "B", "1", "A")
    assert asked(task, "official", item) == [
        "[red]",
        "What is D?\nA. frog\nB. fly\nC. hawk\nD. algae\nAnswer with the option's letter from the given choices "
        "directly.",
    ]
    assert asked(task, "vlmevalkit", other) == [
        "[blue]",
        "Question: What is D?\nOptions:\nA. frog\nB. fly\nC. hawk\nD. algae\n"
        "Please select the correct answer from the options above. \n",
    ]


def test_ai2d_is_two_tasks() -> None:
    assert (ai2d.AI2D.name, ai2d.AI2D_NO_MASK.name) == ("ai2d", "ai2d-no-mask")
    assert ai2d.AI2D.source != ai2d.AI2D_NO_MASK.source


@pytest.mark.parametrize(
    ("said", "official", "vlmevalkit"),
    [
        ("B", Verdict(1.0, "B"), Verdict(1.0, "B")),
        ("(b)\n", Verdict(1.0, "B"), Verdict(0.0, None)),
        (" B. fly", Verdict(1.0, "B"), Verdict(1.0, "B")),
        ("C. fly", Verdict(0.0, "C"), Verdict(0.0, "C")),
        # Only at the very beginning, and only with a stop.
        ("The answer is B.", Verdict(0.0, None), Verdict(1.0, "B")),
        ("fly", Verdict(0.0, None), Verdict(1.0, "B")),
    ],
)
def test_ai2d_marks(ai2d_folder: Path, said: str, official: Verdict, vlmevalkit: Verdict) -> None:
    item, _ = ai2d.AI2D.load(ai2d_folder)
    assert mark(ai2d.AI2D, "official", item, said) == official
    assert mark(ai2d.AI2D, "vlmevalkit", item, said) == vlmevalkit


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "4"}, "item 1: the answer '4' is no number of 4 options, from 0"),
        ({"answer": "B"}, "item 1: the answer 'B' is no number"),
        ({"image": None}, "item 1: there is no picture in image"),
    ],
)
def test_ai2d_refuses_broken_rows(ai2d_folder: Path, changed: dict[str, Any], message: str) -> None:
    write_parquet(ai2d_folder / "data/test-00001-of-00002.parquet", [DIAGRAM | changed], ["image"])
    with pytest.raises(ValueError, match=message):
        ai2d.AI2D.load(ai2d_folder)


def test_ai2d_refuses_what_is_not_whole(ai2d_folder: Path) -> None:
    (ai2d_folder / "data/test-00001-of-00002.parquet").write_bytes(b"PAR1 but cut")
    with pytest.raises(ValueError, match=r"test-00001-of-00002\.parquet"):
        ai2d.AI2D.load(ai2d_folder)
    (ai2d_folder / "data/test-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        ai2d.AI2D.load(ai2d_folder)


def test_items_do_not_tell_their_pictures(ai2d_folder: Path) -> None:
    """Their sum is of what they say."""
    item, *_ = ai2d.AI2D.load(ai2d_folder)
    assert item.answer in repr(item)
    assert not any(word in repr(item) for word in ("PNG", "Parquet", "parquet"))
