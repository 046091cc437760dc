"""(seed, index, split) -> a paragraph of a book drawn in one font, and questions about its lines and words.

Comes in: the fonts and books that fetch.py laid down. Goes out: `Conversation`; the answer to "Read the text." is the
text with its lines joined by line ends. Three forms: one column, a heading above it, two columns. Pictures are at most
448 by 224, their sides multiples of 28. Held out are fonts and the book, as for lines.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from recipes.nano.conversation import Conversation
from recipes.nano.fonts import Split, faces
from recipes.nano.lines import FEATURES
from recipes.nano.paper import as_jpeg, background, paper_and_pen
from recipes.nano.questions import ABSENT, CANNOT_TELL, Asked, ask
from recipes.nano.text import book

WIDEST, HIGHEST, STEP = 448, 224, 28
FEWEST_LINES, MOST_LINES = 2, 6

READ_ALL = (
    "Read the text.",
    "What does the text say?",
    "Transcribe the text, line by line.",
    "Write down all that is written here.",
    "Read the paragraph.",
    "What is written in the picture?",
)
FIRST_WORD = ("What is the first word?", "Which word comes first?", "With which word does the text begin?")
LAST_WORD = ("What is the last word?", "Which word comes last?", "With which word does the text end?")
HOW_MANY_LINES = ("How many lines are there?", "How many lines does the text have?", "Count the lines.")
LINE = (
    "What does line {number} say?",
    "Read line {number}.",
    "What is written in line {number}?",
    "Read the {nth} line.",
    "Give me line {number} only.",
)
LAST_LINE = ("What does the last line say?", "Read the last line.", "What is written in the last line?")
AFTER = (
    'Which word comes after "{word}"?',
    'What word follows "{word}"?',
    'Which word stands next after "{word}"?',
    'What comes right after "{word}"?',
)
HEADING = ("What is the heading?", "Read the heading.", "What does the heading say?", "What is the title?")
COLUMN = ("Read the {side} column.", "What does the {side} column say?", "Transcribe the {side} column.")

_NTH = ("first", "second", "third", "fourth", "fifth", "sixth")
_SIGNS = ".,;:!?()[]{}<>\"'“”‘’…"


@dataclass(frozen=True)
class Block:
    """Lines of one font, one below the other."""

    lines: tuple[str, ...]
    font: ImageFont.FreeTypeFont
    left: int
    top: int
    width: int
    pitch: int
    # Lines that are spread over the whole width.
    spread: int

    @property
    def bottom(self) -> int:
        return self.top + len(self.lines) * self.pitch


@dataclass(frozen=True)
class Page:
    """What is written: a heading or "", and one or two columns of lines."""

    heading: str
    columns: tuple[tuple[str, ...], ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines in the order of reading."""
        heading = (self.heading,) if self.heading else ()
        return (*heading, *(line for column in self.columns for line in column))


def paragraph_drawn(seed: int, index: int, split: Split) -> Conversation:
    """One to four questions about one paragraph."""
    random = Random(f"paragraph/{seed}/{split}/{index}")
    image, page = page_drawn(random, split)
    found = {READ_ALL[0]: ask(READ_ALL, "\n".join(page.lines))} if random.random() < 0.75 else {}
    wanted = random.randint(1, 3) if found else random.randint(2, 4)
    tries = 0
    while len(found) < wanted and (tries < 8 * wanted or not found):
        tries += 1
        if (asked := _question(random, page)) is not None:
            found.setdefault(asked.wordings[0], asked)
    return Conversation((image,), tuple(asked.turn(random, split) for asked in found.values()))


# Questions ----------------------------------------------------------------------------------------------


