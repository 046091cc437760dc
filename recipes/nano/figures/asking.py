"""How questions about charts, tables and receipts are drawn: a wording each, several of different kinds a picture.

Knows nothing of what is in the pictures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from recipes.nano import questions
from recipes.nano.fonts import Split

YES: Final = "yes"
NO: Final = "no"
ABSENT: Final = 0.1
"""How many of the questions are about something that is not in the picture."""
Wordings = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Query:
    """A question of a kind, and the whole answer."""

    kind: str
    question: str
    answer: str


def worded(random: Random, wordings: tuple[str, ...], split: Split, **names: str) -> str:
    """One of the wordings with its names put in."""
    return questions.worded(random, wordings, split).format(**names)


def ask_several(
    random: Random, wanted: int, weights: Mapping[str, int], make: Callable[[str], Query | None], *, twice: str
) -> list[Query]:
    """Up to so many different questions; of each kind one, of the kind `twice` two.

    `make` draws a question of a kind of the weights, or of "absent"; None where there is none to be asked.
    """
    found: dict[str, Query] = {}
    for _ in range(12 * wanted):
        if len(found) == wanted:
            break
        kind = "absent" if random.random() < ABSENT else random.choices(list(weights), list(weights.values()))[0]
        asked = make(kind)
        alike = [a for a in found.values() if asked is not None and a.kind == asked.kind]
        # A second one with the same answer may be the same question in other words.
        if asked is None or len(alike) == (2 if kind == twice else 1) or asked.answer in [a.answer for a in alike]:
            continue
        found.setdefault(asked.question, asked)
    return list(found.values())
