"""RealWorldQA: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_vl.eval.task import Verdict
from kimi_vl.eval.tasks import (
    realworldqa,
)
from tests.eval.pictures import asked, mark, write_parquet

LETTER_ONLY = "Please answer directly with only the letter of the correct option and nothing else."
STREET = {"question": f"Where to?\nA. Left\nB. Right\n{LETTER_ONLY} ", "answer": "B", "image": "red"}
SLOPE = {"question": "Which way is it steep?", "answer": "Downhill", "image": "blue"}


@pytest.fixture
def realworldqa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(realworldqa, "_COUNT", 2)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [STREET, SLOPE], ["image"])
    return tmp_path


def test_realworldqa_asks(realworldqa_folder: Path) -> None:
    street, slope = realworldqa.REALWORLDQA.load(realworldqa_folder)
    assert asked(realworldqa.REALWORLDQA, "official", street) == [
        "[red]",
        f"Where to?\nA. Left\nB. Right\n{LETTER_ONLY}",
    ]
    assert asked(realworldqa.REALWORLDQA, "official", slope) == ["[blue]", "Which way is it steep?"]
    assert (street.id, slope.id) == ("0", "1")


def test_realworldqa_marks(realworldqa_folder: Path) -> None:
    street, slope = realworldqa.REALWORLDQA.load(realworldqa_folder)
    assert mark(realworldqa.REALWORLDQA, "official", street, "The answer is B.") == Verdict(1.0, "B")
    # The article is taken for a letter.
    assert mark(realworldqa.REALWORLDQA, "official", street, "A man goes right") == Verdict(0.0, "A")
    assert mark(realworldqa.REALWORLDQA, "official", street, "right") == Verdict(0.0, None)
    assert mark(realworldqa.REALWORLDQA, "official", slope, " downhill. ") == Verdict(1.0, "downhill")
    assert mark(realworldqa.REALWORLDQA, "official", slope, "It is downhill") == Verdict(0.0, "it is downhill")
    assert mark(realworldqa.REALWORLDQA, "official", slope, "") == Verdict(0.0, None)
    # Letters that follow one another are no letter.
    word = realworldqa.Question("0", "?", "AB", slope.picture)
    assert mark(realworldqa.REALWORLDQA, "official", word, "ab") == Verdict(1.0, "ab")


def test_realworldqa_refuses_broken_data(realworldqa_folder: Path) -> None:
    path = realworldqa_folder / "data/test-00000-of-00001.parquet"
    write_parquet(path, [STREET], ["image"])
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)
    write_parquet(path, [STREET, SLOPE | {"answer": " "}], ["image"])
    with pytest.raises(ValueError, match="item 1: there is no answer"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)
    write_parquet(path, [STREET, SLOPE | {"image": None}], ["image"])
    with pytest.raises(ValueError, match="item 1: there is no picture in image"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)
