"""Colours and backgrounds that lines and scenes are put on.

Comes in: generators and colours. Goes out: (height, width, 3) float32 in 0…255, or a picture.
"""

import io
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float32]
Colour = tuple[int, int, int]


def paper_and_pen(random: Random) -> tuple[Colour, Colour]:
    """70 % dark on light, 14 % light on dark, the rest any two colours that differ enough in light."""
    kind = random.choices(("black", "dark", "night", "any"), (40, 30, 14, 16))[0]
    if kind == "black":
        white, black = min(255, random.randint(225, 290)), max(0, random.randint(-60, 60))
        return (white, white, white), (black, black, black)
    while True:
        if kind == "dark":
            paper, pen = colour(random, 190, 255), colour(random, 0, 110)
        elif kind == "night":
            paper, pen = colour(random, 0, 80), colour(random, 180, 255)
        else:
            paper, pen = colour(random, 0, 255), colour(random, 0, 255)
        if abs(luminance(paper) - luminance(pen)) > 90:
            return paper, pen


def colour(random: Random, low: int, high: int) -> Colour:
    """Any colour with channels in a range."""
    return random.randint(low, high), random.randint(low, high), random.randint(low, high)


def luminance(of: Colour) -> float:
    """How light a colour looks, 0 to 255 (Rec. 601)."""
    red, green, blue = of
    return 0.299 * red + 0.587 * green + 0.114 * blue


def background(
    random: Random,
    noise: np.random.Generator,
    paper: Colour,
    pen: Colour,
    size: tuple[int, int],
    *,
    plain: bool,
) -> Pixels:
    """The paper: flat, a gentle gradient that keeps away from the pen's colour, or blotched."""
    width, height = size
    flat = np.full((height, width, 3), paper, np.float32)
    kind = random.choices(("flat", "gradient", "blotched"), (60, 22, 18))[0]
    if plain or kind == "flat":
        return flat
    if kind == "gradient":
        away = 1.0 if luminance(paper) > luminance(pen) else -1.0
        end = np.array([min(255, max(0, c + away * random.randint(-20, 60))) for c in paper], np.float32)
        along = np.linspace(0, 1, width, dtype=np.float32)[:, None]
        return flat + (end - flat) * (along if random.random() < 0.5 else along[::-1])
    coarse = noise.standard_normal((max(2, height // 8), max(2, width // 12)), np.float32)
    blotches = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.clip(flat + np.asarray(blotches)[..., None] * np.float32(random.uniform(2, 9)), 0, 255)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture as it comes back from a JPEG file."""
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")
