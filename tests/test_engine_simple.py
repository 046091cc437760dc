"""The engine's answers are those of simple generation, token by token, whatever else happens meanwhile."""

from __future__ import annotations

import random
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
def simple(nano4: EngineModel) -> list[tuple[Request, list[int]]]:
    r = random.Random(0)
    requests = [mixed_request(nano4, r, str(number)) for number in range(REQUESTS)]
    return [(request, simple_answer(nano4, request)) for request in requests]


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(step_tokens=7, most_running=5),
        EngineOptions(context=512, step_tokens=90, feature_tokens=50),
        EngineOptions(context=512, step_tokens=1000, deterministic=True),
    ],
    ids=["as it comes", "small steps", "small cache", "deterministic"],
)
def test_two_hundred_mixed_requests_are_answered_as_by_simple_generation(
    nano4: EngineModel,
    simple: list[tuple[Request, list[int]]],
    options: EngineOptions,
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
    engine = Engine(nano4, options)
    coming = r.sample(simple, len(simple))
    heard: dict[str, list[int]] = {request.id: [] for request, _ in simple}
    under_way: list[str] = []
    cancelled: set[str] = set()
    reused = 0
    while coming or engine.busy:
        for request, _ in [coming.pop() for _ in range(r.choice([0, 0, 1, 3, 20])) if coming]:
            engine.add(request)
            under_way.append(request.id)
        if under_way and len(cancelled) < REQUESTS // 10 and r.random() < 0.5:
            cancelled.add(name := under_way.pop(r.randrange(len(under_way))))
            engine.cancel(name)
        for progress in engine.step():
            heard[progress.request.id].append(progress.drawn.id)
            reused += progress.reused
            if progress.finish is not None:
                under_way.remove(progress.request.id)
    for request, answer in simple:
        said = heard[request.id]
        assert said == (answer[: len(said)] if request.id in cancelled else answer)
    assert engine.pages_free == engine.pages
    # the settings show what they are meant to
    assert len(cancelled) >= REQUESTS // 20
    assert reused > 0
    assert len(gave_way) > 10 if options.context < 1000 else not gave_way
