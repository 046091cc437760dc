"""Lines of text on a small sheet, large enough to be read by patches of 8 pixels.

Comes in: lines. Goes out: an RGB picture whose sides are multiples of 28.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from PIL import Image

from recipes.nano.figures.sheet import Sheet, font, wide
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import paper_and_pen

SIDE = 28


def written(random: Random, split: Split, lines: Sequence[str], *, size: int | None = None) -> Image.Image:
    found, weights = faces(split)
    face = font(random.choices(found, cum_weights=weights)[0].path, size or random.randint(13, 18))
    paper, pen = paper_and_pen(random)
    row = round(face.size * random.uniform(1.3, 1.6))
    widest = max(wide(face, line) for line in lines)
    width = SIDE * math.ceil((widest + random.randint(8, 30)) / SIDE)
    height = SIDE * math.ceil((row * len(lines) + random.randint(4, 14)) / SIDE)
    sheet = Sheet((width, height), paper)
    left = random.uniform(4, max(4.0, width - widest - 4))
    top = (height - row * len(lines)) / 2
    for number, line in enumerate(lines):
        sheet.words((left, top + row * (number + 0.5)), line, face, pen, "lm")
    return sheet.picture()


def wrapped(words: str, most: int) -> list[str]:
    """Lines of at most so many characters."""
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) + 1 > most and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
