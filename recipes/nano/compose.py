"""What there is to draw, split by split -> RGB pictures of it, varied, with a camera's faults; and what lies where.

Comes in: albums (raster.py), names of shapes and colours. Goes out: cards and shapes, pictures, `Seen` records.
Knows nothing of what is asked.
"""

import hashlib
import json
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from recipes.nano.captions import is_countable
from recipes.nano.facts import Kind, Seen
from recipes.nano.fonts import Split
from recipes.nano.packages import DATA
from recipes.nano.paper import Colour, as_jpeg, background, colour
from recipes.nano.pictures import HELDOUT_STYLE
from recipes.nano.questions import COLOURS, SHAPES, phrases
from recipes.nano.raster import CLIPART, album
from recipes.nano.sets import here

Placed = tuple[Image.Image, tuple[float, float]]
"""An RGBA drawing and where its middle lies."""

WHITE: Colour = (255, 255, 255)
# Shapes are drawn this much larger and shrunk, for smooth edges.
_FINE = 3
# What can be counted or stand beside another thing.
THING_GROUPS = frozenset(("animals-nature", "food-drink", "objects", "travel-places", "activities"))
# Names that no one thing has, though their pictures are among the things: states, games, weather, what comes by weight.
_NO_THINGS = frozenset(
    phrases("""airplane arrival | airplane departure | bacon | badminton | bowling | bread | broccoli |
    building construction | butter | camping | card index | chart decreasing | chart increasing | cityscape |
    construction | cooked rice | cooking | cricket game | curry rice | cyclone | dna | field hockey | fire | fog |
    foggy | garlic | green salad | high voltage | hourglass done | ice | ice hockey | lacrosse | landslide |
    leafy green | light rail | locked | low battery | mate | milky way | national park | oden | ping pong | popcorn |
    pouring liquid | sake | salt | shaved ice | soap | softball | spaghetti | sunrise | sunset | sushi |
    thread | unlocked | wedding | wood | yarn""")
)
_LETTERS = frozenset(string.ascii_letters + string.digits + " '-.!?")


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


