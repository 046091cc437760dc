"""Rows of coloured shapes: sentences that are true or false, and numbers of them. (random, split, level) -> `Problem`.

Level 1 asks whether something is there, 2 how many, 3 of what there is more, 4 what holds of all, 5 by how many more.
Held-out rows have a colour and a form together that training never shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from kimi_vl.train.rewards import Choice, Value
from recipes.nano.figures.sheet import Sheet
from recipes.nano.fonts import Split
from recipes.nano.paper import Colour
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import MINUS, Thought

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "blue": (40, 80, 200),
    "green": (40, 150, 70),
    "yellow": (245, 200, 40),
    "black": (30, 30, 30),
}
FORMS = ("circle", "square", "triangle")
# Together they stand in held-out pictures only.
HELDOUT_KINDS = (("green", "circle"), ("yellow", "triangle"), ("black", "square"))
TRUE, FALSE = "true", "false"
ASKED = ("True or false: {said}", "Is this right? {said}", "Is it true or false? {said}", "{said} True or false?")
SO_MANY = (
    "How many {what}s are there?",
    "What is the number of {what}s?",
    "Count the {what}s.",
    "How many {what}s do you see?",
)
HOW_MANY_MORE = (
    "How many more {a} than {b} are there?",
    "By how many are there more {a} than {b}?",
    "There are more {a} than {b}. By how many?",
)
_CELL = 28


@dataclass(frozen=True)
class Shape:
    colour: str
    form: str

    def __str__(self) -> str:
        return f"{self.colour} {self.form}"


Rows = tuple[tuple[Shape, ...], ...]
_KINDS = [(colour, form) for colour in COLOURS for form in FORMS]


@dataclass(frozen=True)
class _Said:
    """A sentence or a question, and its answer: true, false or a number."""

    text: str
    answer: bool | int


def shape_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    rows = _drawn(random, split, level)
    thought = Thought(random, slips=slips)
    for number, row in enumerate(rows, 1):
        thought.say(f"Row {number}: {', '.join(map(str, row))}.")
    said = (_there, _so_many, _more, _every, _by_how_many)[level - 1](random, split, rows, thought)
    if isinstance(said.answer, bool):
        answer = TRUE if said.answer else FALSE
        thought.say(f"So it is {answer}.")
        question = worded(random, ASKED, split).format(said=said.text)
        return Problem(_picture(random, rows), question, str(thought), answer, Choice(answer), "shapes", level)
    value = str(said.answer)
    return Problem(_picture(random, rows), said.text, str(thought), value, Value(value), "shapes", level)


def _drawn(random: Random, split: Split, level: int) -> Rows:
    known = [kind for kind in _KINDS if split == "heldout" or kind not in HELDOUT_KINDS]
    count = random.randint(1, 2) if level == 1 else random.randint(2, 3)
    # Few kinds, so that there is something to count.
    kinds = random.sample(known, random.randint(2, 4))
    if split == "heldout":
        kinds[0] = random.choice(HELDOUT_KINDS)
    lengths = [random.randint(2, 4 if level < 4 else 5) for _ in range(count)]
    rows = [[Shape(*random.choice(kinds)) for _ in range(length)] for length in lengths]
    if split == "heldout":
        row = random.choice(rows)
        row[random.randrange(len(row))] = Shape(*kinds[0])
    return tuple(map(tuple, rows))


# What is said of them ----------------------------------------------------------------------------------


def _there(random: Random, split: Split, rows: Rows, thought: Thought) -> _Said:
    wanted = _wanted(random, rows)
    count = _counted(thought, rows, str(wanted), lambda one: one == wanted)
    return _Said(f"There is a {wanted}.", count > 0)


def _so_many(random: Random, split: Split, rows: Rows, thought: Thought) -> _Said:
    wanted = _wanted(random, rows)
    count = _counted(thought, rows, str(wanted), lambda one: one == wanted)
    if random.random() < 0.4:
        return _Said(worded(random, SO_MANY, split).format(what=wanted), count)
    told = count if random.random() < 0.5 else max(0, count + random.choice((-1, 1)))
    return _Said(f"There {'is' if told == 1 else 'are'} exactly {told} {wanted}{'s' * (told != 1)}.", told == count)


def _more(random: Random, split: Split, rows: Rows, thought: Thought) -> _Said:
    first, second = random.sample(_two(random, rows), 2)
    counts = [_counted(thought, rows, name, _is(name)) for name in (first, second)]
    return _Said(f"There are more {_many(first)} than {_many(second)}.", counts[0] > counts[1])


def _every(random: Random, split: Split, rows: Rows, thought: Thought) -> _Said:
    present = random.choice([one for row in rows for one in row])
    colour, form = present.colour, present.form
    if random.random() < 0.2:
        colour = random.choice(list(COLOURS))
    of_form = _counted(thought, rows, form, _is(form))
    both = _counted(thought, rows, f"{colour} {form}", lambda one: one == Shape(colour, form))
    return _Said(f"Every {form} is {colour}.", of_form == both)


def _by_how_many(random: Random, split: Split, rows: Rows, thought: Thought) -> _Said:
    first, second = _two(random, rows)
    counts = [_counted(thought, rows, name, _is(name)) for name in (first, second)]
    if counts[0] < counts[1]:
        first, second = second, first
    value = thought.step(f"{max(counts)} {MINUS} {min(counts)}", abs(counts[0] - counts[1]))
    return _Said(worded(random, HOW_MANY_MORE, split).format(a=_many(first), b=_many(second)), value)


def _counted(thought: Thought, rows: Rows, name: str, counts: Callable[[Shape], bool]) -> int:
    """Row by row."""
    found = [sum(map(counts, row)) for row in rows]
    if len(found) == 1:
        thought.say(f"{name}: {found[0]}.")
    else:
        thought.say(f"{name}: {' + '.join(map(str, found))} = {sum(found)}.")
    return sum(found)


def _wanted(random: Random, rows: Rows) -> Shape:
    """As often one that is there as one that is not."""
    present = {one for row in rows for one in row}
    if random.random() < 0.5:
        return random.choice(sorted(present, key=str))
    # One that has a half of what is there.
    near = random.choice(sorted(present, key=str))
    others = [Shape(near.colour, form) for form in FORMS] + [Shape(colour, near.form) for colour in COLOURS]
    return random.choice([one for one in others if one not in present] or others)


def _two(random: Random, rows: Rows) -> tuple[str, str]:
    """Colours or forms, of which the first is there."""
    if random.random() < 0.5:
        names, present = list(COLOURS), [one.colour for row in rows for one in row]
    else:
        names, present = list(FORMS), [one.form for row in rows for one in row]
    first = random.choice(present)
    return first, random.choice([name for name in names if name != first])


def _is(name: str) -> Callable[[Shape], bool]:
    return lambda one: name in (one.colour, one.form)


def _many(name: str) -> str:
    return f"{name}s" if name in FORMS else f"{name} ones"


def _picture(random: Random, rows: Rows) -> Image.Image:
    light = random.randint(215, 255)
    size = (_CELL * max(map(len, rows)), _CELL * len(rows))
    sheet = Sheet(size, (light, light, light))
    for number, row in enumerate(rows):
        for place, one in enumerate(row):
            at = (_CELL * (place + 0.5) + random.uniform(-2, 2), _CELL * (number + 0.5) + random.uniform(-2, 2))
            sheet.dot(at, random.uniform(8, 10.5), COLOURS[one.colour], one.form)
    return sheet.picture()
