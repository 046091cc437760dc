"""What is posed: a conversation that ends with a question, and the rule of a right answer.

In: a recipe's problems and exams, functions by name. Out: :class:`Posed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kimi_vl.chat import Message
from kimi_vl.train.functions import function
from kimi_vl.train.recipe import ExamRecipe
from kimi_vl.train.rewards import Rule
from kimi_vl.train.rl.curriculum import Cell
from kimi_vl.train.rl.recipe import ProblemsRecipe


@dataclass(frozen=True, eq=False)
class Posed:
    """``wanted`` is a right answer, for whoever looks at it; ``rule`` decides."""

    messages: Sequence[Message]
    rule: Rule
    wanted: str


class Problems:
    """All kinds of a recipe at all their levels, without end.

    Raises: ``ValueError`` for functions that there are not.
    """

    def __init__(self, recipes: Sequence[ProblemsRecipe]) -> None:
        self._draws: dict[str, Callable[[int, int, int], Posed]] = {
            each.name: function(f"problems {each.name}", each.draw) for each in recipes
        }
        self.cells = [Cell(each.name, level) for each in recipes for level in range(1, each.levels + 1)]

    def draw(self, cell: Cell, seed: int, index: int) -> Posed:
        """The same for the same numbers."""
        return self._draws[cell.name](seed, index, cell.level)


@dataclass(frozen=True)
class Exam:
    name: str
    posed: Sequence[Posed]


def exams(recipes: Iterable[ExamRecipe]) -> list[Exam]:
    """What is asked at every save. Raises ``ValueError`` for functions that there are not, and for no problems."""
    found = []
    for each in recipes:
        draw: Callable[[int], Iterable[Posed]] = function(f"exam {each.name}", each.draw)
        posed = list(draw(each.count))
        if not posed:
            raise ValueError(f"exam {each.name}: {each.draw} gives no problem for a count of {each.count}")
        found.append(Exam(each.name, posed))
    return found
