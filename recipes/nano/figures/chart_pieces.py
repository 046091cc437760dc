"""What every chart has beside its marks: a look, a title, a legend, a ground with grid, and two axes.

Comes in: a generator, and what is to be written. Goes out: pieces drawn on a `Sheet`, and the room that is left.
Knows nothing of views or questions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from PIL import ImageFont

from recipes.nano.figures.sheet import Box, Point, Sheet, font, wide
from recipes.nano.figures.views import View, said
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import Colour

Kind = Literal["bars", "rows", "lines", "area", "dots", "pie", "ring"]
PIES = ("pie", "ring")
Marks = Sequence[tuple[float, str]]
"""Places along an axis, and what is written there."""

# Shades that nobody would call by another name.
SHADES: dict[str, tuple[Colour, ...]] = {
    "blue": ((31, 119, 180), (66, 103, 210), (38, 84, 160), (70, 130, 220)),
    "orange": ((255, 127, 14), (240, 140, 40), (235, 120, 20)),
    "green": ((44, 160, 44), (60, 150, 90), (30, 130, 76), (90, 180, 80)),
    "red": ((214, 39, 40), (200, 50, 60), (230, 60, 50)),
    "purple": ((140, 90, 190), (120, 60, 160), (110, 70, 170)),
    "brown": ((140, 86, 75), (130, 80, 45), (120, 70, 40)),
    "pink": ((227, 119, 194), (245, 140, 185), (235, 130, 180)),
    "gray": ((127, 127, 127), (140, 140, 145)),
    "yellow": ((240, 210, 40), (245, 205, 60)),
    "black": ((25, 25, 25), (40, 40, 45)),
}


@dataclass(frozen=True)
class Chart:
    """What can be read from a drawn chart; an empty name or tuple was not drawn."""

    view: View
    kind: Kind
    title: str
    category_axis: str
    value_axis: str
    colours: tuple[str, ...]
    """Of the series; of a pie and of a pair's points, of the categories."""
    labelled: bool
    """Each number is written at its mark."""
    grains: tuple[float, ...]
    """What one pixel is worth, for each series."""
    sign: str
    """Written behind each number."""


@dataclass(frozen=True)
class Look:
    """What a chart looks like beside its numbers."""

    face: Path
    small: int
    large: int
    paper: Colour
    plot: Colour
    ink: Colour
    faint: Colour
    grid: Literal["none", "values", "both"]
    dashed: bool
    frame: Literal["box", "corner", "base"]
    ticks: bool
    thousands: bool
    fills: tuple[Colour, ...]
    form: str
    edge: bool
    round: float
    share: float
    """Of a category's room, how much its bars take."""
    width: float
    legend: Literal["top", "bottom", "right"]

    def letters(self) -> ImageFont.FreeTypeFont:
        return font(self.face, self.small)

    def number(self, value: float) -> str:
        """A number as it is drawn."""
        text = said(value)
        if self.thousands and value >= 1000:
            return f"{float(text):,.{len(text.partition('.')[2])}f}"
        return text


@dataclass(frozen=True)
class Frame:
    """Where the plot lies, and what its scale is."""

    left: float
    top: float
    right: float
    bottom: float
    scale: tuple[float, ...]
    """The ticks of the values; its ends are the ends of the axis."""

    def share(self, value: float) -> float:
        return (value - self.scale[0]) / (self.scale[-1] - self.scale[0])

    def y(self, value: float) -> float:
        return self.bottom - self.share(value) * (self.bottom - self.top)

    def x(self, value: float) -> float:
        return self.left + self.share(value) * (self.right - self.left)

    def middles(self, count: int, *, down: bool = False) -> list[float]:
        """The middle of each category's room."""
        start, end = (self.top, self.bottom) if down else (self.left, self.right)
        return [start + (end - start) * (at + 0.5) / count for at in range(count)]


@dataclass(frozen=True)
class Layout:
    """The plot, and what is written along its axes."""

    frame: Frame
    numbers: tuple[str, ...]
    """At the ticks of the scale."""
    below: str
    beside: str
    angle: float
    """Of the names under the plot."""

    def grain(self, rows: bool) -> float:
        """What one pixel is worth, along rows or upwards."""
        frame = self.frame
        length = frame.right - frame.left if rows else frame.bottom - frame.top
        return (frame.scale[-1] - frame.scale[0]) / length


def draw_look(random: Random, split: Split, coloured: int) -> tuple[Look, tuple[str, ...]]:
    found, weights = faces(split)
    small = random.choices((10, 11, 12, 13), (2, 4, 4, 2))[0]
    night = random.random() < 0.1
    paper: Colour = (random.randint(15, 40),) * 2 + (random.randint(20, 55),) if night else (255, 255, 255)
    if not night and random.random() < 0.3:
        paper = (random.randint(240, 255), random.randint(240, 255), random.randint(235, 255))
    plot = paper
    if random.random() < 0.2:
        plot = tuple(min(255, c + 14) if night else c - 14 for c in paper)  # type: ignore[assignment]
    dark = random.randint(0, 70)
    names = random.sample([name for name in SHADES if name != ("black" if night else "")], coloured)
    if random.random() < 0.3:
        # As the most used libraries begin: blue, orange, green, red, …
        names = list(SHADES)[:coloured]
    look = Look(
        face=random.choices(found, cum_weights=weights)[0].path,
        small=small,
        large=small + random.choice((1, 2, 3)),
        paper=paper,
        plot=plot,
        ink=(230, 230, 235) if night else (dark, dark, dark),
        faint=(90, 90, 105) if night else (random.randint(195, 225),) * 3,
        grid=random.choice(("none", "none", "values", "both")),
        dashed=random.random() < 0.3,
        frame=random.choice(("box", "corner", "corner", "base")),
        ticks=random.random() < 0.5,
        thousands=random.random() < 0.3,
        fills=tuple(random.choice(SHADES[name]) for name in names),
        form=random.choice(("circle", "circle", "circle", "square", "diamond", "triangle")),
        edge=random.random() < 0.2,
        round=random.choice((0, 0, 0, 2)),
        share=random.uniform(0.55, 0.85),
        width=random.uniform(1.4, 2.6),
        legend=random.choice(("top", "top", "bottom", "right")),
    )
    return look, tuple(names)