def _question(random: Random, page: Page) -> Asked | None:
    if page.heading and random.random() < 0.4:
        return ask(HEADING, page.heading)
    if len(page.columns) > 1:
        side = random.randrange(2)
        return ask(COLUMN, "\n".join(page.columns[side]), side=("left", "right")[side])
    lines = page.lines
    words = [word for line in lines for word in line.split()]
    match random.choice(("first", "last", "count", "line", "line", "line", "last line", "after", "after")):
        case "first":
            return ask(FIRST_WORD, _bare(words[0]))
        case "last":
            return ask(LAST_WORD, _bare(words[-1]))
        case "count":
            return ask(HOW_MANY_LINES, str(len(lines)))
        case "line":
            number = random.randrange(len(lines))
            answer = lines[number]
            if random.random() < ABSENT and len(lines) < len(_NTH):
                number, answer = len(lines), CANNOT_TELL
            return ask(LINE, answer, number=str(number + 1), nth=_NTH[number]) if number < len(_NTH) else None
        case "last line":
            return ask(LAST_LINE, lines[-1])
        case _:
            return _after(random, words)


def _after(random: Random, words: Sequence[str]) -> Asked | None:
    """The word after one that is there once, and is plain enough to be asked for."""
    bare = [_bare(word) for word in words]
    number = random.randrange(len(words) - 1)
    word = bare[number]
    if random.random() < ABSENT:
        # No word of ours: one of theirs turned round.
        word = word[::-1].lower()
        return ask(AFTER, CANNOT_TELL, word=word) if word.isalpha() and word not in map(str.lower, bare) else None
    alone = [other.lower() for other in bare].count(word.lower()) == 1
    return ask(AFTER, bare[number + 1], word=word) if alone and word.isalnum() and words[number] == word else None


def _bare(word: str) -> str:
    return word.strip(_SIGNS) or word


# Pages --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def page_drawn(random: Random, split: Split) -> tuple[Image.Image, Page]:
    """A picture and what is written on it."""
    blocks, size, page = _page(random, split)
    return drawn(random, blocks, size), page


def words_drawn(random: Random, split: Split) -> tuple[Image.Image, list[tuple[str, tuple[float, float]]]]:
    """A picture, its words without their signs, and the middle of each in shares of width and height."""
    blocks, size, _ = _page(random, split)
    words = []
    for block in blocks:
        for number, line in enumerate(block.lines):
            for x, text in _placed(block, line, spread=number < block.spread):
                for match in re.finditer(r"\S+", text):
                    before, upto = (_length(block.font, text[:end]) for end in match.span())
                    middle = (block.left + x + (before + upto) / 2, _base_line(block, number) - 0.3 * block.font.size)
                    words.append((_bare(match[0]), (middle[0] / size[0], middle[1] / size[1])))
    return drawn(random, blocks, size), words


