"""Arithmetic as one writes it down step by step: numbers -> sentences of a thought, and what they come to.

A thought plans, works step by step, now and then makes a slip that it notices and mends, and now and then checks what
it found in another way. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

TIMES, MINUS = "x", "-"


class Thought:
    """Sentences, one after the other. ``slips`` is how often a step goes wrong before it goes right."""

    def __init__(self, random: Random, *, slips: float = 0.0) -> None:
        self._random, self._slips = random, slips
        self._sentences: list[str] = []

    def __str__(self) -> str:
        return " ".join(self._sentences)

    def say(self, sentence: str) -> None:
        self._sentences.append(sentence)

    def step(self, expression: str, value: int) -> int:
        """``expression = value.``, perhaps after a slip of one or of ten."""
        if self._random.random() < self._slips:
            wrong = value + self._random.choice((-10, -1, 1, 10) if abs(value) > 10 else (-1, 1))
            self.say(f"{expression} = {wrong}. No, {expression} = {value}.")
        else:
            self.say(f"{expression} = {value}.")
        return value

    def sum(self, first: int, second: int) -> int:
        """Tens and ones apart where both have tens."""
        if min(first, second) < 10 or not (first % 10 and second % 10):
            return self.step(f"{first} + {second}", first + second)
        tens = self.step(f"{_tens(first)} + {_tens(second)}", _tens(first) + _tens(second))
        ones = self.step(f"{first % 10} + {second % 10}", first % 10 + second % 10)
        return self.step(f"{tens} + {ones}", tens + ones)

    def difference(self, first: int, second: int) -> int:
        """First the tens are taken away, then the ones."""
        if second < 10 or not second % 10:
            return self.step(f"{first} {MINUS} {second}", first - second)
        rest = self.step(f"{first} {MINUS} {_tens(second)}", first - _tens(second))
        return self.step(f"{rest} {MINUS} {second % 10}", rest - second % 10)

    def product(self, first: int, second: int) -> int:
        """A number by one digit: its tens, then its ones."""
        assert 0 <= second < 11
        if first <= 10 or not first % 10 or second == 10:
            return self.step(f"{first} {TIMES} {second}", first * second)
        tens = self.step(f"{_tens(first)} {TIMES} {second}", _tens(first) * second)
        ones = self.step(f"{first % 10} {TIMES} {second}", first % 10 * second)
        return self.sum(tens, ones) if tens % 100 and ones > 9 else self.step(f"{tens} + {ones}", tens + ones)

    def total(self, numbers: Sequence[int]) -> int:
        """One after the other."""
        found = numbers[0]
        for number in numbers[1:]:
            found = self.sum(found, number)
        return found


def _tens(number: int) -> int:
    return number - number % 10
