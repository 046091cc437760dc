"""The engine behind an event loop: answers as alone, cancelled ones freed, failures told to those whom they concern."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from kimi_vl import SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.request import Progress, Request
from kimi_vl.serve.engine_thread import EngineThread, StepError, Tokens
from tests.engines import LINE, ask, picture, run

T = TypeVar("T")
OPTIONS = EngineOptions(context=2048, step_tokens=64, most_running=4)


def within(
    model: EngineModel,
    do: Callable[[EngineThread], Awaitable[T]],
    on_step: Callable[[float, Sequence[Progress]], None] = lambda seconds, progress: None,
) -> T:
    """Does something with an engine's thread, and sees that the engine holds nothing afterwards."""
    engine = Engine(model, OPTIONS)

    async def main() -> T:
        thread = EngineThread(engine, on_step)
        thread.start()
        try:
            return await asyncio.wait_for(do(thread), 60)
        finally:
            await thread.stop()
            assert not thread.alive

    result = asyncio.run(main())
    assert not engine.busy
    assert engine.pages_free == engine.pages
    return result


async def ids(tokens: Tokens) -> list[int]:
    return [progress.drawn.id async for news in tokens for progress in news]


def requests(model: EngineModel, count: int) -> list[Request]:
    params = SamplingParams(max_new_tokens=24, temperature=0.7, seed=1)
    return [ask(model, picture(n), f"What is this? {n}", params=params) for n in range(count)]


def test_answers_are_those_of_the_engine_alone(nano4: EngineModel) -> None:
    wanted = requests(nano4, 9)
    alone = [[p.drawn.id for p in run(Engine(nano4, OPTIONS), request)[request.id]] for request in wanted]
    steps: list[int] = []

    async def all_at_once(thread: EngineThread) -> list[list[int]]:
        streams = [thread.submit(request) for request in wanted]
        assert thread.requests == 9
        return await asyncio.gather(*map(ids, streams))

    assert within(nano4, all_at_once, lambda seconds, progress: steps.append(len(progress))) == alone
    assert sum(steps) == sum(map(len, alone))


def test_what_can_never_be_answered_is_refused_at_once(nano4: EngineModel) -> None:
    long = ask(nano4, "Hello", params=SamplingParams(max_new_tokens=4000))

    async def submit(thread: EngineThread) -> None:
        with pytest.raises(ValueError, match="pages of 64 tokens, but the cache has 32"):
            thread.submit(long)
        assert thread.requests == 0

    within(nano4, submit)


def test_who_leaves_is_forgotten_and_others_go_on(nano4: EngineModel) -> None:
    # sampled so that it does not end by itself soon
    endless = SamplingParams(max_new_tokens=1500, temperature=5.0, seed=3)
    leaving = [ask(nano4, LINE, "Read the text.", params=endless) for _ in range(6)]
    staying = requests(nano4, 2)
    alone = [[p.drawn.id for p in run(Engine(nano4, OPTIONS), request)[request.id]] for request in staying]

    async def leave(thread: EngineThread) -> list[list[int]]:
        streams = [thread.submit(request) for request in leaving]
        kept = [asyncio.create_task(ids(thread.submit(request))) for request in staying]
        async for _ in streams[0]:
            break
        for stream in streams:
            stream.close()
            stream.close()
        assert thread.requests <= 2
        return await asyncio.gather(*kept)

    assert within(nano4, leave) == alone


def test_a_failed_step_fails_those_who_were_in_it(nano4: EngineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, later = requests(nano4, 3)
    alone = [p.drawn.id for p in run(Engine(nano4, OPTIONS), later)[later.id]]

    async def fail(thread: EngineThread) -> list[int]:
        step, failing = thread.engine.step, True

        def broken() -> list[Progress]:
            nonlocal failing
            if failing:
                failing = False
                raise RuntimeError("out of luck")
            return step()

        monkeypatch.setattr(thread.engine, "step", broken)
        answers = await asyncio.gather(ids(thread.submit(first)), ids(thread.submit(second)), return_exceptions=True)
        # the second one may have come after the step that failed
        assert isinstance(answers[0], StepError)
        assert "out of luck" not in str(answers[0])
        assert isinstance(answers[1], list | StepError)
        return await ids(thread.submit(later))

    assert within(nano4, fail) == alone


def test_how_long_a_step_runs_is_seen_from_outside(nano4: EngineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    (request,) = requests(nano4, 1)

    async def look(thread: EngineThread) -> None:
        assert thread.step_seconds == 0
        step = thread.engine.step

        def waits() -> list[Progress]:
            go_on.wait()
            return step()

        monkeypatch.setattr(thread.engine, "step", waits)
        answer = asyncio.create_task(ids(thread.submit(request)))
        while thread.step_seconds < 0.2:
            await asyncio.sleep(0.02)
        go_on.set()
        assert await answer

    within(nano4, look)
