"""(seed, index, split) -> a picture of a table, and questions about it with their answers.

Comes in: views of numbers, and the books. Goes out: `Conversation`; sides are multiples of 28. Held-out tables show
the held-out numbers in held-out fonts, asked in the first wording of each question.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Literal

from PIL import Image

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.figures.asking import NO, YES, Query, ask_several, worded
from recipes.nano.figures.made_up import a_word, some_words
from recipes.nano.figures.numbers import draw_view
from recipes.nano.figures.sheet import Sheet, font, wide
from recipes.nano.figures.views import MONTHS, said
from recipes.nano.figures.wordings import BETWEEN, READ_TABLE, TABLE
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import Colour
from recipes.nano.questions import CANNOT_TELL

WIDEST = 448
WEIGHTS: Final = {
    "cell": 34,
    "extreme": 12,
    "which": 8,
    "rows": 4,
    "columns": 4,
    "row": 12,
    "column": 6,
    "header": 5,
    "sum": 5,
    "difference": 5,
    "comparison": 6,
}


@dataclass(frozen=True)
class Grid:
    """What a table says: a header, and rows that begin with their names."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    others: tuple[str, ...]
    """Names of rows that are not there."""

    def column(self, at: int) -> list[str]:
        return [row[at] for row in self.rows]

    def numbers(self, at: int) -> list[float] | None:
        """A column as numbers, where all of it is."""
        try:
            return [float(cell) for cell in self.column(at)]
        except ValueError:
            return None


def table_sample(seed: int, index: int, split: Split) -> Conversation:
    """One table and 2 to 6 turns about it, in training up to 8."""
    _, image, asked = table_and_questions(seed, index, split)
    return Conversation((image,), tuple(Turn(one.question, one.answer) for one in asked))


def table_read_sample(seed: int, index: int, split: Split) -> Conversation:
    """One table, and all that is written on it, row by row."""
    random = Random(f"table read/{seed}/{split}/{index}")
    grid, image = _some(random, split)
    text = "\n".join(map(BETWEEN.join, (grid.header, *grid.rows)))
    return Conversation((image,), (Turn(worded(random, READ_TABLE, split), text),))


def table_and_questions(seed: int, index: int, split: Split) -> tuple[Grid, Image.Image, list[Query]]:
    """What `table_sample` shows and asks, with the cells behind it."""
    random = Random(f"table/{seed}/{split}/{index}")
    grid, image = _some(random, split)
    return grid, image, _ask(random, grid, split, random.randint(2, 6 if split == "heldout" else 8))


def _some(random: Random, split: Split) -> tuple[Grid, Image.Image]:
    grid = _made_up(random) if split == "train" and random.random() < 0.5 else _of_view(random, split)
    return grid, _drawn(random, grid, split)


# Cells --------------------------------------------------------------------------------------------------


def _of_view(random: Random, split: Split) -> Grid:
    view = draw_view(random, split)
    unit = f" ({view.unit})" if view.unit and len(view.series) == 1 and random.random() < 0.5 else ""
    header = (view.axis, *(view.series if len(view.series) > 1 else (view.measure + unit,)))
    lines = zip(*view.values, strict=True)
    rows = [(name, *map(said, line)) for name, line in zip(view.categories, lines, strict=True)]
    return Grid(header, tuple(rows[: random.randint(2, 7)]), tuple(n for n in view.others if n not in view.categories))


def _made_up(random: Random) -> Grid:
    count, width = random.randint(2, 7), random.randint(2, 5)
    names = some_words(random, "train", count + 2)
    makers = [random.choice(_CELLS)(random) for _ in range(width - 1)]
    header = [word.capitalize() for word in some_words(random, "train", width)]
    columns = [[maker() for _ in range(count)] for maker in makers]
    rows = zip(names[:count], *columns, strict=True)
    return Grid(tuple(header), tuple(rows), tuple(names[count:]))


def _whole_cells(random: Random) -> Callable[[], str]:
    top = random.choice((9, 20, 60, 100, 500, 2000))
    return lambda: str(random.randint(0, top))


def _decimal_cells(random: Random) -> Callable[[], str]:
    top, places = random.choice((1, 10, 100)), random.choice((1, 1, 2))
    return lambda: f"{random.uniform(0, top):.{places}f}"


def _price_cells(random: Random) -> Callable[[], str]:
    sign = random.choice("$€£")
    return lambda: f"{sign}{random.randint(1, 99)}.{random.choice((0, 50, 95, 99)):02}"


def _share_cells(random: Random) -> Callable[[], str]:
    return lambda: f"{random.randint(1, 99)}%"


