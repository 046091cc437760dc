"""(seed, index, split) -> a small picture and a caption that is true of it, for learning from pairs of image and text.

Comes in: emoji, clip art, shapes, fonts and books. Goes out: `Captioned`; captions have at most about twenty words.
Held out are the same styles, names, fonts and books as elsewhere, and captions are in the first wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recipes.nano.compose import Scene, Shape, Thing, deck, drawings, is_plain, some_cards, some_shapes
from recipes.nano.facts import Kind, Seen
from recipes.nano.fonts import Split, faces
from recipes.nano.lines import FEATURES
from recipes.nano.paper import as_jpeg, luminance
from recipes.nano.questions import COLOURS, GROUPS, NUMBERS, article, listed, worded
from recipes.nano.scenes import alone, in_row, scattered
from recipes.nano.strings import line_text

THING = (
    "{name}",
    "{a_name}",
    "a picture of {a_name}",
    "an emoji of {a_name}",
    "{name}, from {group}",
    "{name}: {tags}",
    "{name} ({tags})",
    "{a_name}; {tags}",
)
FLAG = ("{name}", "the {name}", "a picture of the {name}", "an emoji: {name}")
CLIPART = ("{name}", "a drawing of {name}", "clip art: {name}", "clip art of {name}", "{name}, {folder}")
WORDS = (
    'the {kind} "{text}" in {pen} on {paper}',
    '"{text}" in {pen} on {paper}',
    '"{text}"',
    '{a_paper} sign that says "{text}" in {pen}',
    "{pen} letters on {paper}: {text}",
    "{text}",
)
LONGEST_TEXT = 24  # characters
# How far apart in light the letters and the paper are.
_CONTRAST = 90


@dataclass(frozen=True)
class Captioned:
    """A picture (RGB) and what it shows."""

    image: Image.Image
    caption: str


def caption_sample(seed: int, index: int, split: Split) -> Captioned:
    """One pair of any kind."""
    random = Random(f"caption/{seed}/{split}/{index}")
    shares = {_emoji: 30, _clipart: 18, _flag: 4, _places: 16, _numbers: 12, _sizes: 4, _words: 16}
    if not drawings(split):
        del shares[_clipart]
    return random.choices(list(shares), list(shares.values()))[0](random, split)


# One thing ----------------------------------------------------------------------------------------------


def _emoji(random: Random, split: Split) -> Captioned:
    card = random.choice(deck(split).cards)
    image = alone(random, card, random.choices((56, 84, 112), (40, 45, 15))[0], smallest=0.65)
    tags = ", ".join([tag for tag in card.tags if tag != card.name][:4])
    wording = worded(random, THING, split)
    if (card.group not in GROUPS and "{group}" in wording) or (not tags and "{tags}" in wording):
        wording = THING[0]
    said = article(card.name) if is_plain(card) else card.name
    group = GROUPS.get(card.group, "")
    return Captioned(image, wording.format(name=card.name, a_name=said, group=group, tags=tags))


def _clipart(random: Random, split: Split) -> Captioned:
    card = random.choice(drawings(split))
    image = alone(random, card, random.choices((56, 84, 112), (20, 50, 30))[0], smallest=0.75)
    folder = card.group.replace("_", " ")
    wording = worded(random, CLIPART[:4] if folder == "unsorted" else CLIPART, split)
    return Captioned(image, wording.format(name=card.name, folder=folder))


def _flag(random: Random, split: Split) -> Captioned:
    card = random.choice(deck(split).flags)
    image = alone(random, card, random.choice((56, 84)), smallest=0.65)
    return Captioned(image, worded(random, FLAG, split).format(name=card.name))


# Compositions -------------------------------------------------------------------------------------------


def _some(random: Random, split: Split, count: int) -> Sequence[Thing]:
    return some_cards(random, split, count) if random.random() < 0.7 else some_shapes(random, count)


def _places(random: Random, split: Split) -> Captioned:
    """Two to four things and how they lie."""
    things = _some(random, split, random.choices((1, 2, 3, 4), (8, 55, 25, 12))[0])
    scene = in_row(random, split, things, 56)
    return Captioned(scene.image, placed_caption(random, scene.seen, split))


def placed_caption(random: Random, seen: Sequence[Seen], split: Split) -> str:
    """Things in a row, in a column or in a square, in words."""
    said = [article(s.called) for s in sorted(seen, key=lambda s: (s.row, s.column))]
    in_row, in_column = len({s.row for s in seen}) == 1, len({s.column for s in seen}) == 1
    if len(said) == 1:
        return said[0]
    if not in_row and not in_column:
        return f"{said[0]} and {said[1]} above {said[2]} and {said[3]}"
    if len(said) > 2:
        order = "from left to right" if in_row else "from top to bottom"
        return worded(random, (f"{listed(said)}, {order}", f"{order}: {listed(said)}", listed(said)), split)
    near, far = ("left of", "right of") if in_row else ("above", "below")
    beside = "side by side" if in_row else "one above the other"
    first, second = said
    wordings = (
        f"{first} {near} {second}",
        f"{second} {far} {first}",
        f"{first} {near} {second}",
        f"{first} and {second}",
        f"{first} and {second}, {beside}",
    )
    return worded(random, wordings, split)


def _numbers(random: Random, split: Split) -> Captioned:
    """Some of one to three kinds of things."""
    kinds = _some(random, split, random.choices((1, 2, 3), (40, 45, 15))[0])
    numbers = [random.randint(1, (10, 5, 3)[len(kinds) - 1]) for _ in kinds]
    things = [kind for kind, number in zip(kinds, numbers, strict=True) for _ in range(number)]
    scene = scattered(random, split, things)
    return Captioned(scene.image, numbered_caption(scene.seen))


def numbered_caption(seen: Sequence[Seen]) -> str:
    """Three red stars and a blue ring, in the order in which they were put down."""
    kinds = list(dict.fromkeys(Kind(s.name, s.colour) for s in seen))
    numbers = [len(kind.among(seen)) for kind in kinds]
    return listed([article(k.one) if n == 1 else f"{NUMBERS[n]} {k.many}" for k, n in zip(kinds, numbers, strict=True)])


def _sizes(random: Random, split: Split) -> Captioned:
    """A large thing and a small one."""
    things = _some(random, split, 2)
    while True:
        scene: Scene = in_row(random, split, things, 56, share=(0.35, 0.95))
        small, large = sorted(scene.seen, key=lambda s: s.side)
        if large.side > 1.6 * small.side:
            caption = f"a large {large.called} and a small {small.called}"
            other = f"a small {small.called} and a large {large.called}"
            return Captioned(scene.image, worded(random, (caption, other), split))


# Words --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _words(random: Random, split: Split) -> Captioned:
    """A few words in one colour on another."""
    text = ""
    while not text or any(sign in text for sign in '“”"'):
        text = line_text(random, split, LONGEST_TEXT)
    paper, pen = "", ""
    while not paper or abs(luminance(COLOURS[paper]) - luminance(COLOURS[pen])) < _CONTRAST:
        paper, pen = random.sample(list(COLOURS), 2)
    found, weights = faces(split)
    face = random.choices(found, cum_weights=weights)[0]
    image = _sign(random, text, _font(face.path, random.randint(15, 32)), Shape("", paper), Shape("", pen))
    kind = "text" if not text.replace(" ", "").isalpha() else "words" if " " in text else "word"
    words = {"text": text, "kind": kind, "paper": paper, "a_paper": article(paper), "pen": pen}
    return Captioned(image, worded(random, WORDS, split).format(**words))


def _sign(random: Random, text: str, font: ImageFont.FreeTypeFont, paper: Shape, pen: Shape) -> Image.Image:
    left, top, right, bottom = map(int, font.getbbox(text, features=FEATURES))
    size = tuple(28 * -(-(extent + random.randint(6, 16)) // 28) for extent in (right - left, bottom - top))
    image = Image.new("RGB", (size[0], size[1]), paper.fill(random))
    x, y = ((room - extent) / 2 for room, extent in zip(size, (right - left, bottom - top), strict=True))
    ImageDraw.Draw(image).text((x - left, y - top), text, fill=pen.fill(random), font=font, features=FEATURES)
    if random.random() < 0.3:
        noise = np.random.default_rng(random.getrandbits(63))
        grain = noise.standard_normal((size[1], size[0], 3), np.float32) * random.uniform(1.0, 8.0)
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    return as_jpeg(image, random.randint(45, 92)) if random.random() < 0.3 else image
