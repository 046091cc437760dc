"""(seed, index, split) -> a small picture of emoji, clip art or shapes, a question about it, and the answer.

Comes in: the albums that fetch.py drew. Goes out: `SceneSample`; sides are multiples of 28, since a picture
costs its area. "train" draws on nine emoji styles and nine tenths of the clip-art names; "heldout" on the
tenth style and the remaining names, and asks the first wording of each question.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image

from recipes.nano import questions
from recipes.nano.captions import is_countable
from recipes.nano.compose import WHITE, Placed, compose, shape, vary
from recipes.nano.evaluation import EVAL_NAMES as EVAL_NAMES
from recipes.nano.fonts import Split
from recipes.nano.paper import Colour
from recipes.nano.pictures import HELDOUT_STYLE, TRAINING_STYLES
from recipes.nano.raster import CLIPART, album

# What can be counted or stand beside another thing.
THING_GROUPS = frozenset(("animals-nature", "food-drink", "objects", "travel-places", "activities"))
COUNTING_SIZES = ((84, 84), (112, 84), (112, 112), (140, 112), (168, 112))


@dataclass(frozen=True)
class SceneSample:
    """A picture (RGB), what is asked, and the whole answer."""

    image: Image.Image
    question: str
    answer: str


@dataclass(frozen=True)
class Card:
    """One drawing in an album: where it lies and what it is called."""

    style: str
    row: int
    name: str
    group: str

    def drawn(self, random: Random, side: float) -> Image.Image:
        """A varied copy."""
        return vary(random, album(self.style).picture(self.row), side)


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
        pure = questions.COLOURS[self.colour]
        shifts = [random.randint(-12, 12) for _ in pure]
        if len(set(pure)) == 1:
            # Black, white and gray stay without a tint.
            shifts = shifts[:1] * 3
        red, green, blue = (min(255, max(0, c + shift)) for c, shift in zip(pure, shifts, strict=True))
        return red, green, blue


@dataclass(frozen=True)
class _Deck:
    """The emoji of a split: all but flags, the flags, and the plain things."""

    cards: tuple[Card, ...]
    flags: tuple[Card, ...]
    things: tuple[Card, ...]


def emoji_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One emoji, and its name (in training now and then its group)."""
    random = Random(f"emoji/{seed}/{split}/{index}")
    deck = _deck(split)
    # A random picture, not a random name: what many styles draw is what one meets often.
    card = random.choice(deck.flags if random.random() < 0.04 else deck.cards)
    side = random.choices((56, 84, 112), (35, 45, 20))[0]
    image = _alone(random, card, side, smallest=0.65)
    if split == "train" and random.random() < 0.1 and card.group in questions.GROUPS:
        return SceneSample(image, random.choice(questions.GROUP), questions.GROUPS[card.group])
    return SceneSample(image, _wording(random, questions.NAME, split), card.name)


def clipart_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One clip art and its name."""
    random = Random(f"clipart/{seed}/{split}/{index}")
    card = random.choice(_drawings(split))
    image = _alone(random, card, random.choices((84, 112), (60, 40))[0], smallest=0.8)
    return SceneSample(image, _wording(random, questions.CLIPART, split), card.name)


def counting_sample(seed: int, index: int, split: Split) -> SceneSample:
    """1 to 6 of a thing, sometimes among others of another kind: how many?"""
    random = Random(f"counting/{seed}/{split}/{index}")
    count = random.randint(1, 6)
    others = random.randint(1, 3) if random.random() < 0.3 else 0
    size = random.choice([size for size in COUNTING_SIZES if len(_grid(size)) >= count + others])
    asked_of: Card | Shape
    other: Card | Shape
    if random.random() < 0.6:
        asked_of, other = _two_things(random, split)
        avoid: tuple[Colour, ...] = ()
    else:
        asked_of, other = _two_shapes(random)
        avoid = (questions.COLOURS[asked_of.colour], questions.COLOURS[other.colour])
    placed: list[Placed] = []
    for number, (x, y, cell) in enumerate(random.sample(_grid(size), count + others)):
        side = random.uniform(0.7, 0.92) * cell
        slack = (cell - side) / 2.5
        place = (x + random.uniform(-slack, slack), y + random.uniform(-slack, slack))
        placed.append(((asked_of if number < count else other).drawn(random, side), place))
    wording = _wording(random, questions.COUNT, split)
    image = compose(random, placed, size, avoid=avoid)
    return SceneSample(image, wording.format(things=questions.plural(asked_of.name)), str(count))


def colour_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One or two coloured shapes: which colour has the square, or which shape is red?"""
    random = Random(f"colour/{seed}/{split}/{index}")
    shapes = list(_two_shapes(random))[: random.choice((1, 2, 2))]
    size = random.choice(((56, 56), (84, 84))) if len(shapes) == 1 else random.choice(((112, 56), (56, 112)))
    image = _abreast(random, shapes, size, avoid=[questions.COLOURS[s.colour] for s in shapes])
    asked_of = shapes[0]
    if random.random() < 0.65:
        wording = _wording(random, questions.COLOUR, split)
        return SceneSample(image, wording.format(thing=asked_of.name), asked_of.colour)
    wording = _wording(random, questions.SHAPE, split)
    return SceneSample(image, wording.format(colour=asked_of.colour), asked_of.name)