def _word_cells(random: Random) -> Callable[[], str]:
    few = some_words(random, "train", 5)
    return (lambda: random.choice(few)) if random.random() < 0.4 else lambda: a_word(random, "train")


def _date_cells(random: Random) -> Callable[[], str]:
    form = random.randrange(4)
    return lambda: _date(random, form)


def _yes_cells(random: Random) -> Callable[[], str]:
    return lambda: random.choice(("yes", "no"))


_CELLS: Final = (_whole_cells, _whole_cells, _whole_cells, _decimal_cells, _price_cells, _share_cells, _word_cells,
                 _word_cells, _date_cells, _yes_cells)  # fmt: skip


def _date(random: Random, form: int) -> str:
    day, month, year = random.randint(1, 28), random.randrange(12), random.randint(1995, 2030)
    forms = (
        f"{year}-{month + 1:02}-{day:02}",
        f"{day} {MONTHS[month]} {year}",
        f"{day:02}.{month + 1:02}.{year}",
        f"{month + 1:02}/{day:02}/{year}",
    )
    return forms[form]


# Drawing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """What a table looks like beside its cells."""

    face: Path
    size: int
    pad: int
    row: int
    paper: Colour
    ink: Colour
    rule: Colour
    head: Colour
    head_ink: Colour
    stripe: Colour
    lines: Literal["all", "rows", "header", "none"]
    align: Literal["left", "numbers", "middle"]


def _draw_look(random: Random, split: Split) -> _Look:
    found, weights = faces(split)
    size = random.randint(12, 18)
    night = random.random() < 0.1
    paper: Colour = (30, 32, 40) if night else random.choice(((255, 255, 255), (255, 255, 255), (250, 249, 244)))
    ink: Colour = (232, 232, 236) if night else (random.randint(0, 60),) * 3
    head = head_ink = paper
    head_ink = ink
    if random.random() < 0.5:
        tint = (random.randint(205, 240), random.randint(210, 240), random.randint(215, 248))
        deep = (random.randint(20, 90), random.randint(40, 100), random.randint(60, 150))
        head, head_ink = (deep, (255, 255, 255)) if night or random.random() < 0.5 else (tint, ink)
    shade = 14 if night else -13
    stripe: Colour = (paper[0] + shade, paper[1] + shade, paper[2] + shade) if random.random() < 0.4 else paper
    return _Look(
        face=random.choices(found, cum_weights=weights)[0].path,
        size=size,
        pad=random.randint(5, 12),
        row=size + random.randint(6, 14),
        paper=paper,
        ink=ink,
        rule=(95, 95, 105) if night else (random.randint(120, 215),) * 3,
        head=head,
        head_ink=head_ink,
        stripe=stripe,
        lines=random.choice(("all", "all", "rows", "header", "none")),
        align=random.choice(("left", "numbers", "numbers", "middle")),
    )


def _drawn(random: Random, grid: Grid, split: Split) -> Image.Image:
    look = _draw_look(random, split)
    size, pad = look.size, look.pad
    while True:
        letters = font(look.face, size)
        cells = [grid.header, *grid.rows]
        widths = [max(wide(letters, row[at]) for row in cells) + 2 * pad for at in range(len(grid.header))]
        if sum(widths) + 8 <= WIDEST or size <= 10:
            break
        size, pad = (size - 1, pad) if pad <= 4 else (size, pad - 1)
    slack = random.uniform(0, min(30.0, max(0.0, WIDEST - 8 - sum(widths)) / len(widths)))
    widths = [width + slack for width in widths]
    image_size = [28 * math.ceil((side + 6) / 28) for side in (sum(widths), look.row * len(cells))]
    sheet = Sheet((image_size[0], image_size[1]), look.paper)
    left = (image_size[0] - sum(widths)) * random.random()
    top = (image_size[1] - look.row * len(cells)) * random.random()
    lefts = [left + sum(widths[:at]) for at in range(len(widths) + 1)]
    for number, row in enumerate(cells):
        y = top + number * look.row
        ground = look.head if not number else look.stripe if number % 2 == 0 else look.paper
        if ground != look.paper:
            sheet.box((lefts[0], y, lefts[-1], y + look.row), ground)
        for at, cell in enumerate(row):
            middle = y + look.row / 2
            ink = look.ink if number else look.head_ink
            if look.align == "middle":
                sheet.words(((lefts[at] + lefts[at + 1]) / 2, middle), cell, letters, ink, "mm")
            elif look.align == "numbers" and grid.numbers(at) is not None:
                sheet.words((lefts[at + 1] - pad, middle), cell, letters, ink, "rm")
            else:
                sheet.words((lefts[at] + pad, middle), cell, letters, ink, "lm")
    ruled = {"all": range(len(cells) + 1), "rows": range(len(cells) + 1), "header": (1,), "none": ()}[look.lines]
    for number in ruled:
        y = top + number * look.row
        sheet.line(((lefts[0], y), (lefts[-1], y)), look.rule)
    if look.lines == "all":
        for x in lefts:
            sheet.line(((x, top), (x, top + look.row * len(cells))), look.rule)
    return sheet.picture()


