"""What nano is measured on: pictures that training never drew, what is asked, and what counts as right.

Comes in: the "heldout" split of every source. Goes out: `Exam`. Everything is a function of its number, so that two
models, or two days, are asked the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image

from recipes.nano import questions, scenes, several
from recipes.nano.conversation import Conversation
from recipes.nano.figures import charts, receipts, tables
from recipes.nano.fonts import Split
from recipes.nano.lines import line_sample
from recipes.nano.screens import sources

SEED = 0


@dataclass(frozen=True)
class Exam:
    """Pictures and a question, whether an answer is right, of which kind it is, and what it answers without looking."""

    pictures: tuple[Image.Image, ...]
    question: str
    is_right: Callable[[str], bool]
    kind: str
    blind: str


@dataclass(frozen=True)
class WrittenLine:
    """A picture of one line, and exactly what is written on it."""

    image: Image.Image
    text: str


def lines(count: int) -> list[WrittenLine]:
    """Of a held-out book in held-out fonts."""
    drawn = (line_sample(SEED, index, "heldout") for index in range(count))
    return [WrittenLine(line.image, line.text) for line in drawn]


def screen_lines(count: int) -> list[WrittenLine]:
    """Of held-out pages as a browser shows them."""
    return [WrittenLine(image, text) for image, text in sources.heldout_lines(count)]


def pointing(count: int, *, size: tuple[int, int] = (640, 400)) -> Iterator[Exam]:
    """Where is this: a text or an icon of a held-out screen."""

    def inside(box: tuple[float, float, float, float], answer: str) -> bool:
        point = sources.parsed_point(answer)
        return point is not None and box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]

    for target in sources.heldout_targets(size, count):
        centre = sources.point(0.5, 0.5)
        yield Exam((target.image,), target.question, partial(inside, target.box), target.kind, centre)


def chart_questions(count: int) -> Iterator[Exam]:
    """Charts of held-out tables, numbers within 5 %."""
    for one in charts.heldout_charts(count):
        right = partial(_relaxed, one.answer)
        yield Exam((one.image,), one.question, right, one.kind, "yes")


def _relaxed(wanted: str, answer: str) -> bool:
    return charts.relaxed_match(answer, wanted)


def counting(count: int) -> Iterator[Exam]:
    """How many of a kind: as often one as ten."""
    return _first_turns(scenes.counting_conversation, count, "counting", "1")


KINDS: dict[str, Callable[[int], Iterator[Exam]]] = {
    "pointing": pointing,
    "pointing-large": partial(pointing, size=(1280, 800)),
    "charts": chart_questions,
    "counting": counting,
    "tables": lambda count: _first_turns(tables.table_sample, count, "tables", "yes"),
    "receipts": lambda count: _first_turns(receipts.receipt_sample, count, "receipts", "2"),
    "several": lambda count: _first_turns(several.several_sample, count, "several", "yes"),
    "comparing": lambda count: _first_turns(scenes.comparing_conversation, count, "comparing", "yes"),
    "colours": lambda count: _first_turns(scenes.colour_conversation, count, "colours", "red"),
}


def _first_turns(draw: Callable[[int, int, Split], Conversation], count: int, kind: str, blind: str) -> Iterator[Exam]:
    for index in range(count):
        shown = draw(SEED, index, "heldout")
        turn = shown.turns[0]
        yield Exam(shown.pictures, turn.question, partial(_same, turn.answer), kind, blind)


def _same(wanted: str, answer: str) -> bool:
    return answer.strip().casefold() == wanted.casefold()


READ = questions.READ[0]
