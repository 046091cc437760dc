"""Small screens with buttons, and what one wants to do: where does one click? (random, split, level) -> `Problem`.

Level 1 has two buttons side by side and says the word itself, 2 a goal in other words, 3 four buttons, 4 six, 5 nine.
Held-out goals are told as training never tells them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

from kimi_vl.train.rewards import Inside
from recipes.nano.figures.sheet import Box, Sheet, font, wide
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import paper_and_pen
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import Thought
from recipes.nano.reasoning.written import SIDE

# A button's word, and goals that it serves, the last of which is held out.
GOALS: dict[str, tuple[str, ...]] = {
    "Save": ("keep your work", "store the file", "keep what you wrote"),
    "Print": ("have it on paper", "get a paper copy", "put it on paper"),
    "Delete": ("get rid of it", "remove the file", "throw it away"),
    "Open": ("look into another file", "load a file", "see another file"),
    "Send": ("mail the letter", "let the letter go out", "mail it to a friend"),
    "Back": ("see the page before", "return to the last page", "go to the page before"),
    "Next": ("see the page after", "go on to another page", "go to the page after"),
    "Help": ("learn how it works", "read how to use it", "read how it works"),
    "Find": ("look for a word", "search the text", "search for a word"),
    "Undo": ("take back the last step", "make the last change not be", "take back the change"),
    "Buy": ("pay for the goods", "order what you chose", "pay for what you chose"),
    "Stop": ("make it end now", "let it not go on", "make it not go on"),
    "Copy": ("have it twice", "get the same again", "have the same twice"),
    "Close": ("leave the window", "put the window away", "make the window go"),
    "Zoom": ("see it larger", "make the text larger", "make it larger"),
}
_SAID = ("Click {what}.", "Click on {what}.", "Press {what}.", "Where is {what}? Click it.")
_WANTED = (
    "You want to {goal}. Click there.",
    "Where do you click to {goal}?",
    "Click to {goal}.",
    "To {goal}, click where?",
)
_GRIDS = {1: (1, 2), 2: (1, 2), 3: (2, 2), 4: (2, 3), 5: (3, 3)}
_ROWS = {1: ("middle",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COLUMNS = {2: ("left", "right"), 3: ("left", "centre", "right")}


@dataclass(frozen=True)
class _Button:
    word: str
    box: Box  # in shares of the sides

    @property
    def middle(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def goal_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    rows, columns = _GRIDS[level]
    words = random.sample(list(GOALS), rows * columns)
    buttons = [_button(word, divmod(place, columns), rows, columns) for place, word in enumerate(words)]
    wanted = random.randrange(len(buttons))
    goals = GOALS[words[wanted]]
    goal = goals[-1] if split == "heldout" else random.choice(goals[:-1])
    thought = Thought(random)
    for number in range(rows):
        thought.say(f"{_told(rows, number)}: {', '.join(words[number * columns : (number + 1) * columns])}.")
    if level == 1:
        question = worded(random, _SAID, split).format(what=words[wanted])
    else:
        question = worded(random, _WANTED, split).format(goal=goal)
    if random.random() < slips:
        other = random.choice([word for word in words if word != words[wanted]])
        thought.say(f"{other}? No, that does not serve.")
    row, column = divmod(wanted, columns)
    thought.say(f"It is {words[wanted]}, {_told(rows, row)} {_COLUMNS[columns][column]}.")
    button = buttons[wanted]
    answer = "click(x={:.3f}, y={:.3f})".format(*button.middle)
    picture = _picture(random, split, rows, columns, buttons)
    return Problem(picture, question, str(thought), answer, Inside(button.box), "goals", level)


def _told(rows: int, row: int) -> str:
    return _ROWS[rows][row]


def _button(word: str, place: tuple[int, int], rows: int, columns: int) -> _Button:
    row, column = place
    across, down = 1 / columns, 1 / rows
    return _Button(
        word,
        (
            across * (column + 0.08),
            down * (row + 0.15),
            across * (column + 0.92),
            down * (row + 0.85),
        ),
    )


def _picture(random: Random, split: Split, rows: int, columns: int, buttons: Sequence[_Button]) -> Image.Image:
    paper, pen = paper_and_pen(random)
    found, weights = faces(split)
    face = font(random.choices(found, cum_weights=weights)[0].path, random.randint(13, 15))
    widest = max(wide(face, button.word) for button in buttons)
    size = (SIDE * -(-round((widest + 16) * columns / 0.84) // SIDE), SIDE * max(2, round(rows * 1.4)))
    sheet = Sheet(size, paper)
    fill = tuple(round(0.86 * part + 0.14 * ink) for part, ink in zip(paper, pen, strict=True))
    for button in buttons:
        left, top, right, bottom = button.box
        box = (left * size[0], top * size[1], right * size[0], bottom * size[1])
        sheet.box(box, (fill[0], fill[1], fill[2]), pen, round=random.choice((0, 3, 6)))
        sheet.words((button.middle[0] * size[0], button.middle[1] * size[1]), button.word, face, pen, "mm")
    return sheet.picture()
