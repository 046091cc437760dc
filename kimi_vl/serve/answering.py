"""Tokens of one answer → what it thinks, says and calls, with why it ends and what it cost.

    Tokens ─→ StreamDecoder ─→ PartsParser ─→ Delta

What is sent at once and what is sent piece by piece are made of the same deltas, so that both are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from kimi_vl.engine.request import Progress
from kimi_vl.parts import CallArguments, CallBegun, Marks, Part, PartsParser, Said, Thought
from kimi_vl.sampling import Drawn
from kimi_vl.serve.engine_thread import Tokens
from kimi_vl.tokenizer import StreamDecoder, Tokenizer

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class Reading:
    """How an answer's text is to be read; without marks, all of it is said."""

    tokenizer: Tokenizer
    marks: Marks | None
    thinks: bool
    calls: bool
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Delta:
    """What an answer grew by. ``said_by`` are the tokens that what is said came from, whole with this delta."""

    parts: tuple[Part, ...]
    said_by: tuple[Drawn, ...]
    finish: Finish | None


class AnswerReader:
    """Reads one answer as it grows."""

    def __init__(self, reading: Reading) -> None:
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.cached_tokens = 0
        self._parser = PartsParser(reading.marks, thinks=reading.thinks, calls=reading.calls, stop=reading.stop)
        self._decoder = StreamDecoder(reading.tokenizer)
        self._end_ids = reading.tokenizer.end_ids
        self._pending: list[Drawn] = []  # tokens of which it is not known yet where they belong
        self._thinking = 0  # tokens up to the end of the thought
        self._has_thought = False

    def push(self, news: Sequence[Progress]) -> Delta:
        """The tokens of one step. After a delta with a finish none may follow."""
        parts: list[Part] = []
        said_by: list[Drawn] = []
        finish: Finish | None = None
        for progress in news:
            self.cached_tokens = progress.reused
            self.completion_tokens += 1
            was_thinking = self._parser.thinking
            if progress.drawn.id not in self._end_ids:
                self._pending.append(progress.drawn)
            new = self._parser.push(self._decoder.push(progress.drawn.id))
            if was_thinking or self._parser.thinking:
                self._thinking = self.completion_tokens
            if progress.finish is not None and self._parser.stop_string is None:
                new += self._parser.push(self._decoder.flush())
                new += self._parser.flush()
            self._has_thought |= any(isinstance(part, Thought) for part in new)
            if any(isinstance(part, Said) for part in new):
                said_by += self._pending
            if new:
                self._pending.clear()
            parts += new
            finish = self._finish(progress)
            if finish is not None:
                break
        self.reasoning_tokens = self._thinking if self._has_thought else 0
        return Delta(_joined(parts), tuple(said_by), finish)

    def _finish(self, progress: Progress) -> Finish | None:
        if self._parser.stop_string is None and progress.finish in (None, "length", "error"):
            return None if progress.finish is None else "length"
        return "tool_calls" if self._parser.calls else "stop"


class Answer:
    """One answer on its way."""

    def __init__(self, tokens: Tokens, reading: Reading, index: int) -> None:
        self.index = index
        self.reader = AnswerReader(reading)
        self.first: float | None = None  # when its first and its last token came, by the monotonic clock
        self.last = 0.0
        self._tokens = tokens

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Raises: ``StepError``."""
        try:
            async for news in self._tokens:
                self.last = time.monotonic()
                self.first = self.first or self.last
                delta = self.reader.push(news)
                yield delta
                if delta.finish is not None:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Ends it, if it has not ended."""
        self._tokens.close()


@dataclass
class Whole:
    """An answer put together again."""

    thought: str = ""
    said: str | None = None
    calls: list[tuple[CallBegun, str]] = field(default_factory=list)
    said_by: list[Drawn] = field(default_factory=list)
    finish: Finish | None = None  # until it has come to its end

    def add(self, delta: Delta) -> None:
        for part in delta.parts:
            match part:
                case Thought(text):
                    self.thought += text
                case Said(text):
                    self.said = (self.said or "") + text
                case CallBegun():
                    self.calls.append((part, ""))
                case CallArguments(index, text):
                    call, arguments = self.calls[index]
                    self.calls[index] = call, arguments + text
        self.said_by += delta.said_by
        if delta.finish is not None:
            self.finish = delta.finish


async def merged(answers: Sequence[Answer]) -> AsyncGenerator[tuple[Answer, Delta], None]:
    """What all of them grow by, as it comes. Raises: ``StepError``."""
    news: asyncio.Queue[tuple[Answer, Delta] | BaseException] = asyncio.Queue()

    async def read(answer: Answer) -> None:
        try:
            async with aclosing(answer.deltas()) as deltas:
                async for delta in deltas:
                    news.put_nowait((answer, delta))
        except Exception as error:
            news.put_nowait(error)

    tasks = [asyncio.ensure_future(read(answer)) for answer in answers]
    left = len(tasks)
    try:
        while left:
            item = await news.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            left -= item[1].finish is not None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """With neighbours of a kind made one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        match last, part:
            case (Said(a), Said(b)):
                joined[-1] = Said(a + b)
            case (Thought(a), Thought(b)):
                joined[-1] = Thought(a + b)
            case (CallArguments(i, a), CallArguments(j, b)) if i == j:
                joined[-1] = CallArguments(i, a + b)
            case _:
                joined.append(part)
    return tuple(joined)
