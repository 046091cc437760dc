"""The scheduler without a model: whatever is asked and cancelled, everyone gets on, and finds its own in the cache."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_vl.engine.pages import PAGE, PagePool, PictureSpan
from kimi_vl.engine.request import Picture, Request, Running
from kimi_vl.engine.scheduler import Piece, Scheduler
from kimi_vl.sampling import SamplingParams

PLACEHOLDER = 9
NO_PIXELS = torch.empty(0)


def request_of(r: random.Random, name: str, most_tokens: int) -> Request:
    """Up to three pictures between words; many begin alike."""
    answer = r.randint(1, min(100, most_tokens))
    prompt, pictures = [7] * r.choice([1, 5, 64, 130]), []
    for _ in range(r.randint(0, 3)):
        size = r.randint(1, 150)
        pictures.append(Picture(PictureSpan(len(prompt), size, bytes([r.randint(0, 2)])), NO_PIXELS, (2, 2)))
        prompt += [PLACEHOLDER] * size + [r.randint(0, 1)] * r.randint(1, 40)
    prompt = prompt[: most_tokens + 1 - answer]
    kept = tuple(p for p in pictures if p.span.start + p.span.tokens <= len(prompt))
    return Request(name, tuple(prompt), kept, (), SamplingParams(max_new_tokens=answer), seed=0)


@dataclass
class Cache:
    """What stands in each place of each page: all that came before it, as one number."""

    pages: dict[int, list[int]] = field(default_factory=dict)
    states: dict[str, list[int]] = field(default_factory=dict)  # what a request would have if alone

    def read(self, piece: Piece) -> None:
        running, end = piece.running, piece.start + piece.tokens
        states = self._states(running)
        for number, page in enumerate(running.pages[: -(-end // PAGE)]):
            first = number * PAGE
            content = self.pages.setdefault(page, [0] * PAGE)
            known = max(0, min(PAGE, piece.start - first))
            assert content[:known] == states[first : first + known], "another's latents"
            upto = min(PAGE, end - first)
            content[known:upto] = states[first + known : first + upto]

    def _states(self, running: Running) -> list[int]:
        states = self.states.setdefault(running.request.id, [])
        for at, token in enumerate(running.ids[len(states) :], start=len(states)):
            shown = [p.span for p in running.request.pictures if p.span.start <= at < p.span.start + p.span.tokens]
            picture = [(at - span.start, span.digest) for span in shown]
            states.append(hash((states[-1] if states else 0, token, *picture)))
        return states


def check(scheduler: Scheduler, pieces: list[Piece]) -> None:
    assert 0 < sum(piece.tokens for piece in pieces) <= scheduler.step_tokens
    assert [piece.is_prompt for piece in pieces] == sorted(piece.is_prompt for piece in pieces)
    assert len({id(piece.running) for piece in pieces}) == len(pieces)
    assert len(scheduler.running) <= scheduler.most_running
    held = {page for running in scheduler.running for page in running.pages}
    assert len(held) == scheduler.pool.count - scheduler.pool.free
    assert not any(running.pages for running in scheduler.waiting)
    for piece in pieces:
        written = set(piece.running.pages[piece.start // PAGE : -(-(piece.start + piece.tokens) // PAGE)])
        others = {page for running in scheduler.running if running is not piece.running for page in running.pages}
        assert not written & others


def half_read(running: Running) -> bool:
    return 0 < running.cached < len(running.request.prompt)


@given(
    seed=st.integers(0, 2**30),
    pages=st.integers(1, 14),
    step_tokens=st.sampled_from([1, 3, 50, 64, 200, 5000]),
    most_running=st.integers(1, 8),
    deterministic=st.booleans(),
    cancelling=st.booleans(),
)
@settings(max_examples=150)
def test_everyone_gets_on(
    seed: int, pages: int, step_tokens: int, most_running: int, deterministic: bool, cancelling: bool
) -> None:
    """Nobody waits for ever; at most one stands within its prompt, so at most one picture is half used (B5, B16)."""
    r = random.Random(seed)
    scheduler = Scheduler(
        PagePool(pages), step_tokens=step_tokens, most_running=most_running, deterministic=deterministic
    )
    coming = [request_of(r, str(number), r.randint(1, pages * PAGE)) for number in range(r.randint(1, 15))]
    tokens_left = 60 * sum(request.most_tokens for request in coming) + 100
    answered: dict[str, int] = {}
    cancelled: set[str] = set()
    cache = Cache()
    everyone = [request.id for request in coming]
    while coming or scheduler.running or scheduler.waiting:
        while coming and r.random() < 0.5:
            scheduler.add(coming.pop())
        under_way = [*scheduler.running, *scheduler.waiting]
        if cancelling and under_way and r.random() < 0.05:
            victim = r.choice(under_way)
            cancelled.add(victim.request.id)
            scheduler.remove(victim)
        if not scheduler.running and not scheduler.waiting:
            continue
        pieces = scheduler.schedule()
        check(scheduler, pieces)
        for piece in pieces:
            cache.read(piece)
            tokens_left -= piece.tokens
            scheduler.done(piece)
            running = piece.running
            if running.cached == running.tokens:
                running.answer.append(len(running.answer))
                answered[running.request.id] = len(running.answer)
                if len(running.answer) == running.request.params.max_new_tokens:
                    scheduler.remove(running)
        assert sum(map(half_read, scheduler.running)) <= 1
        assert tokens_left > 0, "the same is read over and over"
    assert scheduler.pool.free == pages
    assert set(everyone) - cancelled <= set(answered)
