"""The engine in a thread of its own: requests come from the event loop, and tokens go back to it.

Only this thread touches the engine. A request that fails fails alone; a step that fails fails those who were in it, and
the next ones go on.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimi_vl.engine.engine import Engine
    from kimi_vl.engine.request import Progress, Request

_LOG = logging.getLogger(__name__)
_FAILED = "the engine failed while it answered this; try again"


class StepError(RuntimeError):
    """What becomes of a request whose step failed; the cause is in the log."""


class Tokens:
    """One request's tokens as they come, those of a step together. Whoever closes it early cancels the request."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._queue: asyncio.Queue[Sequence[Progress] | StepError] = asyncio.Queue()
        self._close = close

    def put(self, news: Sequence[Progress] | StepError) -> None:
        self._queue.put_nowait(news)

    async def __aiter__(self) -> AsyncIterator[Sequence[Progress]]:
        """Raises: ``StepError``."""
        finished = False
        while not finished:
            news = await self._queue.get()
            if isinstance(news, StepError):
                raise news
            finished = news[-1].finish is not None
            yield news

    def close(self) -> None:
        self._close()


class EngineThread:
    """``on_step`` is told, in the engine's thread, how long each step took and what it brought."""

    def __init__(self, engine: Engine, on_step: Callable[[float, Sequence[Progress]], None]) -> None:
        self.engine = engine
        self._on_step = on_step
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[str, Tokens] = {}
        self._step_began: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its step."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def step_seconds(self) -> float:
        """For which the present step has run; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def requests(self) -> int:
        """That wait or are under way."""
        return len(self._streams)

    def submit(self, request: Request) -> Tokens:
        """Raises: ``ValueError`` with the numbers if it can never be answered here."""
        self.engine.check(request)
        tokens = Tokens(lambda: self._cancel(request.id))
        self._streams[request.id] = tokens
        self._commands.put(lambda: self.engine.add(request))
        return tokens

    def give_up(self, why: str) -> None:
        """Tells all who wait that nothing will come."""
        for request_id in list(self._streams):
            self._hand_over_failure(request_id, why)

    def _cancel(self, request_id: str) -> None:
        if self._streams.pop(request_id, None) is not None:
            self._commands.put(lambda: self.engine.cancel(request_id))

    def _work(self) -> None:
        while self._take_commands():
            if not self.engine.busy:
                continue
            self._step_began = began = time.monotonic()
            try:
                progress = self.engine.step()
            except Exception as error:
                self._fail(error)
                continue
            finally:
                self._step_began = None
            for request_id, failure in self.engine.take_failures().items():
                _LOG.error("a request failed in the engine", exc_info=failure)
                self._tell(partial(self._hand_over_failure, request_id, _FAILED))
            self._on_step(time.monotonic() - began, progress)
            by_request: dict[str, list[Progress]] = defaultdict(list)
            for each in progress:
                by_request[each.request.id].append(each)
            self._tell(partial(self._hand_over, by_request))

    def _take_commands(self) -> bool:
        """Does all that waits, and waits for something if there is nothing to do. Returns whether to go on."""
        block = not self.engine.busy
        while True:
            try:
                command = self._commands.get(block=block)
            except queue.Empty:
                return True
            if command is None:
                return False
            try:
                command()
            except Exception as error:
                _LOG.error("the engine refused a command", exc_info=error)
            block = False

    def _fail(self, error: Exception) -> None:
        _LOG.error("a step of the engine failed", exc_info=error)
        for request_id in self.engine.request_ids:
            self.engine.cancel(request_id)
            self._tell(partial(self._hand_over_failure, request_id, _FAILED))

    def _tell(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # of a loop that was closed
            self._loop.call_soon_threadsafe(what)

    def _hand_over(self, by_request: dict[str, list[Progress]]) -> None:
        for request_id, progress in by_request.items():
            tokens = self._streams.get(request_id)
            if tokens is None:
                continue
            tokens.put(progress)
            if progress[-1].finish is not None:
                del self._streams[request_id]

    def _hand_over_failure(self, request_id: str, why: str) -> None:
        if (tokens := self._streams.pop(request_id, None)) is not None:
            tokens.put(StepError(why))
