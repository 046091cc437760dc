"""A line over names with its numbers: where it goes. (random, split, level) -> `Problem`.

Level 1 asks whether it ends higher than it began, 2 where it is highest or lowest, 3 how often it goes up, 4 by how
much it goes up most, 5 what comes next where all steps are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
from recipes.nano.reasoning.written import SIDE

_NAMES: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (
        ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat"),
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
        ("1", "2", "3", "4", "5", "6"),
        ("2019", "2020", "2021", "2022", "2023"),
    ),
    "heldout": (("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), ("Q1", "Q2", "Q3", "Q4", "Q5")),
}
_ASKED = {
    1: (
        "Does the line end higher than it began?",
        "Is the last value above the first?",
        "From first to last, does it rise?",
    ),
    2: (
        "Where is the line {most}?",
        "At which point is it {most}?",
        "Which point is {most}?",
    ),
    3: ("How often does it go up?", "How many times does the line rise?", "In how many steps does it rise?"),
    4: ("By how much does it rise most?", "How large is the largest step up?", "What is its largest rise?"),
    5: (
        "All steps are alike. What comes next?",
        "If it goes on like this, what is the next value?",
        "Which value follows if it goes on alike?",
    ),
}
YES, NO = "yes", "no"


def trend_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    names = random.choice(_NAMES[split])
    count = random.randint(3, 4 if level < 3 else 5)
    names = names[:count]
    values = drawn(random, split, lambda r: (_even if level == 5 else _uneven)(r, count), list)
    highest = random.random() < 0.5
    question = worded(random, _ASKED[level], split).format(most="highest" if highest else "lowest")
    thought = Thought(random, slips=slips)
    answer, rule = _worked(thought, level, names, values, highest)
    return Problem(_picture(random, split, names, values), question, str(thought), answer, rule, "trends", level)


def _even(random: Random, count: int) -> list[int]:
    """Up or down by the same number each time."""
    first, step = random.randint(2, 40), random.randint(2, 20)
    values = [first + step * number for number in range(count)]
    return values[::-1] if random.random() < 0.4 and first >= step else values


def _uneven(random: Random, count: int) -> list[int]:
    """All different, and somewhere up."""
    values = random.sample(range(2, 99), count)
    return values if any(before < after for before, after in pairwise(values)) else values[::-1]


def _worked(
    thought: Thought, level: int, names: Sequence[str], values: Sequence[int], highest: bool
) -> tuple[str, Rule]:
    thought.say(f"{', '.join(f'{name}: {value}' for name, value in zip(names, values, strict=True))}.")
    if level == 1:
        rises = values[-1] > values[0]
        thought.say(f"First {values[0]}, last {values[-1]}. So {YES if rises else NO}.")
        return (YES, Choice(YES)) if rises else (NO, Choice(NO))
    if level == 2:
        most = max(values) if highest else min(values)
        name = names[values.index(most)]
        thought.say(f"The {'largest' if highest else 'smallest'} is {most}, at {name}.")
        return name, Choice(name)
    if level == 3:
        ups = 0
        for before, after in pairwise(values):
            ups += after > before
            thought.say(f"{before} to {after}: {'up' if after > before else 'down'}.")
        thought.say(f"Up {ups}.")
        return str(ups), Value(str(ups))
    if level == 4:
        most = 0
        for before, after in pairwise(values):
            if after > before:
                thought.say(f"From {before} to {after}.")
                most = max(most, thought.difference(after, before))
        thought.say(f"The largest is {most}.")
        return str(most), Value(str(most))
    up = values[1] > values[0]
    step = thought.difference(max(values[:2]), min(values[:2]))
    after = thought.sum(values[-1], step) if up else thought.difference(values[-1], step)
    return str(after), Value(str(after))


def _picture(random: Random, split: Split, names: Sequence[str], values: Sequence[int]) -> Image.Image:
    """Points with their numbers above them, joined, and names below."""
    paper, pen = paper_and_pen(random)
    found, weights = faces(split)
    face = font(random.choices(found, cum_weights=weights)[0].path, random.randint(12, 14))
    step = max(30.0, max(wide(face, name) for name in names) + 10)
    high = random.randint(44, 64)
    size = (SIDE * -(-round(step * len(names) + 12) // SIDE), SIDE * -(-(high + 52) // SIDE))
    sheet = Sheet(size, paper)
    floor, left = size[1] - 20, (size[0] - step * len(names)) / 2
    sheet.line([(4, floor), (size[0] - 4, floor)], pen)
    colour = (random.randint(40, 200), random.randint(40, 160), random.randint(40, 200))
    low, most = min(values), max(values)
    at = [
        (left + step * (number + 0.5), floor - 8 - high * (value - low) / (most - low))
        for number, value in enumerate(values)
    ]
    sheet.line(at, colour, 1.6)
    for point, name, value in zip(at, names, values, strict=True):
        sheet.dot(point, 3, colour)
        sheet.words((point[0], point[1] - 5), str(value), face, pen, "mb")
        sheet.words((point[0], floor + 3), name, face, pen, "mt")
    return sheet.picture()
