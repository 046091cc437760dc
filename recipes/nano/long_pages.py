"""(seed, index, split) -> a document of many small pictured pages, and questions for which one must find the page.

Comes in: the fonts and books that fetch.py laid down, and made-up facts. Goes out: `Conversation` of at most so many
tokens. All pages of a document look alike; each begins with a new paragraph of the book, and what does not fit is left
out. A fact stands between the sentences of a page. Half of the documents have the number of each page told before it,
as a file is shown; in the others pages are asked for by number only where they are few enough to be counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageFont

from kimi_vl.chat import Message, TextPart
from kimi_vl.patches import plan_grid
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split, faces
from recipes.nano.long_facts import Fact, another
from recipes.nano.long_text import TRAINED, facts_for, from_anywhere, sentences
from recipes.nano.paragraphs import STEP, Block, broken, drawn
from recipes.nano.questions import ABSENT, CANNOT_TELL, Asked, ask, phrases
from recipes.nano.samples import PICTURES, question_of, tokens_of

MOST_COUNTED: Final = 12  # pages without a number
MOST_CALLED: Final = 20  # tokens of "Page 7 of 9" and of what marks a picture
MOST_FACTS, MOST_TURNS = 7, 7
FOR_TURN: Final = 40  # tokens of a question and a short answer, at most, or of what stands round them all

HOW_MANY: Final = phrases("""How many pages are there? | How many pages does the document have? | Count the pages. |
    How long is the document, in pages?""")
WITH_WORD: Final = phrases("""On which page is the word "{word}"? | Which page has the word "{word}"? | Find the page
    with the word "{word}". | Where does "{word}" stand: on which page?""")
FIRST_LINE: Final = phrases("""What is the first line of page {number}? | Read the first line of page {number}. | With
    which line does page {number} begin?""")
READ_PAGE: Final = phrases("""Read page {number}. | What is written on page {number}? | Transcribe page {number}. |
    What does page {number} say?""")


@dataclass(frozen=True)
class Look:
    """What the pages of a document have in common; lengths in pixels. Papers of one seed are the same."""

    face: Path
    size: int
    pitch: int
    margin: int
    rows: int
    width: int
    paper: int

    @property
    def height(self) -> int:
        return STEP * -(-(self.rows * self.pitch + 2 * self.margin) // STEP)

    @property
    def tokens(self) -> int:
        """Of the picture of a page."""
        return plan_grid(self.width, self.height, PICTURES).tokens

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        return _font(self.face, self.size)

    def lines(self, text: str) -> tuple[tuple[str, ...], bool]:
        """As many lines as a page has room for, and whether that is all. None where a word is too wide."""
        return broken(text.split(), self.font, self.width - 2 * self.margin, self.rows)

    def picture(self, lines: tuple[str, ...]) -> Image.Image:
        """A page."""
        block = Block(lines, self.font, self.margin, self.margin, self.width - 2 * self.margin, self.pitch, 0)
        return drawn(Random(self.paper), (block,), (self.width, self.height))


@dataclass(frozen=True)
class Document:
    """The lines of each page, and the facts by the place of their page, which counts from 0."""

    pages: tuple[tuple[str, ...], ...]
    told: Mapping[int, Fact]
    look: Look
    numbered: bool

    @property
    def counted(self) -> bool:
        """Whether one can say which number a page has."""
        return self.numbered or len(self.pages) <= MOST_COUNTED

    def tokens(self, turns: Sequence[Turn]) -> int:
        """The length of the conversation that :meth:`asked` draws."""
        return _tokens(turns, self.look, len(self.pages), self.numbered)

    def asked(self, turns: Sequence[Turn]) -> Conversation:
        return Conversation(tuple(map(self.look.picture, self.pages)), tuple(turns), self.numbered)


def pages_drawn(seed: int, index: int, split: Split, *, shortest: int = TRAINED, window: int) -> Conversation:
    """Up to seven questions about a document; all has up to ``shortest`` to ``window`` tokens, each as often."""
    random = Random(f"pages/{window}/{seed}/{split}/{index}")
    while True:
        if found := _drawn(random, split, shortest, window):
            return found


def _drawn(random: Random, split: Split, shortest: int, window: int) -> Conversation | None:
    """None where not one question has room beside two pages."""
    length = random.randint(shortest, window)
    facts = facts_for(random, split, random.randint(1, MOST_FACTS))
    wanted = random.randint(1, MOST_TURNS)
    read = document(random, split, facts, length - (1 + wanted) * FOR_TURN, numbered=random.random() < 0.5)
    asked: dict[str, Turn] = {}
    for number in range(wanted):
        one = _question(random, split, read) if number else _about_fact(random, split, read)
        if one is None or one.wordings[0] in asked:
            continue
        more = asked | {one.wordings[0]: one.turn(random, split)}
        if read.tokens(list(more.values())) <= length:
            asked = more
    return read.asked(random.sample(list(asked.values()), len(asked))) if asked else None


# Questions ----------------------------------------------------------------------------------------------


def _question(random: Random, split: Split, read: Document) -> Asked | None:
    kinds = ("fact", "page", "word", "pages", "first line", "page read")
    weights = (5, 3, 3, 1, 2, 2) if read.counted else (1, 0, 0, 0, 0, 0)
    match random.choices(kinds, weights)[0]:
        case "fact":
            return _about_fact(random, split, read)
        case "page":
            return page_of_fact(random, split, read)
        case "word":
            return page_of_word(random, read)
        case "pages":
            return how_many(read)
        case "first line":
            return _of_page(random, read, FIRST_LINE, [lines[0] for lines in read.pages])
        case _:
            return _of_page(random, read, READ_PAGE, ["\n".join(lines) for lines in read.pages])


def not_told(random: Random, split: Split, read: Document) -> Fact:
    """A fact of a kind that is told, about something else."""
    facts = list(read.told.values())
    return another(random, split, facts, random.choice(facts).kind)


def _about_fact(random: Random, split: Split, read: Document) -> Asked:
    if random.random() < ABSENT:
        return not_told(random, split, read).asked_in_vain
    return random.choice(list(read.told.values())).asked


def page_of_fact(random: Random, split: Split, read: Document) -> Asked:
    if random.random() < ABSENT:
        return not_told(random, split, read).asked_for_page(CANNOT_TELL)
    place, fact = random.choice(list(read.told.items()))
    return fact.asked_for_page(str(place + 1))


def page_of_word(random: Random, read: Document) -> Asked | None:
    """The page of a word that no other page has; nothing where the page that is tried has none."""
    place = random.randrange(len(read.pages))
    words = [word for line in read.pages[place] for word in line.split()]
    elsewhere = "\n".join("\n".join(lines) for lines in read.pages[:place] + read.pages[place + 1 :]).casefold()
    alone = sorted({word for word in words if word.isalpha() and len(word) > 4 and word.casefold() not in elsewhere})
    return ask(WITH_WORD, str(place + 1), word=random.choice(alone)) if alone else None


def how_many(read: Document) -> Asked:
    return ask(HOW_MANY, str(len(read.pages)))


def _of_page(random: Random, read: Document, wordings: Sequence[str], texts: Sequence[str]) -> Asked:
    if random.random() < ABSENT:
        return ask(wordings, CANNOT_TELL, number=str(len(texts) + random.randint(1, 3)))
    place = random.randrange(len(texts))
    return ask(wordings, texts[place], number=str(place + 1))


# Documents ----------------------------------------------------------------------------------------------


def document(
    random: Random, split: Split, facts: Sequence[Fact], tokens: int, *, numbered: bool, depth: float | None = None
) -> Document:
    """As many pages as ``tokens`` allow beside questions, two at least; of facts as many as there are pages.

    Each has a page of its own. The first is told at ``depth``, 0 the beginning and 1 the end, if that is given.
    """
    while True:
        look = _look(random, split)
        fitting = (look.lines(fact.sentence) for fact in facts)
        if all(lines and whole for lines, whole in fitting):
            break
    nothing = (Turn("", ""),)
    tokens += _tokens(nothing, look, 0, numbered)
    count = max(2, tokens // look.tokens)
    # What a page is called may have a token more in a longer document or a shorter one, so it is counted anew.
    while count > 2 and (over := _tokens(nothing, look, count, numbered) - tokens) > 0:
        count = max(2, count - max(1, over // (look.tokens + MOST_CALLED)))
    places = random.sample(range(count), min(count, len(facts)))
    if depth is not None:
        first = min(count - 1, int(depth * count))
        places = [first, *(place for place in random.sample(range(count), count) if place != first)]
    told = dict(zip(places, facts, strict=False))
    text = from_anywhere(random, split)
    return Document(tuple(_page(random, text, look, told.get(n)) for n in range(count)), told, look, numbered)


def _tokens(turns: Sequence[Turn], look: Look, pages: int, numbered: bool) -> int:
    first, *others = turns
    messages = [question_of([b""] * pages, first.question, pages=numbered), _answer(first)]
    for turn in others:
        messages += (question_of((), turn.question), _answer(turn))
    return tokens_of(messages, [(look.width, look.height)] * pages)


def _answer(turn: Turn) -> Message:
    return Message("assistant", (TextPart(turn.answer),))


@lru_cache(maxsize=4096)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _look(random: Random, split: Split) -> Look:
    found, weights = faces(split)
    size = random.randint(12, 19)
    return Look(
        face=random.choices(found, cum_weights=weights)[0].path,
        size=size,
        pitch=round(size * random.uniform(1.15, 1.5)),
        margin=random.randint(5, 12),
        rows=random.randint(3, 6),
        width=STEP * random.randint(8, 16),
        paper=random.getrandbits(63),
    )


def _page(random: Random, text: Iterator[str], look: Look, told: Fact | None) -> tuple[str, ...]:
    """Paragraphs from the top; what is told stands between two sentences, or above or below the rest."""
    paragraphs: list[str] = []
    lines: tuple[str, ...] = ()
    while len(lines) < look.rows:
        paragraph = next(text)
        found, _ = look.lines(paragraph)
        if found:
            paragraphs.append(paragraph)
            lines += found
    if told is None:
        return lines[: look.rows]
    for _ in range(3):
        number = random.randrange(len(paragraphs))
        parts = sentences(paragraphs[number])
        parts.insert(random.randint(0, len(parts)), told.sentence)
        new = [*paragraphs[:number], " ".join(parts), *paragraphs[number + 1 :]]
        with_it = tuple(line for paragraph in new for line in look.lines(paragraph)[0])[: look.rows]
        if told.sentence in " ".join(with_it):
            return with_it
    its, _ = look.lines(told.sentence)
    rest = lines[: look.rows - len(its)]
    return its + rest if random.random() < 0.5 else rest + its


def every_wording() -> list[str]:
    """All that this asks itself."""
    return [*HOW_MANY, *WITH_WORD, *FIRST_LINE, *READ_PAGE]
