"""Nano's held-out sets as benchmarks like any other, with who else can do the same beside it.

    kimi-vl eval recipes.nano.tasks:LINES
    kimi-vl eval list recipes.nano.tasks      all of them

Comes in: what heldout.py draws. Goes out: `Task`s. What a model answers is marked as there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from random import Random

from PIL import Image
from rapidfuzz.distance import Levenshtein

from kimi_vl.chat import Message
from kimi_vl.eval.task import Marked, Peer, Task, Verdict, Way
from recipes.nano import heldout, questions, scenes, tesseract
from recipes.nano.evaluation import EVAL_NAMES
from recipes.nano.heldout import Exam, WrittenLine
from recipes.nano.long_text import TRAINED
from recipes.nano.packages import DATA
from recipes.nano.samples import question_of

WINDOW = 4 * TRAINED  # tokens among which a needle lies: four times the window of the stages before
_MANY, _LONG = 1000, 200  # items


@dataclass(frozen=True)
class Held:
    """An exam whose pictures are files. ``blind`` is what one says without looking."""

    id: str
    kind: str
    question: str
    wanted: str
    blind: str
    pages: bool
    is_right: Callable[[str], bool] = field(repr=False)
    pictures: tuple[bytes, ...] = field(repr=False)


def _load(draw: Callable[[int], Iterable[Exam]], count: int, folder: Path) -> Sequence[Held]:
    if folder.resolve() != DATA.resolve():
        raise ValueError(f"nano's data lies in {DATA}, not in {folder}: name another folder by NANO_DATA")
    if not DATA.is_dir():
        raise ValueError(f"there is no {DATA}: fetch nano's data with python -m recipes.nano.fetch")
    return [_held(number, exam) for number, exam in enumerate(draw(count))]


def _held(number: int, exam: Exam) -> Held:
    return Held(
        id=str(number),
        kind=exam.kind,
        question=exam.question,
        wanted=exam.wanted,
        blind=exam.blind,
        pages=exam.pages,
        is_right=exam.is_right,
        pictures=tuple(map(_file, exam.pictures)),
    )


def _file(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _ask(item: Held) -> tuple[Message, ...]:
    return (question_of(item.pictures, item.question, pages=item.pages),)


def _mark(item: Held, said: str, lots: Random) -> Verdict:
    return Verdict(float(item.is_right(said)), said.strip() or None)


# ---- lines: how many of the characters are right ----


def _exams_of_lines(draw: Callable[[int], Iterable[WrittenLine]], count: int) -> Iterator[Exam]:
    for line in draw(count):
        wanted = _spaced(line.text)
        yield Exam((line.image,), heldout.READ, wanted, partial(_same, wanted), "lines", "")


def _mark_line(item: Held, said: str, lots: Random) -> Verdict:
    read = _spaced(said)
    return Verdict(max(0.0, 1 - _edits(read, item.wanted) / len(item.wanted)), read or None)


def _characters_right(marked: Sequence[Marked[Held]]) -> float:
    """All edits over all characters, taken from one."""
    edits = sum(_edits(one.verdict.read or "", one.item.wanted) for one in marked)
    return 1 - edits / sum(len(one.item.wanted) for one in marked)


def _whole_lines(marked: Sequence[Marked[Held]]) -> float:
    return sum(one.verdict.read == one.item.wanted for one in marked) / len(marked)


# Resampling asks for the same ones again and again.
@lru_cache(maxsize=1 << 16)
def _edits(read: str, wanted: str) -> int:
    return Levenshtein.distance(read, wanted)


def _spaced(text: str) -> str:
    """White space as single blanks."""
    return " ".join(text.split())


def _same(wanted: str, answer: str) -> bool:
    return answer.strip().casefold() == wanted.casefold()


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
        load=partial(_load, partial(_exams_of_lines, draw), _MANY),
        ways={"nano": way},
        wanted=_wanted,
        source=DATA,
        peers={"Tesseract": Peer(_by_tesseract, tesseract.version)},
    )


# ---- questions: right or wrong ----


def _names(count: int) -> Iterator[Exam]:
    """Of drawings in the style that is held out."""
    for name in EVAL_NAMES[:count]:
        yield Exam((scenes.heldout_emoji(name),), questions.NAME[0], name, partial(_same, name), "names", EVAL_NAMES[0])


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


def _wanted(item: Held) -> str:
    return item.wanted


def _kind(item: Held) -> Sequence[str]:
    return (item.kind,)


def _blind(item: Held) -> str:
    return item.blind


LINES = _of_lines("nano-lines", "Lines of a held-out book in held-out fonts.", heldout.lines)
SCREENS = _of_lines("nano-screens", "Lines of held-out screens.", heldout.screen_lines)
NAMES = _of_exams("nano-names", "Emoji of a held-out style.", _names, count=len(EVAL_NAMES), blind="one name, blind")
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
NEEDLE = _of_exams("nano-needle", "One fact among pictured pages.", partial(heldout.needle, window=WINDOW), count=_LONG)
NEEDLE_TEXT = _of_exams(
    "nano-needle-text", "One fact in a long text.", partial(heldout.needle_in_text, window=WINDOW), count=_LONG
)
DOCUMENTS = _of_exams(
    "nano-documents", "On which page a fact or a word stands.", partial(heldout.documents, window=WINDOW), count=_LONG
)
