"""What a run tells: one JSON object a line in ``log.jsonl``, and to whoever listens.

In: figures of a step. Out: the line, with the time, the rates since the line before, memory and the time left.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from kimi_vl.train.data.packing import Totals

Listener = Callable[[Mapping[str, float]], None]


def up_to(path: Path, step: int) -> None:
    """Keeps the lines of steps up to ``step``. One that a kill cut off is of a later step in any case."""
    told = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = (line for line in told if line.endswith("\n"))
    kept = path.with_suffix(".tmp")
    kept.write_text("".join(line for line in whole if json.loads(line)["step"] <= step), encoding="utf-8")
    kept.replace(path)


class RunLog:
    """Of a run that goes on after ``start`` steps: what was told of later ones, which are done again, is taken out."""

    def __init__(self, path: Path, *, start: int, steps: int, listener: Listener | None = None) -> None:
        up_to(path, start)
        self._file = path.open("a", encoding="utf-8")
        self._listener, self._steps, self._start = listener, steps, start
        self._began = self._last = time.monotonic()
        self._seen = Totals()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def count(self, totals: Totals) -> None:
        """A step's totals, for the rates."""
        self._seen += totals

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        """After ``step`` steps."""
        now = time.monotonic()
        since = max(1e-9, now - self._last)
        seconds = now - self._began
        line = {
            "step": step,
            **figures,
            "seconds": seconds,
            "samples_per_second": self._seen.samples / since,
            "tokens_per_second": self._seen.tokens / since,
            "patches_per_second": self._seen.patches / since,
            "gigabytes": _memory() / 1e9,
            "seconds_left": seconds / (step - self._start) * (self._steps - step),
        }
        print(json.dumps(line), file=self._file, flush=True)
        if self._listener is not None:
            self._listener(line)
        self._last, self._seen = now, Totals()


def _memory() -> int:
    """The most bytes that this process, or its GPU, has held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
