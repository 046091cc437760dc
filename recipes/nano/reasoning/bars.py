"""Bars with their numbers, and lines of a price list: read, then work out. (random, split, level) -> `Problem`.

Level 1 asks which is larger, 2 for a difference, 3 for a sum, 4 by how much the largest is above the smallest, 5 for
what is left of a round number.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from PIL import Image

from kimi_vl.train.rewards import Choice, Rule, Value
from recipes.nano.figures.sheet import Sheet, font, wide
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import paper_and_pen
from recipes.nano.reasoning.numbers import drawn
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import Thought
from recipes.nano.reasoning.written import SIDE, written

_BAR_NAMES: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (
        ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
        ("A", "B", "C", "D", "E", "F"),
        ("2019", "2020", "2021", "2022", "2023"),
        ("red", "blue", "green", "black", "white"),
        ("Anna", "Ben", "Carl", "Dora", "Emil"),
    ),
    "heldout": (
        ("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
        ("P", "Q", "R", "S", "T"),
        ("Vera", "Kurt", "Mila", "Sven"),
    ),
}
_GOODS: dict[Split, tuple[str, ...]] = {
    "train": ("bread", "milk", "rice", "tea", "soap", "cake", "jam", "salt", "meat", "oil", "corn", "fish"),
    "heldout": ("cheese", "butter", "honey", "sugar", "pasta", "coffee"),
}
_ASKED = {
    "bars": {
        1: ("Which is larger, {a} or {b}?", "Which of {a} and {b} has more?", "What has more, {a} or {b}?"),
        2: (
            "How much more is {a} than {b}?",
            "What is the difference of {a} and {b}?",
            "By how much is {a} above {b}?",
        ),
        3: (
            "What do {a} and {b} come to together?",
            "What is the sum of {a} and {b}?",
            "How much are {a} and {b} in all?",
        ),
        4: (
            "How far apart are the largest and the smallest?",
            "What is the largest less the smallest?",
            "What is the difference of the largest and the smallest?",
        ),
        5: ("How much is {a} short of {round}?", "How much does {a} lack to {round}?", "What is {a} below {round}?"),
    },
    "prices": {
        1: ("Which costs more, {a} or {b}?", "What is dearer, {a} or {b}?", "Which is dearer, {a} or {b}?"),
        2: (
            "How much more does {a} cost than {b}?",
            "By how much is {a} dearer than {b}?",
            "What is the difference of {a} and {b}?",
        ),
        3: ("What do {a} and {b} cost together?", "How much are {a} and {b}?", "What do I pay for {a} and {b}?"),
        4: (
            "How far apart are the dearest and the cheapest?",
            "What is the dearest less the cheapest?",
            "What is the difference of the dearest and the cheapest?",
        ),
        5: (
            "I pay for {a} with {round}. How much do I get back?",
            "What is left of {round} after buying {a}?",
            "How much do I get back from {round} for {a}?",
        ),
    },
}


def bar_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    names = random.choice(_BAR_NAMES[split])
    first = random.randrange(len(names) - 2)
    shown = names[first : first + random.randint(3, min(5, len(names) - first))]
    values = _values(random, split, len(shown))
    picture = _bars(random, split, shown, values)
    return _problem(random, split, level, "bars", picture, shown, values, slips)


def price_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    shown = tuple(random.sample(_GOODS[split], random.randint(3, 5)))
    values = _values(random, split, len(shown))
    between = random.choice((" ", ": ", " - ", " ... "))
    picture = written(random, split, [f"{name}{between}{value}" for name, value in zip(shown, values, strict=True)])
    return _problem(random, split, level, "prices", picture, shown, values, slips)


def _values(random: Random, split: Split, count: int) -> list[int]:
    return drawn(random, split, lambda r: r.sample(range(2, 99), count), list)


def _problem(
    random: Random,
    split: Split,
    level: int,
    kind: str,
    picture: Image.Image,
    names: Sequence[str],
    values: Sequence[int],
    slips: float,
) -> Problem:
    thought = Thought(random, slips=slips)
    known = dict(zip(names, values, strict=True))
    a, b = random.sample(list(names), 2)
    if level == 2 and known[a] < known[b]:
        a, b = b, a
    round_number = random.choice([one for one in (50, 100, 200) if one >= known[a]])
    if level == 4:
        thought.say(f"{', '.join(f'{name} {value}' for name, value in known.items())}.")
        thought.say(f"The largest is {max(values)}, the smallest {min(values)}.")
    elif level == 5:
        thought.say(f"{a} is {known[a]}.")
    else:
        thought.say(f"{a} is {known[a]}, {b} is {known[b]}.")
    rule: Rule
    match level:
        case 1:
            answer = max(a, b, key=known.__getitem__)
            thought.say(f"{max(known[a], known[b])} is larger than {min(known[a], known[b])}.")
            rule = Choice(answer)
        case 2:
            answer = str(thought.difference(known[a], known[b]))
        case 3:
            answer = str(thought.sum(known[a], known[b]))
        case 4:
            answer = str(thought.difference(max(values), min(values)))
        case _:
            answer = str(thought.difference(round_number, known[a]))
    if level > 1:
        rule = Value(answer)
    question = worded(random, _ASKED[kind][level], split).format(a=a, b=b, round=round_number)
    return Problem(picture, question, str(thought), answer, rule, kind, level)


def _bars(random: Random, split: Split, names: Sequence[str], values: Sequence[int]) -> Image.Image:
    """Upright, each with its number above it and its name below."""
    paper, pen = paper_and_pen(random)
    found, weights = faces(split)
    face = font(random.choices(found, cum_weights=weights)[0].path, random.randint(12, 14))
    step = max(30.0, max(wide(face, name) for name in names) + 8)
    high = random.randint(50, 70)
    size = (SIDE * -(-round(step * len(names) + 12) // SIDE), SIDE * -(-(high + 44) // SIDE))
    sheet = Sheet(size, paper)
    floor, left = size[1] - 20, (size[0] - step * len(names)) / 2
    sheet.line([(4, floor), (size[0] - 4, floor)], pen)
    fill = (random.randint(60, 200), random.randint(60, 200), random.randint(60, 200))
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        middle = left + step * (number + 0.5)
        top = floor - high * value / max(values)
        sheet.box((middle - 8, top, middle + 8, floor), fill, pen)
        sheet.words((middle, top - 3), str(value), face, pen, "mb")
        sheet.words((middle, floor + 3), name, face, pen, "mt")
    return sheet.picture()
