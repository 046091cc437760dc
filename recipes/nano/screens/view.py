"""A stored screen -> what the model is shown of it, a little different each time.

Comes in: `Screen`. Goes out: `View`, a picture with lines and elements in its own pixels. Held-out screens are shown
as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageOps

from recipes.nano.fonts import Split
from recipes.nano.paper import as_jpeg
from recipes.nano.screens.shots import Box, Element, Line, Screen

SMALLEST_PIECE = 0.2  # of a screen's width, and of its height


@dataclass(frozen=True)
class View:
    """A picture (RGB) and what is on it."""

    image: Image.Image
    lines: tuple[Line, ...]
    elements: tuple[Element, ...]


def whole(random: Random, screen: Screen, split: Split) -> View:
    """The whole screen; in training less a few pixels at its edges, and larger or smaller."""
    if split == "heldout":
        return View(screen.picture(), screen.lines, screen.elements)
    width, height = screen.size
    cut = [random.choice((0, 0, random.randint(1, 8))) for _ in range(4)]
    return _seen(random, screen, (cut[0], cut[1], width - cut[2], height - cut[3]))


def piece(random: Random, screen: Screen, box: Box) -> View:
    """For training: a part of a screen with a box of it, from a fifth of its sides on, varied as the whole is."""
    window = [0, 0, 0, 0]
    for way, side in enumerate(screen.size):
        first, last = math.floor(box[way]), math.ceil(box[way + 2])
        kept = max(last - first, round(side * SMALLEST_PIECE ** random.random()))
        window[way] = random.randint(max(0, last - kept), max(0, min(first, side - kept)))
        window[way + 2] = window[way] + kept
    return _seen(random, screen, (window[0], window[1], window[2], window[3]))


def _seen(random: Random, screen: Screen, window: Box) -> View:
    image, scale = varied(random, screen.picture(), window, rescaled=0.4)
    return View(
        image,
        tuple(_moved_line(line, window, scale) for line in screen.lines if touching(line.box, window)),
        tuple(_moved_element(element, window, scale) for element in screen.elements if touching(element.box, window)),
    )


def varied(
    random: Random, picture: Image.Image, window: Box, *, rescaled: float = 0.65
) -> tuple[Image.Image, tuple[float, float]]:
    """A piece of a picture, perhaps rescaled, inverted or worn, and how much wider and higher it has become."""
    piece = picture.crop((round(window[0]), round(window[1]), round(window[2]), round(window[3])))
    size = piece.size
    if random.random() < rescaled:
        factor = random.uniform(0.85, 1.2)
        resampling = random.choices((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC), (70, 30))[0]
        piece = piece.resize((max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), resampling)
    if random.random() < 0.1:
        piece = ImageOps.invert(piece)
    if random.random() < 0.08:
        piece = as_jpeg(piece, random.randint(50, 92))
    return piece, (piece.width / size[0], piece.height / size[1])


def touching(one: Box, other: Box) -> bool:
    """Whether two boxes share some area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def within(one: Box, other: Box) -> bool:
    """Whether a box lies wholly in another."""
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def union(boxes: Iterable[Box]) -> Box:
    """The box around all."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def with_margin(random: Random, box: Box, others: Sequence[Box], size: tuple[int, int], most: int) -> Box:
    """A box with some pixels on each side, as far as no other text comes into it and the picture goes on."""
    x0, y0, x1, y1 = box
    # First left and right, then up and down over the whole new width.
    beside = [other for other in others if other[1] < y1 and other[3] > y0]
    left = max([0.0, x0 - random.randint(1, most), *(other[2] for other in beside if other[2] <= x0)])
    right = min([float(size[0]), x1 + random.randint(1, most), *(other[0] for other in beside if other[0] >= x1)])
    over = [other for other in others if other[0] < right and other[2] > left]
    top = max([0.0, y0 - random.randint(1, most), *(other[3] for other in over if other[3] <= y0)])
    bottom = min([float(size[1]), y1 + random.randint(1, most), *(other[1] for other in over if other[1] >= y1)])
    return left, top, right, bottom


def _moved(box: Box, window: Box, scale: tuple[float, float]) -> Box:
    left, right = (min(max(x, window[0]), window[2]) - window[0] for x in (box[0], box[2]))
    top, bottom = (min(max(y, window[1]), window[3]) - window[1] for y in (box[1], box[3]))
    return left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]


def _moved_line(line: Line, window: Box, scale: tuple[float, float]) -> Line:
    text = line.text if within(line.box, window) else ""
    return Line(line.block, _moved(line.box, window, scale), text)


def _moved_element(element: Element, window: Box, scale: tuple[float, float]) -> Element:
    clear = element.clear and within(element.box, window)
    return replace(element, box=_moved(element.box, window, scale), clear=clear)