def shape_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One coloured shape: what is it?"""
    random = Random(f"shape/{seed}/{split}/{index}")
    thing = _two_shapes(random)[0]
    image = _abreast(random, [thing], random.choice(((56, 56), (84, 84))), avoid=[questions.COLOURS[thing.colour]])
    return SceneSample(image, _wording(random, questions.NAME, split), f"{thing.colour} {thing.name}")


def every_name() -> list[str]:
    """All that a training picture of one thing can be called."""
    shapes = [f"{colour} {shape}" for colour in questions.COLOURS for shape in questions.SHAPES]
    deck = _deck("train")
    return sorted({card.name for card in (*deck.cards, *deck.flags, *_drawings("train"))} | set(shapes))


def side_sample(seed: int, index: int, split: Split) -> SceneSample:
    """Two emoji side by side or one above the other: which is left of the dog, or where is the dog?"""
    random = Random(f"side/{seed}/{split}/{index}")
    first, second = _two_things(random, split)
    wide = random.random() < 0.5
    side = random.choice((56, 84))
    image = _abreast(random, [first, second], (2 * side, side) if wide else (side, 2 * side))
    near, far = ("left", "right") if wide else ("above", "below")
    if random.random() < 0.5:
        wording, answer = questions.WHERE[0 if wide else 1], near
        if random.random() < 0.5:
            first, second, answer = second, first, far
        return SceneSample(image, wording.format(first=first.name, second=second.name), answer)
    relation = near
    if random.random() < 0.5:
        first, second, relation = second, first, far
    wording = _wording(random, questions.SIDE, split)
    relation = f"{relation} of" if wide else relation
    return SceneSample(image, wording.format(side=relation, thing=second.name), first.name)


def heldout_emoji(name: str, side: int = 84) -> Image.Image:
    """The held-out style's drawing of a name, plainly on white."""
    pages = album(HELDOUT_STYLE)
    if name not in pages.names:
        raise ValueError(f"the held-out style has no {name!r}")
    drawing = pages.picture(pages.names.index(name)).resize((side, side), Image.Resampling.LANCZOS)
    image = Image.new("RGB", (side, side), WHITE)
    image.paste(drawing, (0, 0), drawing)
    return image


def is_heldout_name(name: str) -> bool:
    """One clip-art name in ten, by a hash that does not change with the library."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0


def _cards(style: str) -> list[Card]:
    pages = album(style)
    return [Card(style, row, pages.names[row], pages.groups[row]) for row in range(len(pages.names))]


@cache
def _deck(split: Split) -> _Deck:
    styles = TRAINING_STYLES if split == "train" else (HELDOUT_STYLE,)
    cards = [card for style in styles for card in _cards(style)]
    return _Deck(
        cards=tuple(card for card in cards if card.group != "flags"),
        flags=tuple(card for card in cards if card.group == "flags"),
        things=tuple(card for card in cards if card.group in THING_GROUPS and is_countable(card.name)),
    )


@cache
def _drawings(split: Split) -> tuple[Card, ...]:
    # By name and not by file: the library's series are near-copies of each other.
    return tuple(card for card in _cards(CLIPART) if is_heldout_name(card.name) == (split == "heldout"))


def _wording(random: Random, wordings: Sequence[str], split: Split) -> str:
    return random.choice(wordings) if split == "train" else wordings[0]


def _two_things(random: Random, split: Split) -> tuple[Card, Card]:
    first = second = random.choice(_deck(split).things)
    while second.name == first.name:
        second = random.choice(_deck(split).things)
    return first, second


def _two_shapes(random: Random) -> tuple[Shape, Shape]:
    names, colours = random.sample(questions.SHAPES, 2), random.sample(list(questions.COLOURS), 2)
    return Shape(names[0], colours[0]), Shape(names[1], colours[1])


@cache
def _grid(size: tuple[int, int]) -> list[tuple[float, float, float]]:
    """The middles and the side of the square cells that things are counted in."""
    columns, rows = round(size[0] / 38), round(size[1] / 38)
    width, height = size[0] / columns, size[1] / rows
    cell = min(width, height)
    return [((c + 0.5) * width, (r + 0.5) * height, cell) for r in range(rows) for c in range(columns)]


def _alone(random: Random, card: Card, side: int, *, smallest: float) -> Image.Image:
    large = random.uniform(smallest, 1.0) * side
    slack = (side - large) / 2
    place = (side / 2 + random.uniform(-slack, slack), side / 2 + random.uniform(-slack, slack))
    return compose(random, [(card.drawn(random, large), place)], (side, side))


def _abreast(
    random: Random, things: Sequence[Card | Shape], size: tuple[int, int], *, avoid: Sequence[Colour] = ()
) -> Image.Image:
    """Things in equal squares from left to right, or from top to bottom."""
    cell = min(size)
    step = (cell, 0) if size[0] > size[1] else (0, cell)
    placed: list[Placed] = []
    for number, thing in enumerate(things):
        large = random.uniform(0.6, 0.95) * cell
        slack = (cell - large) / 2
        x = number * step[0] + cell / 2 + random.uniform(-slack, slack)
        y = number * step[1] + cell / 2 + random.uniform(-slack, slack)
        placed.append((thing.drawn(random, large), (x, y)))
    return compose(random, placed, size, avoid=avoid)
