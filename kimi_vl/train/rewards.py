"""Whether an answer is right, by rule, judged in a process of its own that is stopped when it takes too long.

In: what was wanted, and all that a model said. Out: right or not. Nothing that a model wrote is run.
``python -m kimi_vl.train.rewards`` is that process.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

from kimi_vl.apart import Apart, answering
from kimi_vl.marks import THOUGHT

_LONGEST = 200  # characters of what is said: no right answer has more


@dataclass(frozen=True)
class Value:
    """A number: whole, with a point, or a fraction; ``tolerance`` is a share of it."""

    wanted: str
    tolerance: float = 0.0

    def is_right(self, said: str) -> bool:
        number, wanted = _number(said), _number(self.wanted)
        return (
            number is not None and wanted is not None and abs(number - wanted) <= Fraction(self.tolerance) * abs(wanted)
        )


@dataclass(frozen=True)
class Choice:
    """One word or phrase, but for case and a full stop."""

    wanted: str

    def is_right(self, said: str) -> bool:
        return _folded(said) == _folded(self.wanted)


@dataclass(frozen=True)
class Several:
    """Words or phrases in any order, each once, with commas or "and" between."""

    wanted: list[str]

    def is_right(self, said: str) -> bool:
        found = [_folded(one) for one in re.split(r",\s*(?:and\s)?|\sand\s", said)]
        return sorted(found) == sorted(map(_folded, self.wanted))


@dataclass(frozen=True)
class Inside:
    """A point ``x=0.25, y=0.5`` in shares of the sides, within a box of left, top, right and bottom."""

    box: tuple[float, float, float, float]

    def is_right(self, said: str) -> bool:
        points = _POINT.findall(said)
        if len(points) != 1:
            return False
        x, y = map(float, points[0])
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


Rule = Value | Choice | Several | Inside
_RULES = {kind.__name__: kind for kind in (Value, Choice, Several, Inside)}
_NUMBER = re.compile(r"(-?\d{1,15}(?:\.\d{1,15})?)(?:/(\d{1,15}))?")
_POINT = re.compile(r"x=([01](?:\.\d{1,6})?), y=([01](?:\.\d{1,6})?)")


def _number(text: str) -> Fraction | None:
    """One that is all that is said, but for a full stop and commas between thousands."""
    found = _NUMBER.fullmatch(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.strip().removesuffix(".")))
    if found is None:
        return None
    below = Fraction(found[2] or 1)
    return Fraction(found[1]) / below if below else None


def _folded(text: str) -> str:
    return " ".join(text.strip().removesuffix(".").split()).casefold()


@dataclass(frozen=True)
class Parts:
    thought: str
    said: str


def parts(text: str) -> Parts | None:
    """Of an answer that has the form: a thought between its marks, each there once, and something said after it."""
    text, (opening, closing) = text.strip(), THOUGHT
    if not text.startswith(opening) or text.count(opening) != 1 or text.count(closing) != 1:
        return None
    thought, _, said = text.removeprefix(opening).partition(closing)
    return Parts(thought.strip(), said.strip()) if thought.strip() and said.strip() else None


# ---- the process ----


class Judge:
    """Answers are right or wrong; one that takes longer than ``seconds`` is wrong."""

    def __init__(self, *, seconds: float = 2.0) -> None:
        self._apart = Apart(__name__, first=_asked(Value("1"), "1"), seconds=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._apart.close()

    def is_right(self, rule: Rule, said: str) -> bool:
        return len(said) <= _LONGEST and self._apart.ask(_asked(rule, said)) is True


def _asked(rule: Rule, said: str) -> list[Any]:
    return [type(rule).__name__, asdict(rule), said]


def _judged(asked: list[Any]) -> bool:
    kind, fields, said = asked
    return _RULES[kind](**fields).is_right(said)


if __name__ == "__main__":
    answering(_judged)
