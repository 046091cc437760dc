"""(seed, index, split) -> one picture of a line of text, and the text.

Comes in: the fonts and books that fetch.py laid down. Goes out: `LineSample`. "train" and "heldout" share
sizes, colours and noise; they differ in fonts, in the book, and in that held-out lines are all prose.
About 65 % of the pictures are at most 28 px high (two rows of merged patches), nearly all others at most 56.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageFilter, ImageFont, features

from recipes.nano.fonts import Split, faces
from recipes.nano.paper import as_jpeg, background, paper_and_pen
from recipes.nano.strings import line_text

WIDEST = 784
LONGEST = 110
LOW, HIGH = 28, 56
# Code faces draw "!=" or "=>" as one sign by contextual alternates, and then the letters are not to be seen.
FEATURES = ["-calt"] if features.check("raqm") else None


@dataclass(frozen=True)
class LineSample:
    """A picture (RGB) and exactly what is written on it."""

    image: Image.Image
    text: str


@dataclass(frozen=True)
class _Look:
    """What is done to a line beside its font; drawn once so that the order of draws is fixed."""

    clean: bool
    low: bool
    size: int
    spacing: float
    angle: float
    slant: float
    stretch: float
    underline: bool


def line_sample(seed: int, index: int, split: Split, *, longest: int = LONGEST) -> LineSample:
    """The line of this seed and index, of at most ``longest`` characters; the same on every call."""
    random = Random(f"line/{seed}/{split}/{index}")
    look = _look(random)
    found, weights = faces(split)
    face = random.choices(found, cum_weights=weights)[0]
    text = line_text(random, split, longest)
    ink, text = _ink(face.path, text, look)
    ink = _bent(ink, look)
    ink = _framed(random, ink, look)
    return LineSample(_coloured(random, ink, look), text)


def _look(random: Random) -> _Look:
    clean = random.random() < 0.35
    low = random.random() < 0.55
    size = random.choices((random.randint(12, 15), random.randint(16, 26), random.randint(27, 40)), (10, 78, 12))[0]
    if low:
        # Above 24 the letters would be shrunk to fit anyway; the tall ones go to the higher pictures.
        size = min(size, random.randint(18, 24))

    def sometimes(chance: float, low: float, high: float, otherwise: float) -> float:
        value = random.uniform(low, high)
        return value if random.random() < chance and not clean else otherwise

    return _Look(
        clean=clean,
        low=low,
        size=size,
        spacing=sometimes(0.1, 0.3, 3.0, 0.0),
        angle=sometimes(0.3, -2.0, 2.0, 0.0),
        slant=sometimes(0.12, -0.15, 0.15, 0.0),
        stretch=sometimes(0.25, 0.85, 1.15, 1.0),
        underline=random.random() < 0.03,
    )


@lru_cache(maxsize=4096)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _ink(path: Path, text: str, look: _Look) -> tuple[Image.Image, str]:
    """The coverage of the letters, cropped to them, and the text that fitted."""
    highest = (LOW if look.low else HIGH) - 4
    size = look.size
    while True:
        ink = _written(_font(path, size), text, look)
        room = (WIDEST - 8) / look.stretch
        if ink.width > room:
            if " " in text:
                keep = max(1, int(len(text) * room / ink.width))
                text = text[:keep].rsplit(" ", 1)[0] if " " in text[:keep].strip() else text.split()[0]
            else:
                size = max(8, min(size - 1, int(size * room / ink.width)))
                if size == 8:
                    text = text[:40]
        elif ink.height > highest and size > 9:
            size = max(9, min(size - 1, int(size * highest / ink.height)))
        else:
            return ink, text


def _written(font: ImageFont.FreeTypeFont, text: str, look: _Look) -> Image.Image:
    if look.spacing:
        # A right-side bearing can be negative (italics): the canvas gets room on each side.
        pad = font.size
        places = [pad + font.getlength(text[:i], features=FEATURES) + look.spacing * i for i in range(len(text))]
        canvas = Image.new("L", (int(places[-1] + 3 * pad), int(2.5 * font.size)))
        for character, x in zip(text, places, strict=True):
            mask, (left, top) = font.getmask2(character, mode="L", features=FEATURES)
            if mask.size[0] and mask.size[1]:
                glyph = Image.frombytes("L", mask.size, bytes(mask))
                canvas.paste(255, (round(x) + left, top + int(font.size / 4)), glyph)
        ink = canvas.crop(canvas.getbbox())
    else:
        mask, _ = font.getmask2(text, mode="L", features=FEATURES)
        ink = Image.frombytes("L", mask.size, bytes(mask))
        ink = ink.crop(ink.getbbox())
    if look.underline:
        thick = max(1, round(font.size / 14))
        ruled = Image.new("L", (ink.width, ink.height + 1 + thick))
        ruled.paste(ink)
        ruled.paste(255, (0, ink.height + 1, ink.width, ink.height + 1 + thick))
        return ruled
    return ink


def _bent(ink: Image.Image, look: _Look) -> Image.Image:
    """Rise, slant and stretch in one resampling, cropped to the ink again."""
    if not (look.angle or look.slant or look.stretch != 1.0):
        return ink
    s, k = look.stretch, look.slant
    wide = math.ceil(s * ink.width + abs(k) * ink.height) + 4
    # A long line turned by 2° would need much height: the rise over the whole line is limited.
    t = math.tan(math.radians(look.angle))
    t = math.copysign(min(abs(t), (2.0 if look.low else 12.0) / wide), t)
    high = math.ceil(ink.height + abs(t) * wide) + 4
    # Forward: x = s·u + k·(height - v) + left, y = v + t·x + top; the transform wants (x, y) -> (u, v).
    left = 2 + max(-k, 0.0) * ink.height
    top = 2 + max(-t, 0.0) * wide
    back = ((1 - k * t) / s, k / s, -(k * top + k * ink.height + left) / s, -t, 1.0, -top)
    bent = ink.transform((wide, high), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    return bent.crop(bent.getbbox())


def _framed(random: Random, ink: Image.Image, look: _Look) -> Image.Image:
    """The ink with 2 to 12 pixels of margin on each side, less where the height would pass its limit."""
    slack = max(0, (LOW if look.low else HIGH) - ink.height)
    top, bottom = random.randint(2, 12), random.randint(2, 12)
    if top + bottom > slack:
        top = round(slack * top / (top + bottom))
        bottom = slack - top
    slack = max(0, WIDEST - ink.width)
    left, right = min(random.randint(2, 12), slack // 2), min(random.randint(2, 12), slack // 2)
    framed = Image.new("L", (ink.width + left + right, ink.height + top + bottom))
    framed.paste(ink, (left, top))
    return framed


def _coloured(random: Random, ink: Image.Image, look: _Look) -> Image.Image:
    paper, pen = paper_and_pen(random)
    # Made from one more draw, and only when there is something to draw with it.
    noise = np.random.default_rng(random.getrandbits(63))
    back = background(random, noise, paper, pen, ink.size, plain=look.clean)
    if not look.clean and random.random() < 0.35:
        # Letters of small type are a few pixels wide: the blur goes with the size.
        ink = ink.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.035 * look.size)))
    cover = np.asarray(ink, np.float32)[..., None] / 255
    pixels = back + (np.array(pen, np.float32) - back) * cover
    if look.clean:
        return Image.fromarray(np.rint(pixels).astype(np.uint8))
    if random.random() < 0.4:
        # Grain is the same in the three channels or not, as in scans and in cameras.
        grain = noise.standard_normal((*pixels.shape[:2], random.choice((1, 1, 3))), np.float32)
        pixels = pixels + grain * random.uniform(1.0, 12.0)
    image = Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    if random.random() < 0.1:
        factor = random.uniform(0.7, 0.95) if look.size >= 16 else 0.95
        small = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))
        image = small.resize(image.size, Image.Resampling.BILINEAR)
    if random.random() < 0.3:
        image = as_jpeg(image, random.randint(35, 92))
    return image
