"""Signs of life on stderr, for a person who has waited two seconds. Where stderr is no terminal, nothing is shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

_PATIENCE = 2.0


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows ``what`` beside a spinner while the body runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(what)
    timer = Timer(_PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def counting_bytes(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to be told of bytes done, which draws a bar."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    began = time.monotonic()

    def advance(done: int) -> None:
        bar.update(task, completed=done)
        if time.monotonic() - began > _PATIENCE:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()


def calm_downloads() -> None:
    """Lets the hub's own bars keep the same manners; to be called before ``huggingface_hub`` is imported."""
    if sys.stderr.isatty():
        os.environ.setdefault("TQDM_DELAY", str(_PATIENCE))
    else:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
