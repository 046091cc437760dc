"""Worked solutions say nothing wrong, lead to answers that are right, and what is held out is not seen in training."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest

from recipes.nano.fonts import Split
from recipes.nano.reasoning import shapes, stories
from recipes.nano.reasoning.kinds import KINDS, problem
from recipes.nano.reasoning.numbers import is_held_out
from recipes.nano.reasoning.problem import LEVELS, Problem
from recipes.nano.reasoning.shapes import HELDOUT_KINDS, Shape
from tests.nano import needs_data

pytestmark = needs_data
LEVELS_OF = [(kind, level) for kind in KINDS for level in range(1, LEVELS + 1)]
_STATED = re.compile(r"(No, )?((?:\d+ [-+x/] )+\d+) = (-?\d+)")


def some(kind: str, split: Split, level: int, count: int = 25, *, slips: float = 0.0) -> list[Problem]:
    return [problem(kind, split, level, number, slips=slips) for number in range(count)]


def stated(thought: str) -> list[tuple[bool, bool]]:
    """Of each equation, whether it mends one, and whether it holds."""
    return [(bool(mends), value(left) == int(right)) for mends, left, right in _STATED.findall(thought)]


def value(expression: str) -> Fraction:
    """From left to right, products first."""
    sums = Fraction(0)
    for term in re.split(r" (?=[-+])", expression):
        sign, numbers = (-1 if term.startswith("-") else 1), term.lstrip("+- ")
        product, *rest = re.split(r" ([x/]) ", numbers)
        found = Fraction(product)
        for operator, number in zip(rest[::2], rest[1::2], strict=True):
            found = found * int(number) if operator == "x" else found / int(number)
        sums += sign * found
    return sums


@pytest.mark.parametrize(("kind", "level"), LEVELS_OF)
def test_what_a_solution_says_is_so(kind: str, level: int) -> None:
    for split in ("train", "heldout"):
        for one in some(kind, split, level):
            assert (one.kind, one.level) == (kind, level)
            assert one.rule.is_right(one.answer)
            assert not one.rule.is_right(f"{one.answer}1") and not one.rule.is_right("")
            assert all(holds and not mends for mends, holds in stated(one.thought)), one.thought
            # The last thing that is said is the answer.
            assert re.findall(r"\w+", one.thought)[-1].casefold() == one.answer.casefold() or one.level == 1
            assert len(one.thought) < 500
            assert one.picture.mode == "RGB" and one.picture.width % 28 == one.picture.height % 28 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_slip_is_noticed_and_mended(kind: str) -> None:
    slipped = 0
    for level in range(1, LEVELS + 1):
        for careful, careless in zip(some(kind, "train", level), some(kind, "train", level, slips=0.5), strict=True):
            told = stated(careless.thought)
            for (_, holds), (mends, _) in pairwise(told):
                assert holds != mends, careless.thought
            assert all(holds for mends, holds in told if mends)
            slipped += "No, " in careless.thought
            assert careless.rule.is_right(careless.answer)
            assert "No, " not in careful.thought
    assert slipped > 20 or kind == "shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_is_the_same_every_time(kind: str) -> None:
    for one, again in zip(some(kind, "heldout", 3, 5), some(kind, "heldout", 3, 5), strict=True):
        assert (one.question, one.thought, one.answer) == (again.question, again.thought, again.answer)
        assert one.picture.tobytes() == again.picture.tobytes()


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_answers_are_not_told_by_their_level_alone(level: int) -> None:
    """No answer is right more often than 60 of 100 times."""
    for kind in KINDS:
        answers = [one.answer for one in some(kind, "heldout", level, 100)]
        most = max(map(answers.count, answers))
        assert most <= 60, (kind, level, most)


def test_held_out_numbers_are_in_no_training_problem() -> None:
    for level in range(1, LEVELS + 1):
        for kind in ("expressions", "stories"):
            for split in ("train", "heldout"):
                for one in some(kind, split, level):
                    first = re.split(r"\. |\.$", one.thought)[0]
                    found = any(is_held_out(int(number)) for number in re.findall(r"\d+", first))
                    assert found == (split == "heldout"), one.thought


def test_held_out_shapes_and_stories_are_in_no_training_problem() -> None:
    apart = {Shape(*kind) for kind in HELDOUT_KINDS}
    for level in range(1, LEVELS + 1):
        for number in range(50):
            train, heldout = (
                {one for row in shapes._drawn(Random(f"{level}/{number}"), split, level) for one in row}
                for split in ("train", "heldout")
            )
            assert not train & apart and heldout & apart
    assert not {one.told for one in stories.TRAINING} & {one.told for one in stories.HELDOUT}
    for level in range(1, LEVELS + 1):
        for known in (stories.TRAINING, stories.HELDOUT):
            assert any(one.signs in stories._STEPS[level] for one in known)
