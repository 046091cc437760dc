"""Figures with their measures written at them: (random, split, level) -> `Problem`.

Level 1 asks for the rim of a square or the third part of a straight angle, 2 for the rim of a rectangle, 3 for the
third angle of a triangle, 4 for the area of a rectangle, 5 for a side that is not given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageFont

from kimi_vl.train.rewards import Value
from recipes.nano.figures.sheet import Anchor, Point, Sheet, font
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import paper_and_pen
from recipes.nano.reasoning.numbers import drawn
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import Thought

_RIM = ("What is the perimeter?", "How long is the way round it?", "Find the perimeter.", "How long is its perimeter?")
_AREA = ("What is the area?", "How large is the area?", "Find the area.", "How much area does it have?")
_ANGLE = (
    "How large is the angle with the question mark?",
    "What is the missing angle?",
    "Find the angle at ?.",
    "Which angle is missing?",
)
_SIDE = (
    "How long is the side with the question mark?",
    "What is the missing side?",
    "Find the side at ?.",
    "Which side is missing?",
)


@dataclass(frozen=True)
class _Asked:
    picture: Image.Image
    question: str
    value: int


def geometry_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    thought = Thought(random, slips=slips)
    asked = (_square, _rectangle, _triangle, _area, _side)[level - 1](random, split, thought)
    value = str(asked.value)
    return Problem(asked.picture, asked.question, str(thought), value, Value(value), "geometry", level)


def _square(random: Random, split: Split, thought: Thought) -> _Asked:
    (side,) = drawn(random, split, lambda r: [r.randint(2, 70)], list)
    thought.say(f"A square with the side {side}. All four sides are alike.")
    return _Asked(
        _box(random, split, (1.0, 1.0), {"bottom": str(side)}),
        worded(random, _RIM, split),
        thought.product(side, 4),
    )


def _rectangle(random: Random, split: Split, thought: Thought) -> _Asked:
    long, short = drawn(random, split, lambda r: _unequal(r, 70), list)
    thought.say(f"The sides are {long} and {short}. Each is there twice.")
    half = thought.sum(long, short)
    sides = {"bottom": str(long), "left": str(short)}
    return _Asked(_box(random, split, (1.6, 1.0), sides), worded(random, _RIM, split), thought.product(half, 2))


def _area(random: Random, split: Split, thought: Thought) -> _Asked:
    long, short = drawn(random, split, lambda r: [r.randint(10, 70), r.randint(2, 9)], list)
    thought.say(f"The sides are {long} and {short}. The area is their product.")
    sides = {"top": str(long), "right": str(short)}
    return _Asked(_box(random, split, (1.7, 1.0), sides), worded(random, _AREA, split), thought.product(long, short))


def _side(random: Random, split: Split, thought: Thought) -> _Asked:
    """Of a rectangle whose rim and one side are known."""
    long, short = drawn(random, split, lambda r: _unequal(r, 60), list)
    rim = 2 * (long + short)
    thought.say(f"The perimeter is {rim}, one side {long}. Half of the perimeter is both sides.")
    half = thought.step(f"{rim} / 2", rim // 2)
    sides = {"bottom": str(long), "left": "?", "middle": f"perimeter {rim}"}
    return _Asked(_box(random, split, (1.9, 1.0), sides), worded(random, _SIDE, split), thought.difference(half, long))


def _triangle(random: Random, split: Split, thought: Thought) -> _Asked:
    first, second = drawn(random, split, lambda r: [r.randint(20, 90), r.randint(20, 75)], list)
    thought.say(f"The angles are {first} and {second}. All three are 180.")
    both = thought.sum(first, second)
    return _Asked(
        _three_sided(random, split, first, second),
        worded(random, _ANGLE, split),
        thought.difference(180, both),
    )


def _unequal(random: Random, most: int) -> list[int]:
    short = random.randint(2, most - 1)
    return [random.randint(short + 1, most), short]


# Drawing ------------------------------------------------------------------------------------------------


def _box(random: Random, split: Split, shape: tuple[float, float], said: dict[str, str]) -> Image.Image:
    """A rectangle, and what is said at its sides or in its middle."""
    paper, pen = paper_and_pen(random)
    face = _face(random, split)
    unit = random.randint(44, 58)
    wide, high = unit * shape[0] * random.uniform(0.95, 1.05), unit * shape[1]
    size = (28 * math.ceil((wide + 70) / 28), 28 * math.ceil((high + 50) / 28))
    sheet = Sheet(size, paper)
    left, top = (size[0] - wide) / 2, (size[1] - high) / 2
    sheet.box((left, top, left + wide, top + high), None, pen)
    middle = (left + wide / 2, top + high / 2)
    places: dict[str, tuple[Point, Anchor]] = {
        "bottom": ((middle[0], top + high + 4), "mt"),
        "top": ((middle[0], top - 4), "mb"),
        "left": ((left - 4, middle[1]), "rm"),
        "right": ((left + wide + 4, middle[1]), "lm"),
        "middle": (middle, "mm"),
    }
    for place, text in said.items():
        at, anchor = places[place]
        sheet.words(at, text, face, pen, anchor)
    return sheet.picture()


def _three_sided(random: Random, split: Split, first: int, second: int) -> Image.Image:
    """A triangle on its longest side, with two of its angles written into their corners."""
    paper, pen = paper_and_pen(random)
    face = _face(random, split)
    a, b = math.radians(first), math.radians(second)
    base = random.uniform(110, 130)
    height = base * math.sin(a) * math.sin(b) / math.sin(a + b)
    scale = min(1.0, 110 / height)
    base, height = base * scale, height * scale
    peak = height / math.tan(a)
    right = max(base, peak)
    left = min(0.0, peak)
    size = (28 * math.ceil((right - left + 64) / 28), 28 * math.ceil((height + 44) / 28))
    x, y = (size[0] - right - left) / 2, (size[1] + height) / 2
    corners = [(x, y), (x + base, y), (x + peak, y - height)]
    sheet = Sheet(size, paper)
    sheet.line([*corners, corners[0]], pen, 1.2)
    sheet.words((corners[0][0] - 2, y + 2), str(first), face, pen, "rm")
    sheet.words((corners[1][0] + 2, y + 2), str(second), face, pen, "lm")
    sheet.words((corners[2][0], corners[2][1] - 3), "?", face, pen, "mb")
    return sheet.picture()


def _face(random: Random, split: Split) -> ImageFont.FreeTypeFont:
    found, weights = faces(split)
    return font(random.choices(found, cum_weights=weights)[0].path, random.randint(12, 15))
