"""Numbers of expressions that a model wrote, worked out in a process of its own that is stopped when it takes too long.

``python -m kimi_vl.eval.scoring.calculator`` is that process.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from kimi_vl.apart import Apart, answering

SECONDS = 5.0


class Calculator:
    """What an expression comes to, worked out once; one that takes too long, or too much memory, is no number."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._apart = Apart(__name__, first="0", seconds=seconds)
        self._known: dict[str, int | float | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._apart.close()

    def __call__(self, text: str) -> int | float | None:
        if text not in self._known:
            plain = _plain(text)
            self._known[text] = self._apart.ask(text) if plain is None else plain
        return self._known[text]


def _plain(text: str) -> int | float | None:
    """Of a number as such, for which no process is asked."""
    read: Callable[[str], int | float]
    for read in (int, float):
        if text.isascii() and text.replace(".", "", 1).removeprefix("-").isdigit() and "_" not in text:
            try:
                return read(text)
            except ValueError:
                continue
    return None


def main() -> None:
    from kimi_vl.eval.scoring.latex import value

    answering(value)


if __name__ == "__main__":
    main()
