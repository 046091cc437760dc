"""Nano's held-out sets as benchmarks like any other, with who else can do the same beside it.

    kimi-vl eval recipes.nano.tasks:LINES
    kimi-vl eval list recipes.nano.tasks      all of them

Comes in: what heldout.py draws. Goes out: `Task`s. What a model answers is marked as there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random

from PIL import Image
from rapidfuzz.distance import Levenshtein

from kimi_vl.chat import Message
from kimi_vl.eval.task import Marked, Peer, Task, Verdict, Way
from recipes.nano import heldout, tesseract
from recipes.nano.evaluation import EVAL_NAMES
from recipes.nano.heldout import Exam, WrittenLine
from recipes.nano.packages import DATA
from recipes.nano.samples import question_of

_MANY, _LONG = 1000, 200  # items


@dataclass(frozen=True)
class Held:
    """An exam with its pictures as files, so that a thousand fit in memory."""

    id: str
    exam: Exam
    pictures: tuple[bytes, ...] = field(repr=False)


def _load(draw: Callable[[int], Iterable[Exam]], count: int, folder: Path) -> Sequence[Held]:
    if folder.resolve() != DATA.resolve():
        raise ValueError(f"nano's data lies in {DATA}, not in {folder}: name another folder by NANO_DATA")
    if not DATA.is_dir():
        raise ValueError(f"there is no {DATA}: fetch nano's data with python -m recipes.nano.fetch")
    return [
        Held(str(number), replace(exam, pictures=()), tuple(map(_file, exam.pictures)))
        for number, exam in enumerate(draw(count))
    ]


def _file(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _ask(item: Held) -> tuple[Message, ...]:
    return (question_of(item.pictures, item.exam.question, pages=item.exam.pages),)


def _mark(item: Held, said: str, lots: Random) -> Verdict:
    return Verdict(float(item.exam.is_right(said)), said.strip() or None)


# ---- lines: how many of the characters are right ----


def _mark_line(item: Held, said: str, lots: Random) -> Verdict:
    read = " ".join(said.split())
    return Verdict(max(0.0, 1 - _edits(read, item.exam.wanted) / len(item.exam.wanted)), read or None)


def _characters_right(marked: Sequence[Marked[Held]]) -> float:
    """All edits over all characters, taken from one."""
    edits = sum(_edits(one.verdict.read or "", one.item.exam.wanted) for one in marked)
    return 1 - edits / sum(len(one.item.exam.wanted) for one in marked)


def _whole_lines(marked: Sequence[Marked[Held]]) -> float:
    return sum(one.verdict.read == one.item.exam.wanted for one in marked) / len(marked)


# Resampling asks for the same ones again and again.
@lru_cache(maxsize=1 << 16)
def _edits(read: str, wanted: str) -> int:
    return Levenshtein.distance(read, wanted)


def _by_tesseract(item: Held) -> str:
    return tesseract.read(Image.open(io.BytesIO(item.pictures[0])))


def _of_lines(name: str, about: str, draw: Callable[[int], Iterable[WrittenLine]]) -> Task[Held]:
    way = Way(
        _ask,
        _mark_line,
        total=_characters_right,
        more={"whole lines": _whole_lines},
        max_new_tokens=heldout.LINE_TOKENS,
    )
    return Task(
        name=name,
        about=about,
        load=partial(_load, lambda count: heldout.reading(draw(count)), _MANY),
        ways={"nano": way},
        wanted=_wanted,
        source=DATA,
        peers={"Tesseract": Peer(_by_tesseract, tesseract.version)},
    )


# ---- questions: right or wrong ----


def _of_exams(
    name: str, about: str, draw: Callable[[int], Iterable[Exam]], *, count: int = _MANY, blind: str = "majority, blind"
) -> Task[Held]:
    return Task(
        name=name,
        about=about,
        load=partial(_load, draw, count),
        ways={"nano": Way(_ask, _mark, max_new_tokens=heldout.ANSWER_TOKENS)},
        wanted=_wanted,
        groups=_kind,
        source=DATA,
        peers={blind: Peer(_blind)},
    )


def _of_long(name: str, about: str, draw: Callable[[int, int], Iterable[Exam]]) -> Task[Held]:
    return _of_exams(name, about, lambda count: draw(count, heldout.WINDOW), count=_LONG)


def _wanted(item: Held) -> str:
    return item.exam.wanted


def _kind(item: Held) -> Sequence[str]:
    return (item.exam.kind,)


def _blind(item: Held) -> str:
    return item.exam.blind


LINES = _of_lines("nano-lines", "Lines of a held-out book in held-out fonts.", heldout.lines)
SCREENS = _of_lines("nano-screens", "Lines of held-out screens.", heldout.screen_lines)
NAMES = _of_exams(
    "nano-names", "Emoji of a held-out style.", heldout.names, count=len(EVAL_NAMES), blind="one name, blind"
)
POINTING = _of_exams(
    "nano-pointing",
    "Texts and icons of held-out screens of 640 x 400.",
    heldout.KINDS["pointing"],
    blind="centre click",
)
POINTING_LARGE = _of_exams(
    "nano-pointing-large", "The same of 1280 x 800.", heldout.KINDS["pointing-large"], blind="centre click"
)
CHARTS = _of_exams("nano-charts", "Charts of held-out tables; numbers within 5 %.", heldout.KINDS["charts"])
COUNTING = _of_exams("nano-counting", "How many of a kind, one to ten.", heldout.KINDS["counting"])
TABLES = _of_exams("nano-tables", "Cells of held-out tables.", heldout.KINDS["tables"])
RECEIPTS = _of_exams("nano-receipts", "What receipts say.", heldout.KINDS["receipts"])
SEVERAL = _of_exams("nano-several", "Several pictures at once.", heldout.KINDS["several"])
COMPARING = _of_exams("nano-comparing", "Which has more, and whether two are alike.", heldout.KINDS["comparing"])
COLOURS = _of_exams("nano-colours", "Which colour something has.", heldout.KINDS["colours"])
NEEDLE = _of_long("nano-needle", "One fact among pictured pages.", heldout.needle)
NEEDLE_TEXT = _of_long("nano-needle-text", "One fact in a long text.", heldout.needle_in_text)
DOCUMENTS = _of_long("nano-documents", "On which page a fact or a word stands.", heldout.documents)
