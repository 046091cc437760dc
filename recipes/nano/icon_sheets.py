"""(random, split) -> a small picture of icons in rows, as on tool bars, and where each of them lies.

Comes in: the albums of icons that fetch.py drew. Goes out: `Sheet`. Training has every style but that of the held-out
screens; of the names, the common ones come more often, as on made pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from recipes.nano.fonts import Split
from recipes.nano.paper import Colour, as_jpeg, paper_and_pen
from recipes.nano.raster import album, icon_styles_here
from recipes.nano.screens.icon_styles import HELDOUT_STYLE, is_common

STEP = 16  # pixels of a token
COMMON = 0.6
MOST = 12
# Of an icon, in pixels; a screen's are of 16 to 28.
SMALLEST, LARGEST = 14, 32


@dataclass(frozen=True)
class Sheet:
    """A picture (RGB), and what is on it."""

    image: Image.Image
    icons: tuple[tuple[str, tuple[float, float]], ...]
    """The name of each, and its middle in shares of width and height."""
    absent: str
    """A name that none of them has."""


def sheet(random: Random, split: Split) -> Sheet:
    """1 to 12 icons of one style, no name twice."""
    style = random.choice([style for style in icon_styles_here() if (style == HELDOUT_STYLE) == (split == "heldout")])
    *names, absent = _some(random, style, random.randint(1, MOST) + 1)
    columns = random.choice((len(names), random.randint(1, len(names)), max(1, round(len(names) ** 0.5))))
    rows = -(-len(names) // columns)
    side = random.randint(SMALLEST, LARGEST)
    cell = side + random.randint(4, 24)
    width, height = (STEP * -(-(count * cell + random.randint(0, 24)) // STEP) for count in (columns, rows))
    paper, pen = paper_and_pen(random)
    image = Image.new("RGB", (width, height), paper)
    framed = random.random() < 0.3
    left, top = random.randint(0, width - columns * cell), random.randint(0, height - rows * cell)
    icons = []
    for number, name in enumerate(names):
        x, y = (place + (at + 0.5) * cell for place, at in ((left, number % columns), (top, number // columns)))
        if framed:
            _frame(image, (x, y), (cell - 3) / 2, paper, pen)
        drawing = _inked(album(style).picture(random.choice(_rows(style)[name])), pen)
        drawing = drawing.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        image.paste(drawing, (round(x - side / 2), round(y - side / 2)), drawing)
        icons.append((name, (x / width, y / height)))
    if random.random() < 0.15:
        image = as_jpeg(image, random.randint(50, 92))
    return Sheet(image, tuple(icons), absent)


@cache
def _rows(style: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, name in enumerate(album(style).names):
        found.setdefault(name, []).append(row)
    return found


@cache
def _names(style: str) -> tuple[Sequence[str], Sequence[str]]:
    """The common ones, and all."""
    every = tuple(_rows(style))
    return tuple(filter(is_common, every)), every


def _some(random: Random, style: str, count: int) -> list[str]:
    common, every = _names(style)
    found: list[str] = []
    while len(found) < count:
        name = random.choice(common if random.random() < COMMON else every)
        # "align left" beside "align right" is what one must tell apart; the absent one comes last, and shares no word.
        last = len(found) == count - 1
        if name not in found and not (last and set(name.split()) & {word for other in found for word in other.split()}):
            found.append(name)
    return found


def _inked(drawing: Image.Image, pen: Colour) -> Image.Image:
    """The drawing with its black in another colour."""
    pixels = np.asarray(drawing).copy()
    dark = pixels[..., :3].max(-1) < 60
    pixels[dark, :3] = pen
    return Image.fromarray(pixels, "RGBA")


def _frame(image: Image.Image, middle: tuple[float, float], half: float, paper: Colour, pen: Colour) -> None:
    """A button around an icon."""
    between = tuple(round(0.75 * p + 0.25 * i) for p, i in zip(paper, pen, strict=True))
    x, y = middle
    ImageDraw.Draw(image).rounded_rectangle((x - half, y - half, x + half, y + half), 3, outline=between)
