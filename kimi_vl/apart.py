"""A module of ours as a process of its own, for work on what a model wrote, that is stopped when it is late.

The module reads a line of JSON and writes one, again and again: :func:`answering` does that.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

_START = 60.0  # seconds until it has imported what it needs
_MEMORY = 2 << 30  # bytes of address space


class Apart:
    """Begins when it is first asked, and anew after it had to be stopped."""

    def __init__(self, module: str, *, first: Any, seconds: float) -> None:
        """``first`` is any question that it answers at once: it is asked while the process begins."""
        self._module, self._first, self._seconds = module, first, seconds
        self._process: subprocess.Popen[bytes] | None = None

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

    def ask(self, question: Any) -> Any:
        """The answer, or None if the process ended over it or took too long."""
        if self._process is None:
            command = [sys.executable, "-m", self._module]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            begun = self._answer(self._first, _START)
            assert begun is not None, f"{self._module} did not begin"
        answer = self._answer(question, self._seconds)
        if answer is None:
            self.close()
            return None
        return json.loads(answer)

    def _answer(self, question: Any, seconds: float) -> bytes | None:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return process.stdout.readline() or None


def answering(answer: Callable[[Any], Any]) -> None:
    """What such a module does, until nobody asks any more; in bounded memory, where the system knows bounds."""
    _bounded()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def _bounded() -> None:
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > _MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, most))