def scale(low: float, high: float, wanted: int) -> tuple[float, ...]:
    """Round ticks from at most `low` to at least `high`."""
    raw = max(high - low, 1e-3) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return tuple(round(step * at, 6) for at in range(first, max(last, first + 1) + 1))


def heading(sheet: Sheet, look: Look, title: str) -> float:
    """Draws the title; returns where the rest may begin."""
    if not title:
        return 8
    sheet.words((sheet.size[0] / 2, 5), title, font(look.face, look.large), look.ink, "mt")
    return look.large + 12


def legend(sheet: Sheet, look: Look, names: tuple[str, ...], box: Box) -> Box:
    """Draws the names of the colours at a side of the box; returns what is left of the box."""
    left, top, right, bottom = box
    letters = look.letters()
    row = look.small + 6
    widths = [wide(letters, name) + 22 for name in names]
    places: list[Point]
    if look.legend == "right" and max(widths) < 0.4 * (right - left):
        start = top + max(0.0, (bottom - top - row * len(names)) / 4)
        places = [(right - max(widths) + 2, start + row * (at + 0.5)) for at in range(len(names))]
        right -= max(widths) + 4
    else:
        rows: list[list[float]] = [[]]
        for width in widths:
            if rows[-1] and sum(rows[-1]) + width > right - left:
                rows.append([])
            rows[-1].append(width)
        first = bottom - row * len(rows) if look.legend == "bottom" else top
        places = []
        for number, found in enumerate(rows):
            start = (left + right - sum(found)) / 2
            places += [(start + sum(found[:at]) + 4, first + row * (number + 0.5)) for at in range(len(found))]
        top, bottom = (top, first - 2) if look.legend == "bottom" else (first + row * len(rows) + 2, bottom)
    for (x, y), name, fill in zip(places, names, look.fills, strict=False):
        sheet.box((x, y - 4, x + 9, y + 5), fill)
        sheet.words((x + 13, y), name, letters, look.ink, "lm")
    return left, top, right, bottom


def ground(sheet: Sheet, look: Look, frame: Frame, middles: list[float], *, level: bool) -> None:
    """The ground of the plot, lines at the ticks (level or upright), and the frame."""
    left, top, right, bottom = frame.left, frame.top, frame.right, frame.bottom
    if look.plot != look.paper:
        sheet.box((left, top, right, bottom), look.plot)
    levels = [frame.y(tick) for tick in frame.scale] if level else middles
    uprights = middles if level else [frame.x(tick) for tick in frame.scale]
    if look.grid == "none" or (look.grid == "values" and not level):
        levels = []
    if look.grid == "none" or (look.grid == "values" and level):
        uprights = []
    ends = [((left, y), (right, y)) for y in levels] + [((x, top), (x, bottom)) for x in uprights]
    for start, end in ends:
        if look.dashed:
            sheet.dashes(start, end, look.faint, 0.8, 3)
        else:
            sheet.line((start, end), look.faint, 0.8)


def edges(sheet: Sheet, look: Look, frame: Frame) -> None:
    left, top, right, bottom = frame.left, frame.top, frame.right, frame.bottom
    if look.frame == "box":
        sheet.line(((left, top), (right, top), (right, bottom), (left, bottom), (left, top)), look.ink, 0.8)
    elif look.frame == "corner":
        sheet.line(((left, top), (left, bottom), (right, bottom)), look.ink, 0.8)
    else:
        sheet.line(((left, bottom), (right, bottom)), look.ink, 0.8)


def left_axis(sheet: Sheet, look: Look, frame: Frame, named: Marks, title: str) -> None:
    letters = look.letters()
    for y, name in named:
        if look.ticks:
            sheet.line(((frame.left - 3, y), (frame.left, y)), look.ink, 0.8)
        sheet.words((frame.left - 5, y), name, letters, look.ink, "rm")
    if title:
        place = (look.small / 2 + 4, (frame.top + frame.bottom) / 2)
        sheet.words(place, title, letters, look.ink, "mm", 90)


def bottom_axis(
    sheet: Sheet, look: Look, frame: Frame, named: Marks, title: str, floor: float, angle: float = 0.0
) -> None:
    letters = look.letters()
    for x, name in named:
        if look.ticks:
            sheet.line(((x, frame.bottom), (x, frame.bottom + 3)), look.ink, 0.8)
        if angle:
            sheet.words((x, frame.bottom + 4), name, letters, look.ink, "rm", angle)
        else:
            sheet.words((x, frame.bottom + 5), name, letters, look.ink, "mt")
    if title:
        sheet.words(((frame.left + frame.right) / 2, floor - 4), title, letters, look.ink, "mb")
