"""How sure a figure is: intervals of 95 %, and whether two runs of the same items differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_Z = 1.959964
_RESAMPLES = 1000
_SEED = 0


def wilson(right: int, count: int) -> tuple[float, float]:
    """Of a share of right answers (Wilson's score interval), which is never empty at 0 or 1."""
    if not count:
        return 0.0, 1.0
    share, z2 = right / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(items: Sequence[T], figure: Callable[[Sequence[T]], float]) -> tuple[float, float]:
    """Of any figure: the items drawn again and again with replacement, always by the same lots."""
    if not items:
        return 0.0, 1.0
    lots = np.random.default_rng(_SEED)
    found = [figure([items[i] for i in lots.integers(len(items), size=len(items))]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(gained: int, lost: int) -> float:
    """The chance of a split as uneven as this, or more so, if neither run were better: the exact test, two-sided."""
    count = gained + lost
    if not count:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(gained, lost) + 1)) / 2**count
    return min(1.0, 2 * tail)


def paired(differences: Sequence[float]) -> float:
    """The same of scores that are no yes or no: signs turned at random, with the fixed lots; two-sided."""
    values = np.array([one for one in differences if one])
    if not len(values):
        return 1.0
    lots = np.random.default_rng(_SEED)
    signs = lots.choice((-1.0, 1.0), size=(10 * _RESAMPLES, len(values)))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-12
    return float((extreme.sum() + 1) / (len(extreme) + 1))