def _page(random: Random, split: Split) -> tuple[list[Block], tuple[int, int], Page]:
    """Blocks, the size of their picture, and what they say; drawn anew in the rare case that it would be too high."""
    while True:
        found, weights = faces(split)
        face = random.choices(found, cum_weights=weights)[0]
        form = random.choices(("plain", "heading", "columns"), (70, 15, 15))[0]
        size = random.randint(12, 17 if form == "columns" else 22)
        font = _font(face.path, size)
        pitch = round(size * random.uniform(1.15, 1.5))
        margin = random.randint(5, 12)
        width = STEP * random.randint(10 if form == "columns" else 5, WIDEST // STEP)
        top, heading = margin, ""
        blocks: list[Block] = []
        if form == "heading":
            large = _font(face.path, round(size * random.uniform(1.2, 1.5)))
            heading = _heading(random, split, large, width - 2 * margin)
            blocks.append(Block((heading,), large, margin, top, width - 2 * margin, round(1.5 * large.size), 0))
            top = blocks[0].bottom
        room = (HIGHEST - margin - top) // pitch
        justified = random.random() < 0.35
        count = random.randint(FEWEST_LINES, MOST_LINES)
        gap = random.randint(16, 24)
        across = (width - 2 * margin - gap) // 2 if form == "columns" else width - 2 * margin
        for left in (margin, margin + across + gap) if form == "columns" else (margin,):
            lines, ended = _lines(random, split, font, across, min(count, room))
            spread = (len(lines) - ended) if justified else 0
            blocks.append(Block(lines, font, left, top, across, pitch, spread))
        if all(len(block.lines) >= FEWEST_LINES for block in blocks[bool(heading) :]):
            height = STEP * -(-(max(block.bottom for block in blocks) + margin) // STEP)
            columns = tuple(block.lines for block in blocks[bool(heading) :])
            if height <= HIGHEST:
                return blocks, (width, height), Page(heading, columns)


def _lines(
    random: Random, split: Split, font: ImageFont.FreeTypeFont, width: int, count: int
) -> tuple[tuple[str, ...], bool]:
    """A piece of a paragraph broken into lines, and whether the paragraph ends with them."""
    paragraphs = book(split)
    while len(paragraph := paragraphs[random.randrange(len(paragraphs))]) < 60:
        pass
    words = paragraph.split()
    start = 0 if random.random() < 0.5 else random.randrange(max(1, len(words) - 10))
    return broken(words[start:], font, width, count)


def broken(words: Sequence[str], font: ImageFont.FreeTypeFont, width: int, count: int) -> tuple[tuple[str, ...], bool]:
    """Words as at most ``count`` lines, and whether they end with them. No lines where a word is wider than they."""
    blank = _length(font, " ")
    lines: list[str] = []
    line: list[str] = []
    used = 0.0
    for word in words:
        long = _length(font, word)
        if long > width:
            return (), True
        if line and used + blank + long > width:
            lines.append(" ".join(line))
            if len(lines) == count:
                return tuple(lines), False
            line, used = [], 0.0
        used += long + (blank if line else 0)
        line.append(word)
    return (*lines, " ".join(line)), True


def _heading(random: Random, split: Split, font: ImageFont.FreeTypeFont, width: int) -> str:
    paragraphs = book(split)
    while True:
        words = paragraphs[random.randrange(len(paragraphs))].split()[: random.randint(1, 5)]
        heading = " ".join(words).strip(_SIGNS + " ")
        heading = heading[:1].upper() + heading[1:]
        if heading and _length(font, heading) <= width:
            return heading


def drawn(random: Random, blocks: Sequence[Block], size: tuple[int, int]) -> Image.Image:
    """The blocks on one paper, in one ink."""
    ink = Image.new("L", size)
    pen = ImageDraw.Draw(ink)
    for block in blocks:
        for number, line in enumerate(block.lines):
            y = _base_line(block, number)
            for x, text in _placed(block, line, spread=number < block.spread):
                pen.text((block.left + x, y), text, 255, font=block.font, anchor="ls", features=FEATURES)
    clean = random.random() < 0.4
    paper, of_pen = paper_and_pen(random)
    noise = np.random.default_rng(random.getrandbits(63))
    back = background(random, noise, paper, of_pen, size, plain=clean)
    if not clean and random.random() < 0.25:
        ink = ink.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.5)))
    cover = np.asarray(ink, np.float32)[..., None] / 255
    pixels = back + (np.array(of_pen, np.float32) - back) * cover
    if not clean and random.random() < 0.3:
        pixels += noise.standard_normal((*pixels.shape[:2], 1), np.float32) * random.uniform(1.0, 9.0)
    image = Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    return as_jpeg(image, random.randint(45, 92)) if not clean and random.random() < 0.3 else image


def _base_line(block: Block, number: int) -> int:
    """Where a line stands: faces differ in what they call their top."""
    return block.top + number * block.pitch + round(0.85 * block.font.size)


def _length(font: ImageFont.FreeTypeFont, text: str) -> float:
    return font.getlength(text, features=FEATURES)


def _placed(block: Block, line: str, *, spread: bool) -> list[tuple[float, str]]:
    """The line as one piece, or its words so that the last one ends at the right margin."""
    words = line.split()
    if not spread or len(words) < 2:
        return [(0.0, line)]
    lengths = [_length(block.font, word) for word in words]
    blank = (block.width - sum(lengths)) / (len(words) - 1)
    starts = [sum(lengths[:i]) + i * blank for i in range(len(words))]
    return list(zip(starts, words, strict=True))


def every_wording() -> list[str]:
    """For the tokenizer."""
    asked = (READ_ALL, FIRST_WORD, LAST_WORD, HOW_MANY_LINES, LINE, LAST_LINE, AFTER, HEADING, COLUMN)
    return [wording for wordings in asked for wording in wordings]
