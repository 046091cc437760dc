"""Numbers of expressions that a model wrote, worked out in a process of its own that is stopped when it takes too long.

``python -m kimi_vl.eval.scoring.calculator`` is that process: a JSON string in on each line, a number or null out.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

SECONDS = 5.0
_START = 60.0  # seconds until it has imported sympy
_MEMORY = 2 << 30  # bytes of address space


class Calculator:
    """What an expression comes to, worked out once; one that takes too long, or too much memory, is no number."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[str, int | float | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __call__(self, text: str) -> int | float | None:
        if text not in self._known:
            plain = _plain(text)
            self._known[text] = self._ask(text) if plain is None else plain
        return self._known[text]

    def _ask(self, text: str) -> int | float | None:
        if self._process is None:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._answer(b'"0"\n', _START) == b"0\n"
        said = self._answer(json.dumps(text).encode() + b"\n", self._seconds)
        if said is None:
            self.close()
            return None
        number: int | float | None = json.loads(said)
        return number

    def _answer(self, line: bytes, seconds: float) -> bytes | None:
        """None if the process ended, or has not answered by then."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return process.stdout.readline() or None


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


def _bounded() -> None:
    """On systems that know such a bound."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > _MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, most))


def main() -> None:
    from kimi_vl.eval.scoring.latex import value

    _bounded()
    for line in sys.stdin:
        print(json.dumps(value(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
