"""MMLongBench-Doc: 1,082 questions about 135 PDF files of up to hundreds of pages; 223 have no answer in theirs.

Officially a model rewrites each answer to a short one. Here none does, so the question asks for a short one itself, in
the words of lmms-eval, and what is said is marked as it is. The hub has an older set, of 1,091 questions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from kimi_vl.chat import Message
from kimi_vl.documents import first_pages
from kimi_vl.eval.files import beside, checked_count, found, json_rows, listed
from kimi_vl.eval.scoring import mmlongbench
from kimi_vl.eval.task import Marked, Task, Verdict, Way, user

_COUNT = 1082
_COLUMNS = ("doc_id", "doc_type", "question", "answer", "evidence_pages", "evidence_sources", "answer_format")
_FORMATS = ("Int", "Float", "Str", "List", "None")
_MOST_PAGES = 120
_DOTS = 144  # an inch
_INSTRUCTION = "Answer with a single word or phrase. If the answer is not in the document, answer 'Not answerable'."


@dataclass(frozen=True)
class Question:
    """``pages`` and ``sources`` are where the answer is found: numbers from 1, and kinds of content."""

    id: str
    text: str
    answer: str
    answer_format: str
    pages: tuple[str, ...]
    sources: tuple[str, ...]
    document_type: str
    document: Path


def _load(folder: Path) -> list[Question]:
    path = found(folder, "data/samples.json", "samples.json")
    questions = []
    for number, (where, row) in enumerate(json_rows(path, _COLUMNS)):
        if row["answer_format"] not in _FORMATS:
            raise ValueError(f"{where}: an answer_format is {', '.join(_FORMATS)}, not {row['answer_format']!r}")
        answer = str(row["answer"])
        if (answer == mmlongbench.NOT_ANSWERABLE) != (row["answer_format"] == "None"):
            raise ValueError(f"{where}: the answer {answer!r} has the format {row['answer_format']}")
        documents = path.parent / "documents"
        questions.append(
            Question(
                id=f"{number}/{row['doc_id']}",
                text=row["question"],
                answer=answer,
                answer_format=row["answer_format"],
                pages=tuple(listed(row["evidence_pages"], where)),
                sources=tuple(listed(row["evidence_sources"], where)),
                document_type=row["doc_type"],
                document=beside(documents, row["doc_id"], where, "document", way_out="the authors publish it, too"),
            )
        )
    checked_count(questions, _COUNT, str(path))
    return questions


def _ask(question: Question) -> tuple[Message, ...]:
    """The question first, then a picture for each page."""
    pages = first_pages(question.document.read_bytes(), most=_MOST_PAGES, dots=_DOTS)
    return (user(f"{question.text}\n{_INSTRUCTION}", *map(_png, pages)),)


def _png(page: Image.Image) -> bytes:
    """All pages at once would take a gigabyte otherwise."""
    stream = io.BytesIO()
    page.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    said = said.strip()
    try:
        score = mmlongbench.score(question.answer, said, question.answer_format)
    except ValueError:
        score = 0.0
    fixed = mmlongbench.fixed_score(question.answer, said, question.answer_format)
    return Verdict(score, said or None, fixed=fixed)


def _groups(question: Question) -> Sequence[str]:
    if question.answer_format == "None":
        found_on = "unanswerable"
    else:
        found_on = "single-page" if len(question.pages) == 1 else "cross-page"
    return (found_on, question.document_type, *dict.fromkeys(question.sources))


def _f1(marked: Sequence[Marked[Question]]) -> float:
    return mmlongbench.f1(
        [mmlongbench.Marked(one.item.answer, one.verdict.read or "", one.verdict.score) for one in marked]
    )


MMLONGBENCH_DOC = Task(
    name="mmlongbench-doc",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark, more={"F1": _f1}, max_new_tokens=1024)},
    groups=_groups,
    # Of September 2025; that of July 2024 differs in two lists of evidence pages.
    published={"data/samples.json": "4ffadad60b18cd7ede864155f3e8a366fe4deec2189b3d0a25691b7df4b839e8"},
)