# Questions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asker:
    """Draws questions about one table."""

    random: Random
    grid: Grid
    split: Split

    def said_as(self, kind: str, answer: str, /, wording: str = "", **names: str) -> Query:
        text = worded(self.random, TABLE[wording or kind], self.split, name=self.grid.header[0].lower(), **names)
        return Query(kind, text, answer)

    def column_at(self) -> int:
        return self.random.randrange(1, len(self.grid.header))

    def numbers(self) -> tuple[str, list[float]] | None:
        """A column of numbers and its name."""
        at = self.column_at()
        numbers = self.grid.numbers(at)
        return None if numbers is None else (self.grid.header[at], numbers)

    def cell(self) -> Query:
        at, row = self.column_at(), self.random.choice(self.grid.rows)
        return self.said_as("cell", row[at], column=self.grid.header[at], row=row[0])

    def absent(self) -> Query | None:
        if not self.grid.others:
            return None
        name = self.random.choice(self.grid.others)
        return self.said_as("absent", CANNOT_TELL, "cell", column=self.grid.header[self.column_at()], row=name)

    def extreme(self) -> Query | None:
        if (found := self.numbers()) is None:
            return None
        column, numbers = found
        most = self.random.random() < 0.6
        end = max(numbers) if most else min(numbers)
        if numbers.count(end) > 1:
            return None
        return self.said_as("most" if most else "least", self.grid.rows[numbers.index(end)][0], column=column)

    def which(self) -> Query | None:
        at, row = self.column_at(), self.random.choice(self.grid.rows)
        if self.grid.column(at).count(row[at]) > 1:
            return None
        return self.said_as("which", row[0], column=self.grid.header[at], cell=row[at])

    def rows(self) -> Query:
        return self.said_as("rows", str(len(self.grid.rows)))

    def columns(self) -> Query:
        return self.said_as("columns", str(len(self.grid.header)))

    def row(self) -> Query:
        row = self.random.choice(self.grid.rows)
        return self.said_as("row", BETWEEN.join(row), row=row[0])

    def column(self) -> Query:
        at = self.column_at()
        return self.said_as("column", BETWEEN.join(self.grid.column(at)), column=self.grid.header[at])

    def header(self) -> Query:
        return self.said_as("header", BETWEEN.join(self.grid.header))

    def sum(self) -> Query | None:
        found = self.numbers()
        if found is None or len(found[1]) > 4 or max(found[1]) > 60 or not all(n.is_integer() for n in found[1]):
            return None
        return self.said_as("sum", said(sum(found[1])), column=found[0])

    def difference(self) -> Query | None:
        if (found := self._two()) is None:
            return None
        column, (one, row), (less, other) = found
        if one == less or one > 200 or not (one.is_integer() and less.is_integer()):
            return None
        return self.said_as("difference", said(one - less), column=column, row=row, other=other)

    def comparison(self) -> Query | None:
        if (found := self._two()) is None:
            return None
        column, first, second = found
        if first[0] == second[0]:
            return None
        if self.random.random() < 0.5:
            first, second = second, first
        answer = YES if first[0] > second[0] else NO
        return self.said_as("comparison", answer, column=column, row=first[1], other=second[1])

    def _two(self) -> tuple[str, tuple[float, str], tuple[float, str]] | None:
        """A column and two of its numbers with their rows' names, the larger first."""
        if (found := self.numbers()) is None:
            return None
        column, numbers = found
        named = list(zip(numbers, self.grid.column(0), strict=True))
        less, more = sorted(self.random.sample(named, 2))
        return column, more, less


def _ask(random: Random, grid: Grid, split: Split, wanted: int) -> list[Query]:
    asker = _Asker(random, grid, split)
    makers: dict[str, Callable[[], Query | None]] = {kind: getattr(asker, kind) for kind in (*WEIGHTS, "absent")}
    return ask_several(random, wanted, WEIGHTS, lambda kind: makers[kind](), twice="cell")
