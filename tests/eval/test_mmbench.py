"""MMBench, and tables of text: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kimi_vl.eval.files import tsv
from kimi_vl.eval.task import Marked, Verdict
from kimi_vl.eval.tasks import (
    mmbench,
)
from tests.eval.pictures import asked, base64_of, write_tsv


def rotated(number: int, options: Sequence[str], right: str, *, hint: str = "") -> list[dict[str, str]]:
    """A question as the circular table has it, with ``nan`` for the options that it lacks."""
    rows = []
    for turn in range(len(options)):
        turned = [*options[turn:], *options[:turn]]
        cells = [*turned, *["nan" if turn else ""] * (4 - len(options))]
        rows.append(
            {
                "index": str(number + turn * 1_000_000),
                "question": f"Question {number}?",
                "hint": hint,
                **dict(zip("ABCD", cells, strict=True)),
                "answer": "ABCD"[turned.index(right)],
                "category": "image_scene",
                "l2-category": "coarse_perception",
                "image": str(number) if turn else base64_of("red" if number == 1 else "green"),
            }
        )
    return rows


TWO = rotated(1, ["yes", "no"], "no", hint="Look.")
FOUR = rotated(7, ["cat", "dog", "cow", "hen"], "cow")


@pytest.fixture
def mmbench_folder(tmp_path: Path) -> Path:
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", [*TWO, *FOUR])
    return tmp_path


def test_mmbench_asks(mmbench_folder: Path) -> None:
    first, second, third, *_ = mmbench.MMBENCH.load(mmbench_folder)
    end = "Please select the correct answer from the options above. \n"
    assert asked(mmbench.MMBENCH, "official", first) == [
        "[red]",
        f"Hint: Look.\nQuestion: Question 1?\nOptions:\nA. yes\nB. no\n{end}",
    ]
    assert asked(mmbench.MMBENCH, "vanilla", second) == [
        "[red]",
        f"Hint: Look.\nQuestion: Question 1?\nOptions:\nA. no\nB. yes\n{end}",
    ]
    assert asked(mmbench.MMBENCH, "official", third) == [
        "[green]",
        f"Question: Question 7?\nOptions:\nA. cat\nB. dog\nC. cow\nD. hen\n{end}",
    ]
    assert mmbench.MMBENCH.groups(first) == ("coarse_perception", "image_scene")


def test_mmbench_counts_questions_and_not_rows(mmbench_folder: Path) -> None:
    items = mmbench.MMBENCH.load(mmbench_folder)
    assert [item.id for item in items] == ["1", "1000001", "7", "1000007", "2000007", "3000007"]
    official, vanilla = mmbench.MMBENCH.ways["official"], mmbench.MMBENCH.ways["vanilla"]

    def marked(answers: Sequence[str]) -> list[Marked[mmbench.Rotation]]:
        return [Marked(item, official.mark(item, said, Random(0))) for item, said in zip(items, answers, strict=True)]

    assert [one.verdict.score for one in marked("BACBAD")] == [1.0] * 6
    assert official.total(marked("BACBAD")) == 1.0
    always_b = marked("BBBBBB")
    assert official.total(always_b) == 0.0
    assert vanilla.total(always_b) == pytest.approx(2 / 6)
    # One rotation that cannot be read makes its question wrong.
    unread = marked([*"BACBA", "the one with horns"])
    assert unread[-1].verdict == Verdict(0.0, None)
    assert official.total(unread) == 0.5
    assert vanilla.total(unread) == pytest.approx(5 / 6)
    # A question that is drawn twice counts twice, however many rotations it has.
    assert official.total([*unread[:2], *unread]) == pytest.approx(2 / 3)
    assert {mmbench.MMBENCH.together(item) for item in items} == {"1", "7"}


def broken_mmbench() -> list[Any]:
    def changed(number: int, **cells: str) -> list[dict[str, str]]:
        return [row | cells if place == number else row for place, row in enumerate([*TWO, *FOUR])]

    return [
        pytest.param([*TWO, *FOUR[:2], FOUR[3]], r"index 7: of 4 rotations.*there are \[1, 2, 4\]", id="a rotation"),
        pytest.param([*TWO, *FOUR[1:]], r"there is no picture, nor one at index '7'", id="the first rotation"),
        pytest.param(changed(0, answer="C"), "index 1: the answer 'C' is none of 2 options", id="an answer"),
        pytest.param(changed(1, index="1"), "has '1' 2 times", id="an index twice"),
        pytest.param(changed(1, index="one"), "'one' is no number of a row", id="an index"),
        pytest.param(changed(0, image="!" * 80), "index 1: a picture is not base64", id="a picture"),
        pytest.param([{key: row[key] for key in row if key != "B"} for row in TWO], "row 2: B missing", id="a column"),
    ]


@pytest.mark.parametrize(("rows", "message"), broken_mmbench())
def test_mmbench_refuses_broken_data(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", rows)
    with pytest.raises(ValueError, match=message):
        mmbench.MMBENCH.load(tmp_path)


def test_tables_of_text_that_are_cut(mmbench_folder: Path) -> None:
    path = mmbench_folder / "MMBench_DEV_EN_V11.tsv"
    path.write_text(path.read_text().rstrip().rpartition("\t")[0])
    with pytest.raises(ValueError, match="row 7: it has more or fewer cells than the head"):
        mmbench.MMBENCH.load(mmbench_folder)
    path.write_text(path.read_text().partition("\n")[0])
    with pytest.raises(ValueError, match="has no rows"):
        tsv(path, ["index"])


def test_items_do_not_tell_their_pictures(mmbench_folder: Path) -> None:
    """Their sum is of what they say."""
    item, *_ = mmbench.MMBENCH.load(mmbench_folder)
    assert item.answer in repr(item)
    assert not any(word in repr(item) for word in ("PNG", "Parquet", "parquet"))