@dataclass(frozen=True)
class Card:
    """One drawing in an album: where it lies and what it is called."""

    style: str
    row: int
    name: str
    group: str
    tags: tuple[str, ...] = ()
    colour = ""

    def drawn(self, random: Random, side: float) -> Image.Image:
        """A varied copy."""
        return vary(random, album(self.style).picture(self.row), side)

    @property
    def called(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Shape:
    """A coloured shape."""

    name: str
    colour: str

    def drawn(self, random: Random, side: float) -> Image.Image:
        """A varied copy."""
        return shape(random, self.name, self.fill(random), side)

    def fill(self, random: Random) -> Colour:
        """A shade of the colour."""
        pure = COLOURS[self.colour]
        shifts = [random.randint(-12, 12) for _ in pure]
        if len(set(pure)) == 1:
            # Black, white and gray stay without a tint.
            shifts = shifts[:1] * 3
        red, green, blue = (min(255, max(0, c + shift)) for c, shift in zip(pure, shifts, strict=True))
        return red, green, blue

    @property
    def called(self) -> str:
        """The colour and the name."""
        return f"{self.colour} {self.name}"


Thing = Card | Shape


@dataclass(frozen=True)
class Cell:
    """A part of the picture that one thing is put in: its middle, its size, and its place among the others."""

    x: float
    y: float
    width: float
    height: float
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """A picture (RGB), what lies where in it, and a kind of thing that is not there."""

    image: Image.Image
    seen: tuple[Seen, ...]
    absent: Kind


@cache
def cells(size: tuple[int, int], columns: int, rows: int) -> list[Cell]:
    """The picture cut into equal parts, row by row."""
    width, height = size[0] / columns, size[1] / rows
    places = [(row, column) for row in range(rows) for column in range(columns)]
    return [Cell((column + 0.5) * width, (row + 0.5) * height, width, height, row, column) for row, column in places]


@cache
def coarsest(size: tuple[int, int], count: int, largest: int) -> int:
    """The largest side of squares, up to a limit, of which so many find room in a picture; 0 for none."""
    fits = (side for side in range(largest, 13, -1) if (size[0] // side) * (size[1] // side) >= count)
    return next(fits, 0)


def laid(
    random: Random,
    things: Sequence[Thing],
    places: Sequence[Cell],
    size: tuple[int, int],
    *,
    share: tuple[float, float],
    largest: float = math.inf,
) -> tuple[Image.Image, tuple[Seen, ...]]:
    """Each thing in its cell, filling a share of it; things of a row stay plainly beside each other."""
    placed: list[Placed] = []
    seen: list[Seen] = []
    for thing, cell in zip(things, places, strict=True):
        side = random.uniform(*share) * min(cell.width, cell.height, largest)
        # Off the middle by at most 0.18 of the cell: so what lies in the next row is never level with this one.
        right, down = (min((room - side) / 2.5, 0.18 * room) for room in (cell.width, cell.height))
        place = (cell.x + random.uniform(-right, right), cell.y + random.uniform(-down, down))
        placed.append((thing.drawn(random, side), place))
        middle = (place[0] / size[0], place[1] / size[1])
        seen.append(Seen(thing.name, thing.colour, cell.row, cell.column, side, middle))
    avoid = [COLOURS[colour] for colour in {thing.colour: None for thing in things} if colour]
    return compose(random, placed, size, avoid=avoid), tuple(seen)


# What there is to draw ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deck:
    """The emoji of a split: all but flags, the flags, and the plain things."""

    cards: tuple[Card, ...]
    flags: tuple[Card, ...]
    things: tuple[Card, ...]


@cache
def deck(split: Split) -> Deck:
    """The emoji styles of training (nine in the full set), or the held-out one."""
    styles = here().styles if split == "train" else (HELDOUT_STYLE,)
    cards = [card for style in styles for card in _cards(style)]
    return Deck(
        cards=tuple(card for card in cards if card.group != "flags"),
        flags=tuple(card for card in cards if card.group == "flags"),
        things=tuple(card for card in cards if is_plain(card)),
    )


def is_plain(card: Card) -> bool:
    """Is it one thing, and none that could be taken for one of our shapes (there is a star among the emoji)?"""
    if card.group not in THING_GROUPS or card.name in _NO_THINGS:
        return False
    return is_countable(card.name) and not set(card.name.split()) & set(SHAPES)


@cache
def drawings(split: Split) -> tuple[Card, ...]:
    """The clip art of nine tenths of the names, or of the tenth; none in a set without."""
    if not here().clipart:
        return ()
    # By name and not by file: the library's series are near-copies of each other.
    return tuple(card for card in _cards(CLIPART) if is_heldout_name(card.name) == (split == "heldout"))


def _cards(style: str) -> list[Card]:
    pages = album(style)
    rows = json.loads((DATA / "emoji" / f"{style}.json").read_text())
    tags = [tuple(tag for tag in map(str, row["tags"]) if set(tag) <= _LETTERS) for row in rows]
    return [Card(style, i, pages.names[i], pages.groups[i], tags[i]) for i in range(len(rows))]


def is_heldout_name(name: str) -> bool:
    """One clip-art name in ten, by a hash that does not change with the library."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0


def apart(first: Card, second: Card) -> bool:
    """Could nobody call the one by the other's name? "Poodle" has the tag "dog"; "guide dog" the word."""
    words, others = set(first.name.split()), set(second.name.split())
    return not (words & (others | set(second.tags)) or others & set(first.tags))


def some_cards(random: Random, split: Split, count: int) -> list[Card]:
    """Different things."""
    found: list[Card] = []
    while len(found) < count:
        card = random.choice(deck(split).things)
        if all(apart(card, other) for other in found):
            found.append(card)
    return found


def some_shapes(random: Random, count: int) -> list[Shape]:
    """Shapes of different names and colours."""
    names, colours = random.sample(SHAPES, count), random.sample(list(COLOURS), count)
    return [Shape(name, colour) for name, colour in zip(names, colours, strict=True)]
