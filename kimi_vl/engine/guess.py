"""Which tokens an answer is likely to go on with, from what was said after the same words before.

Prompt lookup (LLMA, arXiv 2304.04487): answers repeat their prompt and themselves, most of all where text is edited or
read off. A step then reads the guessed tokens along with the last one, and keeps those that would have been drawn
anyway. A wrong guess costs time only; how many pay is decided here. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# A token more makes a step of one longer by this share (docs/measured.md): it needs experts of its own.
TOKEN_COST = 0.45
# Fewer equal tokens than this are chance.
_LEAST_EQUAL = 3
_MOST_EQUAL = 16
# What is remembered of earlier guesses: about so many, and at first as if so many had been right.
_MEMORY = 32
_FIRST_SHARE = 0.7
# Of tokens that a grammar forces: nearly all, but one text may be cut into tokens in several ways.
FORCED_SHARE = 0.95


class Guesses:
    """The guesses of one answer: what they are, and how often they came true."""

    def __init__(self, prompt: Sequence[int], most_tokens: int) -> None:
        """``most_tokens`` is what prompt and answer may come to."""
        self._ids = np.zeros(most_tokens, dtype=np.int32)
        self._ids[: len(prompt)] = prompt
        self._count = len(prompt)
        self._tried = _MEMORY / 4
        self._right = self._tried * _FIRST_SHARE
        self._last: list[int] = []

    @property
    def ids(self) -> list[int]:
        """Of prompt and answer so far."""
        return self._ids[: self._count].tolist()

    @property
    def share(self) -> float:
        """Of recent guesses, those that were right."""
        return self._right / self._tried

    def next(self, most: int) -> list[int]:
        """What came after the longest and latest equal words, at most so many tokens."""
        ids = self._ids[: self._count]
        ends = np.flatnonzero(ids[:-1] == ids[-1])
        equal = 1
        while len(ends) and equal < min(_MOST_EQUAL, len(ids)):
            further = ends[(ends >= equal) & (ids[ends - equal] == ids[-1 - equal])]
            if not len(further):
                break
            ends = further
            equal += 1
        first = int(ends[-1]) + 1 if len(ends) and equal >= _LEAST_EQUAL else len(ids)
        self._last = ids[first : first + most].tolist()
        return self._last

    def add(self, drawn: Sequence[int]) -> None:
        """The answer went on by these. Guesses are counted up to the first wrong one, whether they were read or not."""
        for guess, token in zip(self._last, drawn, strict=False):
            self._tried += 1 - self._tried / _MEMORY
            self._right += (guess == token) - self._right / _MEMORY
            if guess != token:
                break
        self._last = []
        self._ids[self._count : self._count + len(drawn)] = drawn
        self._count += len(drawn)


def how_many(share: float, tokens: int) -> int:
    """How many guesses pay in a step of ``tokens`` tokens, each of them right with probability ``share``.

    Guess i counts only if all before it are right, so it is worth its cost while share^i is above that. A step that
    has many tokens anyway gains a smaller part by one more.
    """
    cost = TOKEN_COST * tokens / (1 - TOKEN_COST + TOKEN_COST * tokens)
    if share <= cost:
        return 0
    return 1_000 if share >= 1 else int(math.log(cost) / math.log(share))
