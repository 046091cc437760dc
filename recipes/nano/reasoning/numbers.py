"""Which numbers a problem may have: what is held out has numbers that training never shows in one problem.

In training no number of the band stands in any problem; every held-out problem has one at least.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from recipes.nano.fonts import Split

BANDS = (range(6, 7), range(27, 30), range(44, 48), range(63, 67))
_T = TypeVar("_T")


def is_held_out(number: int) -> bool:
    return any(number in band for band in BANDS)


def drawn(random: Random, split: Split, draw: Callable[[Random], _T], numbers: Callable[[_T], list[int]]) -> _T:
    """What ``draw`` gives, again and again until its ``numbers`` suit the split.

    Raises: ``ValueError`` if none of many does.
    """
    for _ in range(1000):
        found = draw(random)
        if any(map(is_held_out, numbers(found))) == (split == "heldout"):
            return found
    raise ValueError(f"of a thousand problems none suits {split}: its numbers cannot be drawn")
