"""Arrows in a grid that are to be followed from a dot to a letter: (random, split, level) -> `Problem`.

A level has so many arrows, and one more. Held-out paths begin in places where training's never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from PIL import Image

from kimi_vl.train.rewards import Choice
from recipes.nano.figures.sheet import Sheet, font
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import paper_and_pen
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import Thought

QUESTIONS = (
    "Follow the arrows from the dot. Which letter do you reach?",
    "Start at the dot and follow the arrows. Where do you end?",
    "To which letter do the arrows lead from the dot?",
    "Go from the dot along the arrows. What letter is there?",
)
_LETTERS = "ABCDEFGHKMNPRSTX"
_CELL = 28
_MOVES = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
Place = tuple[int, int]


def path_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    side = 3 if level < 3 else 4
    path, names = _drawn(random, split, side, level + 1)
    thought = Thought(random)
    thought.say(f"The dot is at {_told(path[0])}.")
    for place, name in zip(path[1:], names, strict=True):
        if random.random() < slips:
            wrong = random.choice([other for other in _MOVES if other != name])
            thought.say(f"{wrong.capitalize()}. No, the arrow goes {name}.")
        thought.say(f"{name.capitalize()} to {_told(place)}.")
    letters = random.sample(_LETTERS, side * side)
    answer = letters[0]
    thought.say(f"There is {answer}.")
    picture = _picture(random, split, side, path, names, letters)
    question = worded(random, QUESTIONS, split)
    return Problem(picture, question, str(thought), answer, Choice(answer), "paths", level)


def _told(place: Place) -> str:
    return f"row {place[0] + 1}, column {place[1] + 1}"


def _drawn(random: Random, split: Split, side: int, steps: int) -> tuple[list[Place], list[str]]:
    """Places that are all different, the first the dot, and how one goes from each to the next."""
    while True:
        path = [(random.randrange(side), random.randrange(side))]
        names: list[str] = []
        if (sum(path[0]) % 3 == 2) != (split == "heldout"):
            continue
        for _ in range(steps):
            open_moves = [
                name
                for name, (down, right) in _MOVES.items()
                if 0 <= path[-1][0] + down < side
                and 0 <= path[-1][1] + right < side
                and (path[-1][0] + down, path[-1][1] + right) not in path
            ]
            if not open_moves:
                break
            names.append(random.choice(open_moves))
            down, right = _MOVES[names[-1]]
            path.append((path[-1][0] + down, path[-1][1] + right))
        if len(names) == steps:
            return path, names


def _picture(
    random: Random, split: Split, side: int, path: Sequence[Place], names: Sequence[str], letters: Sequence[str]
) -> Image.Image:
    """A dot with an arrow out of it, arrows, the letter at the end, and other letters and arrows elsewhere."""
    paper, pen = paper_and_pen(random)
    found, weights = faces(split)
    face = font(random.choices(found, cum_weights=weights)[0].path, random.randint(14, 17))
    sheet = Sheet((_CELL * side, _CELL * side), paper)
    arrows = dict(zip(path, names, strict=False))
    others = iter(letters[1:])
    for row in range(side):
        for column in range(side):
            middle = (_CELL * (column + 0.5), _CELL * (row + 0.5))
            if (row, column) == path[-1]:
                sheet.words(middle, letters[0], face, pen, "mm")
            elif (row, column) in arrows:
                _arrow(sheet, middle, arrows[row, column], pen)
            elif random.random() < 0.5:
                sheet.words(middle, next(others), face, pen, "mm")
            else:
                _arrow(sheet, middle, random.choice(list(_MOVES)), pen)
    start = (_CELL * (path[0][1] + 0.5), _CELL * (path[0][0] + 0.5))
    down, right = _MOVES[names[0]]
    sheet.dot((start[0] - 7 * right, start[1] - 7 * down), 4.5, (220, 30, 30))
    return sheet.picture()


def _arrow(sheet: Sheet, middle: tuple[float, float], name: str, pen: tuple[int, int, int]) -> None:
    down, right = _MOVES[name]
    x, y = middle
    tail, neck, head = ((x + reach * right, y + reach * down) for reach in (-9, 3, 10))
    sheet.line([tail, neck], pen, 2.0)
    sheet.polygon([head, (neck[0] + 5 * down, neck[1] + 5 * right), (neck[0] - 5 * down, neck[1] - 5 * right)], pen)
