"""MMStar: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_vl.eval.task import Marked, Verdict
from kimi_vl.eval.tasks import (
    mmstar,
)
from tests.eval.pictures import asked, base64_of, mark, rows_of, write_tsv

STAR = {
    "index": "0",
    "question": "Where is it?\nOptions: A: On a bed, B: On a mat, B-side up, C: nan, D: nan",
    "image": base64_of("red"),
    "answer": "A",
    "category": "math",
    "l2_category": "geometry",
    "bench": "MMBench",
}
STAR_IN_LINES = STAR | {"index": "1", "question": "Hint: Say it.\nQuestion: How many?\nChoices:\n(A) 7\n(B)8"}


@pytest.fixture
def mmstar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mmstar, "_COUNT", 2)
    write_tsv(tmp_path / "MMStar.tsv", [STAR, STAR_IN_LINES])
    return tmp_path


def test_mmstar_asks(mmstar_folder: Path) -> None:
    item, in_lines = mmstar.MMSTAR.load(mmstar_folder)
    assert asked(mmstar.MMSTAR, "official", item) == ["[red]", f"{STAR['question']}\nAnswer the question directly."]
    end = "Please select the correct answer from the options above. \n"
    assert asked(mmstar.MMSTAR, "vlmevalkit", item) == [
        "[red]",
        f"Question: Where is it?\nOptions:\nA. On a bed\nB. On a mat, B-side up\n{end}",
    ]
    assert asked(mmstar.MMSTAR, "vlmevalkit", in_lines) == [
        "[red]",
        f"Question: Hint: Say it.\nQuestion: How many?\nOptions:\nA. 7\nB. 8\n{end}",
    ]
    assert mmstar.MMSTAR.groups(item) == ("math", "math: geometry")


@pytest.mark.parametrize(
    ("said", "official", "vlmevalkit"),
    [
        ("A", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("(a) on a bed", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("The answer is A.", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("The correct answer is A", Verdict(0.0, "T", fixed=1.0), Verdict(1.0, "A")),
        ("a man lies there", Verdict(1.0, "A", fixed=0.0), Verdict(0.0, None)),
        ("", Verdict(0.0, None, fixed=0.0), Verdict(0.0, None)),
    ],
)
def test_mmstar_marks(mmstar_folder: Path, said: str, official: Verdict, vlmevalkit: Verdict) -> None:
    item, _ = mmstar.MMSTAR.load(mmstar_folder)
    assert mark(mmstar.MMSTAR, "official", item, said) == official
    assert mark(mmstar.MMSTAR, "vlmevalkit", item, said) == vlmevalkit


def test_mmstar_marks_stored_answers_as_its_own_code_did() -> None:
    marked = []
    for row in rows_of("mmstar_llava_next_yi_34b"):
        question = mmstar.Question(str(row["index"]), "", "", (), row["answer"], "", "", b"")
        verdict = mark(mmstar.MMSTAR, "official", question, str(row["prediction"]))
        marked.append(Marked(question, verdict))
    assert mmstar.MMSTAR.ways["official"].total(marked) == 781 / 1500


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "Where is it?"}, "index 1: the question has no options in it"),
        ({"question": "Where?\nOptions: A: here, C: there"}, "index 1: the question has no options in it"),
        ({"answer": "C"}, "index 1: the answer 'C' is none of 2 options"),
        ({"index": "0"}, "has '0' 2 times"),
        ({"image": "?"}, "index 1: a picture is not base64"),
    ],
)
def test_mmstar_refuses_broken_rows(mmstar_folder: Path, changed: dict[str, str], message: str) -> None:
    write_tsv(mmstar_folder / "MMStar.tsv", [STAR, STAR_IN_LINES | changed])
    with pytest.raises(ValueError, match=message):
        mmstar.MMSTAR.load(mmstar_folder)


def test_mmstar_refuses_what_is_not_whole(mmstar_folder: Path) -> None:
    write_tsv(mmstar_folder / "MMStar.tsv", [STAR])
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        mmstar.MMSTAR.load(mmstar_folder)
