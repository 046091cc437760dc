"""What the engine holds: after a thousand pictures as much as after two hundred, and nothing of what was cancelled."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_vl import SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.features import FeatureCache
from kimi_vl.engine.latents import empty_cache
from kimi_vl.engine.model import EngineModel
from tests.engines import LINE, answers, ask, noise, run, simple_answer
from tests.memory import resident


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_a_thousand_new_pictures(nano4: EngineModel) -> None:
    """(B14) Kept, 800 of them would be 22 MB of pixels, or 7 MB of features."""
    engine = Engine(nano4, EngineOptions(context=4096, feature_tokens=200))
    params = SamplingParams(max_new_tokens=1)
    after = {}
    for count in range(0, 1000, 8):
        run(engine, *(ask(nano4, noise(n, 48 + n % 16, 48), params=params) for n in range(count, count + 8)))
        after[count + 8] = resident()
    assert after[1000] - after[200] < 4_000_000


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no large pages")
def test_the_cache_asks_for_large_pages_and_takes_none_before_it_is_used() -> None:
    cache = empty_cache(4096, 512, 64, "bfloat16")
    here, flags, size = False, "", 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(match[1], 16) <= cache.data_ptr() < int(match[2], 16)
        elif here and line.startswith("VmFlags:"):
            flags = line
        elif here and (match := re.match(r"Rss: +(\d+) kB", line)):
            size = int(match[1])
    assert "hg" in flags.split() and size < 4096


def test_features_stay_within_their_budget(nano4: EngineModel) -> None:
    """Or are those of one picture; those in use are seen once."""
    seen: list[int] = []
    features = FeatureCache(120)
    for number, size in enumerate([(100, 100), (100, 100), (300, 300), (100, 100), (16, 16)]):
        (shown,) = ask(nano4, noise(number, *size), params=SamplingParams()).pictures
        for _ in range(3):
            assert len(features.get(shown, nano4)) == shown.span.tokens
        seen.append(features.tokens)
    assert seen == [49, 98, 361, 49, 50]


@pytest.mark.parametrize("features", [1, 100])
def test_a_picture_that_is_cut_is_seen_once(nano4: EngineModel, monkeypatch: pytest.MonkeyPatch, features: int) -> None:
    """However few features are kept, and whoever comes between its pieces."""
    seen: list[int] = []
    see = nano4.image_features

    def counted(pixel_values: object, grid: tuple[int, int]) -> object:
        seen.append(grid[0] * grid[1] // 4)
        return see(pixel_values, grid)  # type: ignore[arg-type]

    monkeypatch.setattr(nano4, "image_features", counted)
    requests = [
        ask(nano4, *(noise(10 * n + i, 150, 140) for i in range(3)), "?", params=SamplingParams(max_new_tokens=9))
        for n in range(6)
    ]
    engine = Engine(nano4, EngineOptions(step_tokens=20, feature_tokens=features))
    said = answers(engine, requests)
    assert seen == [90] * 18
    assert said == {request.id: simple_answer(nano4, request) for request in requests}


def waiting(engine: Engine) -> int:
    """The first of three is under way, so that the second has not begun."""
    engine.step()
    return 1


def within_a_picture(engine: Engine) -> int:
    engine.step()
    engine.step()
    return 0


def answering(engine: Engine) -> int:
    while not engine.step():
        pass
    return 0


@pytest.mark.parametrize("until", [waiting, within_a_picture, answering])
def test_what_is_cancelled_is_gone_at_once(nano4: EngineModel, until: Callable[[Engine], int]) -> None:
    """(D11) Its pages are free before the next step, the request is forgotten, the others go on."""
    engine = Engine(nano4, EngineOptions(step_tokens=30, most_running=1, feature_tokens=1))
    params = SamplingParams(max_new_tokens=4)
    requests = [replace(ask(nano4, noise(n, 150, 140), LINE, params=params), id=str(n)) for n in range(3)]
    wanted = {request.id: simple_answer(nano4, request) for request in requests}
    for request in requests:
        engine.add(request)
    victim = until(engine)
    held = engine.pages - engine.pages_free
    gone = weakref.ref(requests.pop(victim))
    del request
    engine.cancel(str(victim))
    gc.collect()
    assert gone() is None
    assert engine.pages - engine.pages_free == (held if victim else 0)
    engine.cancel(str(victim))
    engine.cancel("nobody")
    heard: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.busy:
        for progress in engine.step():
            heard[progress.request.id].append(progress.drawn.id)
    assert heard == {request.id: wanted[request.id] for request in requests}
    assert engine.pages_free == engine.pages


def test_a_cancelled_request_leaves_shared_pages_to_the_others(nano4: EngineModel) -> None:
    """And what it had read stays known."""
    engine = Engine(nano4)
    params = SamplingParams(max_new_tokens=8)
    first, second = (ask(nano4, "word " * 200, f"{n}", params=params) for n in range(2))
    engine.add(first)
    engine.step()
    engine.add(second)
    (progress,) = [p for p in engine.step() if p.request is second]
    assert progress.reused >= 128
    engine.cancel(first.id)
    rest = []
    while engine.busy:
        rest += [p.drawn.id for p in engine.step()]
    assert [progress.drawn.id, *rest] == simple_answer(nano4, second)
    assert engine.pages_free == engine.pages
