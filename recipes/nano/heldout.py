"""What nano is measured on: pictures that training never drew, what is asked, and what counts as right.

Comes in: the "heldout" split of every source. Goes out: `Exam`. Everything is a function of its number, so that two
models, or two days, are asked the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from PIL import Image

from recipes.nano import long_pages, long_text, questions, scenes, several
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.evaluation import EVAL_NAMES
from recipes.nano.figures import charts, receipts, tables
from recipes.nano.fonts import Split
from recipes.nano.lines import line_sample
from recipes.nano.long_facts import KINDS as FACTS
from recipes.nano.long_facts import some_facts
from recipes.nano.questions import CANNOT_TELL
from recipes.nano.screens import sources

SEED = 0
READ = questions.READ[0]


@dataclass(frozen=True)
class Exam:
    """Pictures, a question and its answer, what else is right, of which kind it is, and what one says without looking.

    ``pages`` are pictures that are told by number, as those of a file.
    """

    pictures: tuple[Image.Image, ...]
    question: str
    wanted: str
    is_right: Callable[[str], bool] = field(repr=False)
    kind: str
    blind: str
    pages: bool = False


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
        x0, y0, x1, y1 = target.box
        middle = sources.point((x0 + x1) / 2, (y0 + y1) / 2)
        yield Exam((target.image,), target.question, middle, partial(inside, target.box), target.kind, centre)


def chart_questions(count: int) -> Iterator[Exam]:
    """Charts of held-out tables, numbers within 5 %."""
    for one in charts.heldout_charts(count):
        right = partial(_relaxed, one.answer)
        yield Exam((one.image,), one.question, one.answer, right, one.kind, "yes")


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


def names(count: int) -> Iterator[Exam]:
    """What is this: a drawing in the style that training never draws, one of each name."""
    for name in EVAL_NAMES[:count]:
        picture = scenes.heldout_emoji(name)
        yield Exam((picture,), questions.NAME[0], name, partial(_same, name), "names", EVAL_NAMES[0])


def reading(lines: Iterable[WrittenLine]) -> Iterator[Exam]:
    """Lines as exams, in which only a whole one is right. White space is read as single blanks."""
    for line in lines:
        wanted = " ".join(line.text.split())
        yield Exam((line.image,), READ, wanted, partial(_same, wanted), "lines", "")


# Long ones, of up to ``window`` tokens --------------------------------------------------------------------

DEPTHS = 4
DISTRACTING = 3  # facts of the same kind
FOR_QUESTION = 60  # tokens, with all that stands round it
NUMBER = "number of pages"
WINDOW = 4 * long_text.TRAINED  # tokens, if not told otherwise: four times the window of the stages before


def needle(count: int, window: int) -> Iterator[Exam]:
    """One fact on one of as many pictured pages as the window has room for; of each quarter of the depth as often."""
    room = _checked(window) - FOR_QUESTION
    for index in range(count):
        random = Random(f"needle/{window}/{SEED}/{index}")
        (fact,) = some_facts(random, "heldout", 1)
        depth = _depth(random, index)
        read = long_pages.document(random, "heldout", [fact], room, numbered=True, depth=depth)
        shown = read.asked([fact.asked.turn(random, "heldout")])
        yield _long(shown, f"depth {int(depth * DEPTHS) + 1} of {DEPTHS}", FACTS[fact.kind].guess)


def needle_in_text(count: int, window: int) -> Iterator[Exam]:
    """The same in a text, in which three facts of the same kind stand too."""
    for index in range(count):
        random = Random(f"needle in text/{window}/{SEED}/{index}")
        fact, *others = some_facts(random, "heldout", 1 + DISTRACTING, kind=random.choice(list(FACTS)))
        depth = _depth(random, index)
        told = [(depth, fact), *((random.random(), other) for other in others)]
        turns = [fact.asked.turn(random, "heldout")]
        shown = long_text.text_asked(random, "heldout", told, turns, _checked(window))
        yield _long(shown, f"depth {int(depth * DEPTHS) + 1} of {DEPTHS}", FACTS[fact.kind].guess)


def documents(count: int, window: int) -> Iterator[Exam]:
    """On which of many pages a fact or a word stands, how many there are, and what none of them says."""
    found = [_document(index, _checked(window)) for index in range(count)]
    # Without looking nobody knows what is not there, but how many pages there are is a question of its own.
    said: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for kind, _, turn in found:
        said[kind == NUMBER][turn.answer] += 1
    for kind, read, turn in found:
        yield _long(read.asked([turn]), kind, said[kind == NUMBER].most_common(1)[0][0])


def _first_turns(draw: Callable[[int, int, Split], Conversation], count: int, kind: str, blind: str) -> Iterator[Exam]:
    for index in range(count):
        shown = draw(SEED, index, "heldout")
        turn = shown.turns[0]
        yield Exam(shown.pictures, turn.question, turn.answer, partial(_same, turn.answer), kind, blind)


def _document(index: int, window: int) -> tuple[str, long_pages.Document, Turn]:
    """Which kind of question, about which document, and the question."""
    random = Random(f"document/{window}/{SEED}/{index}")
    facts = some_facts(random, "heldout", 3)
    read = long_pages.document(random, "heldout", facts, window - FOR_QUESTION, numbered=True)
    place, fact = random.choice(list(read.told.items()))
    other = long_pages.not_told(random, "heldout", read)
    asked = None
    match kind := ("page of a fact", "page of a word", NUMBER, "not there")[index % 4]:
        case "page of a fact":
            asked = fact.asked_for_page(str(place + 1))
        case "page of a word":
            while asked is None:
                asked = long_pages.page_of_word(random, read)
        case "not there":
            asked = random.choice((other.asked_in_vain, other.asked_for_page(CANNOT_TELL)))
        case _:
            asked = long_pages.how_many(read)
    return kind, read, asked.turn(random, "heldout")


def _checked(window: int) -> int:
    if window < long_text.TRAINED:
        raise ValueError(f"window must be at least {long_text.TRAINED} tokens, not {window}")
    return window


def _depth(random: Random, index: int) -> float:
    return (index % DEPTHS + random.random()) / DEPTHS


def _long(shown: Conversation, kind: str, blind: str) -> Exam:
    (turn,) = shown.turns
    right = partial(_same, turn.answer)
    return Exam(shown.pictures, turn.question, turn.answer, right, kind, blind, shown.pages)


def _same(wanted: str, answer: str) -> bool:
    return answer.strip().casefold() == wanted.casefold()


LONG: dict[str, Callable[[int, int], Iterator[Exam]]] = {
    "needle": needle,
    "needle-text": needle_in_text,
    "documents": documents,
}
# Most that an answer may have.
LINE_TOKENS = 96
ANSWER_TOKENS = 64
