"""All kinds of problems that are drawn, by their names: (random, split, level) -> `Problem`."""

from __future__ import annotations

from random import Random
from typing import Protocol

from recipes.nano.fonts import Split
from recipes.nano.reasoning.bars import bar_problem, price_problem
from recipes.nano.reasoning.expressions import expression_problem
from recipes.nano.reasoning.geometry import geometry_problem
from recipes.nano.reasoning.goals import goal_problem
from recipes.nano.reasoning.paths import path_problem
from recipes.nano.reasoning.problem import Problem
from recipes.nano.reasoning.shapes import shape_problem
from recipes.nano.reasoning.stories import story_problem
from recipes.nano.reasoning.trends import trend_problem


class Draw(Protocol):
    def __call__(self, random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem: ...


KINDS: dict[str, Draw] = {
    "expressions": expression_problem,
    "stories": story_problem,
    "geometry": geometry_problem,
    "shapes": shape_problem,
    "bars": bar_problem,
    "prices": price_problem,
    "trends": trend_problem,
    "paths": path_problem,
    "goals": goal_problem,
}


def problem(kind: str, split: Split, level: int, number: int, *, slips: float = 0.0) -> Problem:
    """The same for the same words and numbers."""
    return KINDS[kind](Random(f"reasoning/{kind}/{split}/{level}/{number}"), split, level, slips=slips)
