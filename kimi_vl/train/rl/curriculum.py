"""Which problems a step poses: from easy to hard, and more of what fails.

In: how far the run is, and what has been asked so far. Out: cells, a kind of problem at one level each. Pure functions:
a run that goes on needs only its own record.

Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.4. There single problems come again by their failure rate; here
problems are drawn without end, and it is their cells that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

_KEPT = 0.8  # of a cell's rate, when another of its problems has been answered
_LEAST = 0.02  # what a cell without failures still weighs


@dataclass(frozen=True, order=True)
class Cell:
    name: str
    level: int  # from 1, the easiest


@dataclass(frozen=True)
class Asked:
    """One problem, and how many of its answers were right."""

    cell: Cell
    right: int
    of: int


def open_levels(progress: float, levels: int, opening: float) -> int:
    """How many of a kind's levels are posed after the share ``progress`` of a run: one at first, and all from the
    share ``opening`` on."""
    if progress >= opening:
        return levels
    return 1 + int(progress / opening * (levels - 1))


def open_cells(cells: Sequence[Cell], progress: float, opening: float) -> list[Cell]:
    levels = {cell.name: max(each.level for each in cells if each.name == cell.name) for cell in cells}
    return [cell for cell in cells if cell.level <= open_levels(progress, levels[cell.name], opening)]


def success_rates(asked: Iterable[Asked]) -> dict[Cell, float]:
    """Of each cell that was asked, the later problems counting for more."""
    rates: dict[Cell, float] = {}
    for one in asked:
        share = one.right / one.of
        rates[one.cell] = _KEPT * rates[one.cell] + (1 - _KEPT) * share if one.cell in rates else share
    return rates


def chosen(cells: Sequence[Cell], rates: dict[Cell, float], count: int, key: str) -> list[Cell]:
    """``count`` cells by their failure rates, those of which nothing is known as if they had failed."""
    weights = [max(_LEAST, 1 - rates.get(cell, 0.0)) for cell in cells]
    return Random(key).choices(cells, weights, k=count)
