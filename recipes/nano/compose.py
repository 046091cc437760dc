"""Drawings with transparency -> one RGB picture: placed, varied, on a background, with a camera's faults.

Knows nothing of names, questions or styles.
"""

import math
from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from recipes.nano.paper import Colour, as_jpeg, background, colour

Placed = tuple[Image.Image, tuple[float, float]]
"""An RGBA drawing and where its middle lies."""

WHITE: Colour = (255, 255, 255)
# Shapes are drawn this much larger and shrunk, for smooth edges.
_FINE = 3


def vary(random: Random, drawing: Image.Image, side: float) -> Image.Image:
    """The drawing at most `side` large, turned by up to 12° and a little off in colour; never mirrored."""
    if random.random() < 0.6:
        drawing = drawing.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR, expand=True)
        if box := drawing.getchannel("A").getbbox():
            drawing = drawing.crop(box)
    factor = side / max(drawing.size)
    size = (max(1, round(drawing.width * factor)), max(1, round(drawing.height * factor)))
    drawing = drawing.resize(size, Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        pixels = np.asarray(drawing).astype(np.float32)
        gray = pixels[..., :3].mean(-1, keepdims=True)
        rich, light = random.uniform(0.6, 1.3), random.uniform(0.8, 1.15)
        tint = np.array([random.uniform(0.9, 1.1) for _ in range(3)], np.float32)
        pixels[..., :3] = ((pixels[..., :3] - gray) * rich + gray) * light * tint
        drawing = Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")
    return drawing


def shape(random: Random, name: str, fill: Colour, side: float) -> Image.Image:
    """A filled shape, upright but for a few degrees (a square on its corner would be a diamond)."""
    large = max(8, round(side)) * _FINE
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    end = large - 1
    if name == "circle":
        pen.ellipse((0, 0, end, end), fill=255)
    elif name == "ring":
        pen.ellipse((0, 0, end, end), outline=255, width=large // 5)
    elif name == "heart":
        _heart(pen, large)
    else:
        pen.polygon([(x * end, y * end) for x, y in _corners(name)], fill=255)
    if name not in ("square", "diamond") and random.random() < 0.5:
        mask = mask.rotate(random.uniform(-8, 8), Image.Resampling.BILINEAR, expand=True)
    mask = mask.resize((round(side), round(side)), Image.Resampling.BOX)
    drawing = Image.new("RGBA", mask.size, fill)
    drawing.putalpha(mask)
    return drawing


def _corners(name: str) -> list[tuple[float, float]]:
    """The corners of a shape in the unit square."""
    if name == "star":
        radii = [0.5 if i % 2 == 0 else 0.2 for i in range(10)]
        turns = [math.pi * (i / 5 - 0.5) for i in range(10)]
        return [(0.5 + r * math.cos(a), 0.52 + r * math.sin(a)) for r, a in zip(radii, turns, strict=True)]
    if name == "hexagon":
        turns = [math.pi * i / 3 for i in range(6)]
        return [(0.5 + 0.5 * math.cos(a), 0.5 + 0.5 * math.sin(a)) for a in turns]
    return {
        "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
        "triangle": [(0.5, 0.04), (1.0, 0.96), (0.0, 0.96)],
        "diamond": [(0.5, 0.0), (0.95, 0.5), (0.5, 1.0), (0.05, 0.5)],
        "cross": [
            *((0.35, 0.0), (0.65, 0.0), (0.65, 0.35), (1.0, 0.35), (1.0, 0.65), (0.65, 0.65)),
            *((0.65, 1.0), (0.35, 1.0), (0.35, 0.65), (0.0, 0.65), (0.0, 0.35), (0.35, 0.35)),
        ],
        "arrow": [
            *((0.0, 0.35), (0.55, 0.35), (0.55, 0.1), (1.0, 0.5)),
            *((0.55, 0.9), (0.55, 0.65), (0.0, 0.65)),
        ],
    }[name]


def _heart(pen: ImageDraw.ImageDraw, large: int) -> None:
    points = []
    for i in range(60):
        t = math.tau * i / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append(((x + 16.5) / 33 * large, (13 - y) / 31 * large))
    pen.polygon(points, fill=255)


def compose(
    random: Random, placed: Sequence[Placed], size: tuple[int, int], *, avoid: Sequence[Colour] = ()
) -> Image.Image:
    """The drawings on one background; `avoid` holds colours that must stand out from it."""
    noise = np.random.default_rng(random.getrandbits(63))
    clean = random.random() < 0.4
    paper = _paper(random, avoid)
    back = background(random, noise, paper, (0, 0, 0), size, plain=clean or bool(avoid))
    image = Image.fromarray(np.rint(back).astype(np.uint8))
    for drawing, (x, y) in placed:
        image.paste(drawing, (round(x - drawing.width / 2), round(y - drawing.height / 2)), drawing)
    if clean:
        return image
    if random.random() < 0.4:
        grain = noise.standard_normal((size[1], size[0], 3), np.float32) * random.uniform(1.0, 10.0)
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    if random.random() < 0.3:
        image = as_jpeg(image, random.randint(40, 92))
    return image


def _paper(random: Random, avoid: Sequence[Colour]) -> Colour:
    """White most often, light often, any colour sometimes."""
    while True:
        low = random.choices((255, 190, 0), (45, 37, 18))[0]
        paper = WHITE if low == 255 else colour(random, low, 255)
        if all(sum(abs(a - b) for a, b in zip(paper, other, strict=True)) > 150 for other in avoid):
            return paper
