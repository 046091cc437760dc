"""How a problem is asked. Training never sees the last wording of a list, in which what is held out is asked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from recipes.nano.fonts import Split


def worded(random: Random, wordings: Sequence[str], split: Split) -> str:
    return wordings[-1] if split == "heldout" else random.choice(wordings[:-1])
