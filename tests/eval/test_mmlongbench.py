"""MMLongBench-Doc: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kimi_vl.chat import PicturePart, TextPart
from kimi_vl.eval.task import Marked
from kimi_vl.eval.tasks import mmlongbench
from tests.eval.films import LOTS, fails, write_json

COLOURS = ("red", "lime", "blue")


def sample(answer: str, answer_format: str, **other: Any) -> dict[str, Any]:
    return {
        "doc_id": "report.pdf",
        "doc_type": "Brochure",
        "question": "How many?",
        "answer": answer,
        "evidence_pages": "[2]",
        "evidence_sources": "['Chart', 'Table']",
        "answer_format": answer_format,
        **other,
    }


def documents_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> Path:
    monkeypatch.setattr(mmlongbench, "_COUNT", len(rows))
    write_json(folder / "data" / "samples.json", rows)
    path = folder / "data" / "documents" / "report.pdf"
    path.parent.mkdir(exist_ok=True)
    pages = [Image.new("RGB", (100, 60), colour) for colour in COLOURS]
    pages[0].save(path, "PDF", save_all=True, append_images=pages[1:], resolution=72, quality=100)
    return folder


def question_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *row: Any, **other: Any) -> mmlongbench.Question:
    (question,) = mmlongbench.MMLONGBENCH_DOC.load(documents_folder(folder, monkeypatch, sample(*row, **other)))
    return question


def test_mmlongbench_asks_before_the_first_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmlongbench, "_MOST_PAGES", 2)
    question = question_of(tmp_path, monkeypatch, "8", "Int")
    (message,) = mmlongbench.MMLONGBENCH_DOC.ways["official"].ask(question)
    assert (message.role, message.parts[0]) == (
        "user",
        TextPart(
            "How many?\nAnswer with a single word or phrase. If the answer is not in the document, answer "
            "'Not answerable'."
        ),
    )
    sources = [part.source for part in message.parts if isinstance(part, PicturePart)]
    pages = [Image.open(io.BytesIO(source)) for source in sources if isinstance(source, bytes)]
    assert len(pages) == len(message.parts) - 1
    assert [(page.format, page.size) for page in pages] == [("PNG", (200, 120))] * 2  # 144 dots an inch, not 72
    for page, colour in zip(pages, COLOURS[:2], strict=True):
        assert page.getpixel((9, 9)) == pytest.approx(Image.new("RGB", (1, 1), colour).getpixel((0, 0)), abs=3)


@pytest.mark.parametrize(
    ("answer", "answer_format", "said", "score", "fixed"),
    [
        ("8", "Int", " 8.9\n", 1.0, 1.0),  # the whole part counts
        ("8", "Int", "eight", 0.0, 0.0),
        ("18.29%", "Float", "0.1829", 1.0, 1.0),  # a hundredth
        ("5 miles", "Str", "5", 0.0, 1.0),  # units are not taken off
        ("Less well-off", "Str", "less well off", 12 / 13, 12 / 13),
        ("['red', 'blue']", "List", "['blue', 'red']", 1.0, 1.0),
        ("['red', 'blue']", "List", "[red, blue", 0.0, 1.0),  # where official code fails
        ("Not answerable", "None", "not answerable", 1.0, 1.0),
        ("Not answerable", "None", "", 0.0, 0.0),
    ],
)
def test_mmlongbench_marks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    answer_format: str,
    said: str,
    score: float,
    fixed: float,
) -> None:
    question = question_of(tmp_path, monkeypatch, answer, answer_format)
    verdict = mmlongbench.MMLONGBENCH_DOC.ways["official"].mark(question, said, LOTS)
    assert (verdict.score, verdict.without_faults) == pytest.approx((score, fixed))
    assert (verdict.read, verdict.by_lot) == (said.strip() or None, False)


def test_mmlongbench_quotes_accuracy_and_f1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"evidence_pages": "[]", "evidence_sources": "[]"}
    rows = [
        sample("8", "Int"),
        sample("red", "Str", evidence_pages="[2, 3]"),
        sample("Not answerable", "None", **nothing),
        sample("Not answerable", "None", **nothing),
    ]
    task = mmlongbench.MMLONGBENCH_DOC
    questions = task.load(documents_folder(tmp_path, monkeypatch, *rows))
    assert [task.groups(question) for question in questions[:3]] == [
        ("single-page", "Brochure", "Chart", "Table"),
        ("cross-page", "Brochure", "Chart", "Table"),
        ("unanswerable", "Brochure"),
    ]
    assert len({question.id for question in questions}) == 4
    way = task.ways["official"]
    said = ("8", "blue", "Not answerable", "7")
    marked = [Marked(item, way.mark(item, answer, LOTS)) for item, answer in zip(questions, said, strict=True)]
    assert way.total(marked) == 2 / 4
    # One of two is recalled, and one of three answers is right: 2 · 1/2 · 1/3 / (1/2 + 1/3).
    assert way.more["F1"](marked) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (sample("8", "Number"), r"samples.json, row 0: an answer_format is Int, Float, .*, not 'Number'"),
        (sample("Not answerable", "Str"), r"row 0: the answer 'Not answerable' has the format Str"),
        (sample("8", "None"), r"row 0: the answer '8' has the format None"),
        (sample("8", "Int", evidence_pages="five"), r"row 0: 'five' is no list"),
        (sample("8", "Int", doc_id="b.pdf"), r"row 0: there is no document .*documents/b.pdf"),
        ({"doc_id": "report.pdf"}, r"row 0: doc_type, question, answer, .* missing"),
    ],
)
def test_broken_data_of_mmlongbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], says: str
) -> None:
    fails(mmlongbench.MMLONGBENCH_DOC.load, documents_folder(tmp_path, monkeypatch, row), says)


def test_mmlongbench_must_be_whole_and_its_documents_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = question_of(tmp_path, monkeypatch, "8", "Int")
    question.document.write_bytes(b"%PDF-1.7\nnothing")
    with pytest.raises(ValueError, match="PDF cannot be read"):
        mmlongbench.MMLONGBENCH_DOC.ways["official"].ask(question)
    monkeypatch.setattr(mmlongbench, "_COUNT", 1082)
    fails(mmlongbench.MMLONGBENCH_DOC.load, tmp_path, r"samples.json has 1 items, and the benchmark 1082")
    fails(
        mmlongbench.MMLONGBENCH_DOC.load, tmp_path / "data" / "documents", r"has no data/samples.json or samples.json"
    )
