"""The engine's answers are those of simple generation, token by token, whatever else happens meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from kimi_vl import SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.request import Request, Running
from kimi_vl.engine.scheduler import Scheduler
from tests.engines import LINE, ask, picture, simple_answer

REQUESTS = 200
# Beginnings that many share, from none to several pages of 64 tokens.
BEGINNINGS = ("", "Answer in one word. ", "You see pictures and are asked about them. " * 4, "Well then, " * 50)
WORDS = ("what", "read", "the", "colour", "Ünïcode", "42", "<|media_pad|>", "🙂")


def mixed_request(model: EngineModel, r: random.Random, name: str) -> Request:
    """Text alone, one picture or several; pictures and beginnings come again in other requests."""
    pictures = [r.choice([LINE, picture(r.randint(0, 9))]) for _ in range(r.choice([0, 0, 1, 1, 2, 3]))]
    words = " ".join(r.choice(WORDS) for _ in range(r.choice([1, 3, 10, 40])))
    params = SamplingParams(max_new_tokens=r.choice([1, 2, 4, 8, 12]))
    return replace(ask(model, r.choice(BEGINNINGS), *pictures, words, params=params), id=name)


@pytest.fixture(scope="module")
def simple(nano4: EngineModel) -> Callable[[int], list[tuple[Request, list[int]]]]:
    """The first so many requests and their answers, each answered once."""
    r = random.Random(0)
    requests = [mixed_request(nano4, r, str(number)) for number in range(REQUESTS)]
    known: list[tuple[Request, list[int]]] = []

    def first(count: int) -> list[tuple[Request, list[int]]]:
        known.extend((request, simple_answer(nano4, request)) for request in requests[len(known) : count])
        return known[:count]

    return first


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (EngineOptions(), REQUESTS),
        (EngineOptions(step_tokens=7, most_running=5), 60),
        (EngineOptions(context=512, step_tokens=90, feature_tokens=50), 100),
        (EngineOptions(context=512, step_tokens=1000, deterministic=True), 100),
    ],
    ids=["as it comes", "small steps", "small cache", "deterministic"],
)
def test_mixed_requests_are_answered_as_by_simple_generation(
    nano4: EngineModel,
    simple: Callable[[int], list[tuple[Request, list[int]]]],
    options: EngineOptions,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In any order, arriving while others are under way; one in ten is cancelled at any time (B9, B10, B11, B13)."""
    gave_way: list[Running] = []
    preempt = Scheduler._preempt

    def noticed(self: Scheduler, running: Running) -> None:
        gave_way.append(running)
        preempt(self, running)

    monkeypatch.setattr(Scheduler, "_preempt", noticed)
    r = random.Random(1)
    wanted = simple(count)
    engine = Engine(nano4, options)
    coming = r.sample(wanted, count)
    heard: dict[str, list[int]] = {request.id: [] for request, _ in wanted}
    under_way: list[str] = []
    cancelled: set[str] = set()
    reused = 0
    while coming or engine.busy:
        for request, _ in [coming.pop() for _ in range(r.choice([0, 0, 1, 3, 20])) if coming]:
            engine.add(request)
            under_way.append(request.id)
        if under_way and len(cancelled) < count // 10 and r.random() < 0.5:
            cancelled.add(name := under_way.pop(r.randrange(len(under_way))))
            engine.cancel(name)
        for progress in engine.step():
            heard[progress.request.id].append(progress.drawn.id)
            reused += progress.reused
            if progress.finish is not None:
                under_way.remove(progress.request.id)
    for request, answer in wanted:
        said = heard[request.id]
        assert said == (answer[: len(said)] if request.id in cancelled else answer)
    assert engine.pages_free == engine.pages
    # the settings show what they are meant to
    assert len(cancelled) >= count // 20
    assert reused > 0
    assert len(gave_way) > 10 if options.context < 1000 else not gave_way
