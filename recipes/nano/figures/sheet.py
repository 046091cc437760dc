"""Figures in pixel coordinates -> a picture, with smooth edges and upright small type.

Comes in: boxes, lines, dots, slices and words, one after the other. Goes out: an RGB picture. Figures are drawn three
times as large and shrunk; words are drawn at their size, since shrunk letters blur. Knows nothing of charts.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from recipes.nano.lines import FEATURES
from recipes.nano.paper import Colour

FINE = 3
Point = tuple[float, float]
Box = tuple[float, float, float, float]
Anchor = Literal["lm", "mm", "rm", "mt", "mb", "lt", "rt"]


@lru_cache(maxsize=2048)
def font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A face at a size in pixels."""
    return ImageFont.truetype(path, size)


def wide(face: ImageFont.FreeTypeFont, text: str) -> float:
    """How many pixels a text takes."""
    return face.getlength(text, features=FEATURES)


class Sheet:
    """What has been drawn so far."""

    def __init__(self, size: tuple[int, int], paper: Colour) -> None:
        self.size = size
        self._figures = Image.new("RGB", (size[0] * FINE, size[1] * FINE), paper)
        self._pen = ImageDraw.Draw(self._figures)
        self._words: list[tuple[Point, str, ImageFont.FreeTypeFont, Colour, Anchor, float]] = []

    def box(
        self,
        corners: tuple[float, float, float, float],
        fill: Colour | None,
        edge: Colour | None = None,
        round: float = 0,
    ) -> None:
        """A rectangle from (left, top) to (right, bottom)."""
        left, top, right, bottom = (FINE * c for c in corners)
        if right - left < 1 or bottom - top < 1:
            return
        place = (left, top, right - 1, bottom - 1)
        width = FINE if edge else 0
        if round:
            self._pen.rounded_rectangle(place, FINE * round, fill=fill, outline=edge, width=width)
        else:
            self._pen.rectangle(place, fill=fill, outline=edge, width=width)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """Straight pieces from point to point."""
        thick = max(1, round(FINE * width))
        self._pen.line([(FINE * x, FINE * y) for x, y in points], fill=colour, width=thick, joint="curve")

    def dashes(self, start: Point, end: Point, colour: Colour, width: float, dash: float) -> None:
        """An upright or level line of dashes."""
        length = abs(end[0] - start[0]) + abs(end[1] - start[1])
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        at = 0.0
        while at < length:
            to = min(length, at + dash)
            ends = [(start[0] + along[0] * d, start[1] + along[1] * d) for d in (at, to)]
            self.line(ends, colour, width)
            at += 2 * dash

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled outline."""
        self._pen.polygon([(FINE * x, FINE * y) for x, y in points], fill=colour)

    def dot(self, at: Point, radius: float, colour: Colour, form: str = "circle") -> None:
        """A mark around a point: a circle, a square, a diamond or a triangle."""
        x, y = at
        if form == "circle":
            x, y, reach = FINE * x, FINE * y, FINE * radius
            self._pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        elif form == "square":
            self.box((x - radius, y - radius, x + radius, y + radius), colour)
        elif form == "diamond":
            reach = 1.25 * radius
            self.polygon([(x - reach, y), (x, y - reach), (x + reach, y), (x, y + reach)], colour)
        else:
            self.polygon([(x - radius, y + radius), (x, y - 1.2 * radius), (x + radius, y + radius)], colour)

    def slice(self, middle: Point, radius: float, start: float, end: float, fill: Colour, edge: Colour) -> None:
        """A sector of a disc, from an angle to another in degrees clockwise."""
        x, y, reach = FINE * middle[0], FINE * middle[1], FINE * radius
        self._pen.pieslice(
            (x - reach, y - reach, x + reach, y + reach), start, end, fill=fill, outline=edge, width=FINE
        )

    def words(
        self, at: Point, text: str, face: ImageFont.FreeTypeFont, colour: Colour, anchor: Anchor, angle: float = 0.0
    ) -> None:
        """A text with its anchor at a point; at an angle (counter-clockwise), the point is the end or the middle."""
        self._words.append((at, text, face, colour, anchor, angle))

    def picture(self) -> Image.Image:
        """All of it, words on top."""
        image = self._figures.reduce(FINE)
        pen = ImageDraw.Draw(image)
        for at, text, face, colour, anchor, angle in self._words:
            if not angle:
                place = (round(at[0]), round(at[1]))
                pen.text(place, text, fill=colour, font=face, anchor=anchor, features=FEATURES)
                continue
            size = (round(wide(face, text)) + 2, round(1.35 * face.size))
            ink = Image.new("L", size)
            ImageDraw.Draw(ink).text((1, size[1] / 2), text, fill=255, font=face, anchor="lm", features=FEATURES)
            turned = ink.rotate(angle, Image.Resampling.BICUBIC, expand=True)
            # The end of a slanted label stands under its mark; an axis label is centred.
            left = at[0] - (turned.width / 2 if anchor == "mm" else turned.width - 0.35 * size[1] * (angle < 90))
            top = at[1] - (turned.height / 2 if anchor == "mm" else 0)
            if anchor == "rm" and angle == 90:
                left = at[0] - turned.width / 2
            image.paste(colour, (round(left), round(top)), turned)
        return image
