"""Word problems that stand in the picture: (random, split, level) -> `Problem`.

Level 1 has one step, 2 one with larger numbers, 3 two steps, 4 a product and another step, 5 three steps. Held-out
stories have templates, people and things that training never tells of.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kimi_vl.train.rewards import Value
from recipes.nano.fonts import Split
from recipes.nano.reasoning.numbers import drawn
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import MINUS, TIMES, Thought
from recipes.nano.reasoning.written import wrapped, written

QUESTIONS = (
    "Answer the question in the picture.",
    "What is the answer?",
    "Solve the problem.",
    "Read it and answer.",
    "What is the solution of this problem?",
)


@dataclass(frozen=True)
class Template:
    """``told`` in sentences; ``signs`` say what each number but the first does to what there is so far."""

    told: str
    signs: str


TRAINING = (
    Template("{who} has {a} {what}. {who} gets {b} more. How many {what} now?", "+"),
    Template("{who} has {a} {what} and gives {b} away. How many {what} are left?", "-"),
    Template("There are {a} {what} in a box. {b} are taken out. How many stay?", "-"),
    Template("{who} finds {a} {what} and then {b} more. How many in all?", "+"),
    Template("{b} boxes hold {a} {what} each. How many {what}?", "x"),
    Template("{who} buys {b} bags of {a} {what}. How many {what}?", "x"),
    Template("{who} has {a} {what}. {who} buys {b} and loses {c}. How many now?", "+-"),
    Template("{who} has {a} {what}, eats {b}, then buys {c}. How many now?", "-+"),
    Template("A shop has {a} {what}. It sells {b} and then {c}. How many are left?", "--"),
    Template("{b} bags hold {a} {what} each. {who} adds {c} more. How many in all?", "x+"),
    Template("{who} buys {b} bags of {a} {what} and uses {c}. How many are left?", "x-"),
    Template("{who} has {a} {what}, gets {b}, gives {c} away and finds {d}. How many now?", "+-+"),
    Template("{b} boxes of {a} {what} come. {c} are broken, then {d} are sold. How many are left?", "x--"),
)
HELDOUT = (
    Template("{a} {what} are on a table. {who} puts {b} more there. How many are there?", "+"),
    Template("{who} baked {a} {what} and sold {b}. How many did not sell?", "-"),
    Template("Each of {b} rows has {a} {what}. How many {what} are there?", "x"),
    Template("{who} picked {a} {what}, dropped {b} and picked {c} more. How many now?", "-+"),
    Template("{who} fills {b} jars with {a} {what} each and keeps {c} apart. How many {what}?", "x+"),
    Template("A train has {a} people. {b} get on, {c} get off, {d} get on. How many now?", "+-+"),
)
_PEOPLE: dict[Split, tuple[str, ...]] = {
    "train": ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "Hugo", "Ida", "Jon", "Lea", "Max", "Nina", "Otto", "Rosa"),
    "heldout": ("Vera", "Kurt", "Mila", "Sven"),
}
_THINGS: dict[Split, tuple[str, ...]] = {
    "train": ("apples", "books", "cards", "coins", "cups", "eggs", "nuts", "pens", "pears", "shells", "stamps", "toys"),
    "heldout": ("buttons", "plums", "rings", "stones"),
}
_STEPS = {1: ("+", "-"), 2: ("+", "-", "x"), 3: ("+-", "-+", "--"), 4: ("x+", "x-"), 5: ("+-+", "x--")}
_NAMES = "abcd"


def story_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    known = TRAINING if split == "train" else HELDOUT
    template = random.choice([one for one in known if one.signs in _STEPS[level]])
    numbers = drawn(random, split, lambda r: _drawn(r, template, level), list)
    names = dict(zip(_NAMES, numbers, strict=False))
    told = template.told.format(who=random.choice(_PEOPLE[split]), what=random.choice(_THINGS[split]), **names)
    thought = Thought(random, slips=slips)
    plan = str(numbers[0])
    for sign, number in zip(template.signs, numbers[1:], strict=True):
        plan += f" {sign} {number}"
    thought.say(f"So {plan}.")
    value = numbers[0]
    for sign, number in zip(template.signs, numbers[1:], strict=True):
        value = _done(thought, value, sign, number)
    return Problem(
        picture=written(random, split, wrapped(told, random.randint(20, 30)), size=random.randint(12, 15)),
        question=worded(random, QUESTIONS, split),
        thought=str(thought),
        answer=str(value),
        rule=Value(str(value)),
        kind="stories",
        level=level,
    )


def _done(thought: Thought, value: int, sign: str, number: int) -> int:
    if sign == "+":
        return thought.sum(value, number)
    return thought.product(value, number) if sign == TIMES else thought.difference(value, number)


def _drawn(random: Random, template: Template, level: int) -> list[int]:
    """With which nothing is ever less than none."""
    while True:
        most = 20 if level == 1 else 99
        first = random.randint(3, 40 if template.signs[0] == TIMES else most)
        numbers = [first, *(random.randint(2, 9 if sign == TIMES else most) for sign in template.signs)]
        value, least = first, first
        for sign, number in zip(template.signs, numbers[1:], strict=True):
            value = value + number if sign == "+" else value * number if sign == TIMES else value - number
            least = min(least, value)
        if least >= (0 if MINUS in template.signs else 1):
            return numbers
