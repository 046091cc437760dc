"""Arithmetic that stands in the picture: (random, split, level) -> `Problem`.

Level 1 has two small numbers, 2 two of two digits, 3 three numbers, 4 a product among them, 5 brackets.
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
from recipes.nano.reasoning.written import written

QUESTIONS = (
    "What does this come to?",
    "What is the result?",
    "Work this out.",
    "How much is that?",
    "Solve it.",
    "What number is it equal to?",
)
_MOST = 99


@dataclass(frozen=True)
class Expression:
    """``numbers`` with ``signs`` between them; the two from ``bracket`` on stand in brackets."""

    numbers: tuple[int, ...]
    signs: tuple[str, ...]
    bracket: int | None = None

    def __str__(self) -> str:
        parts = list(map(str, self.numbers))
        if self.bracket is not None:
            parts[self.bracket] = f"({parts[self.bracket]}"
            parts[self.bracket + 1] += ")"
        told = parts[0]
        for sign, part in zip(self.signs, parts[1:], strict=True):
            told += f" {sign} {part}"
        return told


def expression_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    expression = drawn(random, split, lambda r: _drawn(r, level), lambda one: list(one.numbers))
    thought = Thought(random, slips=slips)
    thought.say(f"It says {expression}.")
    value = _worked(thought, expression)
    shown = f"{expression} = ?" if random.random() < 0.6 else f"{expression} ="
    return Problem(
        picture=written(random, split, [shown]),
        question=worded(random, QUESTIONS, split),
        thought=str(thought),
        answer=str(value),
        rule=Value(str(value)),
        kind="expressions",
        level=level,
    )


def _drawn(random: Random, level: int) -> Expression:
    """One whose steps all lie between 0 and 999, and whose products have one digit on the right."""
    while True:
        one = _any(random, level)
        if all(0 <= value <= 999 for value in _values(one)):
            return one


def _any(random: Random, level: int) -> Expression:
    def number(most: int = _MOST) -> int:
        return random.randint(2, most)

    def sign() -> str:
        return random.choice(("+", MINUS))

    match level:
        case 1:
            return Expression((number(20), number(9)), (sign(),))
        case 2:
            return Expression((number(), number()), (sign(),))
        case 3:
            return Expression((number(), number(), number()), (sign(), sign()))
        case 4:
            first = Expression((number(40), number(9), number()), (TIMES, sign()))
            return first if random.random() < 0.5 else Expression((number(), number(40), number(9)), (sign(), TIMES))
        case _:
            return Expression((number(40), number(40), number(9)), (sign(), TIMES), bracket=0)


def _values(one: Expression) -> list[int]:
    quiet = Thought(Random(0))
    found = [_worked(quiet, one)]
    if one.bracket == 0 or (TIMES not in one.signs and len(one.numbers) == 3):
        found.append(one.numbers[0] + one.numbers[1] if one.signs[0] == "+" else one.numbers[0] - one.numbers[1])
    return found


def _worked(thought: Thought, one: Expression) -> int:
    numbers, signs = list(one.numbers), list(one.signs)
    if one.bracket is not None:
        thought.say("First the brackets.")
        _combine(thought, numbers, signs, one.bracket)
    elif TIMES in signs and len(signs) > 1:
        thought.say("First the product.")
    while TIMES in signs:
        _combine(thought, numbers, signs, signs.index(TIMES))
    while signs:
        _combine(thought, numbers, signs, 0)
    return numbers[0]


def _combine(thought: Thought, numbers: list[int], signs: list[str], at: int) -> None:
    """What stands on both sides of a sign becomes one number."""
    first, second = numbers[at : at + 2]
    match signs.pop(at):
        case "+":
            value = thought.sum(first, second)
        case "x":
            value = thought.product(first, second) if 0 <= second < 11 else first * second
        case _:
            value = thought.difference(first, second)
    numbers[at : at + 2] = [value]
