"""How fast the engine is on this machine: opening, memory, prompts, answers, many at once, pictures.

In: a model in 4 bits and a :class:`Plan`. Out: each :class:`Figure` as soon as it is measured. Everything goes
through ``Engine.add`` and ``step``, with random tokens. A depth is not read, which would take minutes: random latents
are written into the cache and named as the beginning of the prompts to come. What attention costs does not depend on
what the latents hold.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.pages import PAGE, page_keys
from kimi_vl.engine.quiet import quietly
from kimi_vl.patches import PatchGrid
from kimi_vl.processor import ModelInputs
from kimi_vl.sampling import SamplingParams

_TOGETHER_PROMPT = 128  # tokens of each of several requests at once
_QUESTION = 32  # tokens after a picture
_STATUS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file-backed"}


@dataclass(frozen=True)
class Plan:
    """What is measured. Depths are tokens before a prompt or answer, in whole pages; sizes are of pictures.

    Raises: ``ValueError`` naming what is wrong.
    """

    depths: tuple[int, ...] = (0, 4096)
    prompt: int = 512
    answer: int = 32
    requests: int = 8
    pictures: tuple[PatchGrid, ...] = ()
    repeat: int = 3
    patience: float = 0.0  # seconds that each value may wait until nobody else uses the cores

    def __post_init__(self) -> None:
        for name in ("prompt", "answer", "requests", "repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.patience < math.inf:
            raise ValueError(f"patience must be 0 seconds or more, not {self.patience}")
        for depth in self.depths:
            if depth < 0 or depth % PAGE:
                raise ValueError(f"a depth must be a multiple of {PAGE} tokens, which is a page, not {depth}")

    @property
    def together_answer(self) -> int:
        """Tokens that each of several requests at once may give: until the last begins, and while all are timed."""
        return self.answer + self.requests * _TOGETHER_PROMPT

    @property
    def context(self) -> int:
        """Tokens that the cache must hold at most."""
        alone = max(self.depths, default=0) + max(self.prompt, self.answer)
        together = self.requests * (_TOGETHER_PROMPT + self.together_answer + PAGE)
        pictures = max((picture.tokens for picture in self.pictures), default=0) + 2 * _QUESTION
        return max(alone, together, pictures) + 2 * PAGE

    @property
    def longest(self) -> int:
        """Tokens of its longest request."""
        alone = max(self.depths, default=0) + self.prompt + self.answer
        return max(alone, *(picture.tokens + 2 * _QUESTION for picture in self.pictures), 0)


@dataclass(frozen=True)
class Figure:
    """One thing measured, once or several times; ``at`` is a depth, a number of requests or a picture's size.

    ``others`` is the share of all cores, 0 … 1, that other processes used during each.
    """

    name: str
    at: str
    unit: str
    values: tuple[float, ...]
    others: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def figures(
    name: str | Path, plan: Plan, *, revision: str | None = None, offline: bool = False, threads: int | None = None
) -> Iterator[Figure]:
    """Opens the engine, as ``Engine.from_pretrained`` does, and measures.

    Raises: ``ValueError`` if the model is not in 4 bits.
    """
    begun = time.perf_counter() - _age()
    # answers of random tokens repeat themselves, and guessing ahead would make much of that
    options = EngineOptions(context=plan.context, most_running=plan.requests, speculation=0)
    engine = Engine.from_pretrained(name, revision=revision, offline=offline, threads=threads, options=options)
    bench = _Bench(engine, plan)
    bench.first_token(bench.ids(1))
    yield Figure("ready", "", "s", (time.perf_counter() - begun,))
    bench.first_token(bench.ids(plan.prompt))  # what is done only once is not counted below
    for depth in plan.depths:
        yield from bench.at_depth(depth)
    yield bench.together()
    for picture in plan.pictures:
        yield from bench.picture(picture)


class _Bench:
    def __init__(self, engine: Engine, plan: Plan) -> None:
        self._engine = engine
        self._plan = plan
        self._random = torch.Generator().manual_seed(0)
        self._beginning = self.ids(max(plan.depths, default=0))

    def ids(self, count: int) -> list[int]:
        """Ordinary ones: those from the first special one on are left out."""
        limit = self._engine.config.text_config.bos_token_id
        return torch.randint(limit, (count,), generator=self._random).tolist()

    def at_depth(self, depth: int) -> Iterator[Figure]:
        self._pretend_read(depth)
        plan, beginning = self._plan, self._beginning[:depth]
        yield self._repeated(
            "prefill", depth, lambda: plan.prompt / self.first_token([*beginning, *self.ids(plan.prompt)], depth)
        )
        yield self._repeated("decode", depth, lambda: plan.answer / self._answer([*beginning, *self.ids(1)], depth))
        for name, size in _resident().items():
            yield Figure(name, f"{depth}", "bytes", (size,))

    def together(self) -> Figure:
        """Their answers only, all under way."""
        return self._repeated("decode together", self._plan.requests, self._rate_together)

    def _rate_together(self) -> float:
        """Tokens a second of all of them."""
        plan, engine = self._plan, self._engine
        requests = [self._add(self.ids(_TOGETHER_PROMPT), plan.together_answer) for _ in range(plan.requests)]
        waiting = set(requests)
        while waiting:
            waiting -= {progress.request.id for progress in engine.step()}
        begun = time.perf_counter()
        tokens = sum(len(engine.step()) for _ in range(plan.answer))
        seconds = time.perf_counter() - begun
        for request in requests:
            engine.cancel(request)
        return tokens / seconds

    def picture(self, grid: PatchGrid) -> Iterator[Figure]:
        """Its encoder alone, then the time to the first token of two questions about a picture."""
        width, height = grid.padded_size
        at = f"{width}x{height}"
        yield self._repeated("picture encoder", at, lambda: self._encode(self._pixels(grid), grid), "s")
        yield self._repeated("first question", at, lambda: self._ask(self._new_picture(grid), grid), "s")
        yield self._repeated("second question", at, lambda: self._ask(self._last_picture, grid), "s")

    def _pixels(self, grid: PatchGrid) -> torch.Tensor:
        patch = self._engine.config.vision_config.patch_size
        return torch.rand(grid.h * grid.w, 3, patch, patch, generator=self._random) * 2 - 1

    def _new_picture(self, grid: PatchGrid) -> tuple[list[int], torch.Tensor]:
        """What a conversation begins with, and its picture."""
        self._last_picture = self.ids(_QUESTION), self._pixels(grid)
        return self._last_picture

    def _encode(self, pixels: torch.Tensor, grid: PatchGrid) -> float:
        begun = time.perf_counter()
        self._engine.model.image_features(pixels, (grid.h, grid.w))
        return time.perf_counter() - begun

    def first_token(self, prompt: list[int], reused: int = 0) -> float:
        """Seconds until it comes."""
        begun = time.perf_counter()
        self._add(prompt, 1)
        self._until_token(reused)
        return time.perf_counter() - begun

    def _answer(self, prompt: list[int], reused: int) -> float:
        """Seconds for an answer, from its first token on."""
        self._add(prompt, self._plan.answer + 1)
        self._until_token(reused)
        begun = time.perf_counter()
        while self._engine.busy:
            self._engine.step()
        return time.perf_counter() - begun

    def _ask(self, conversation: tuple[list[int], torch.Tensor], grid: PatchGrid) -> float:
        """Seconds to the first token of an answer to a new question."""
        beginning, pixels = conversation
        placeholder = self._engine.config.media_placeholder_token_id
        ids = [*beginning, *([placeholder] * grid.tokens), *self.ids(_QUESTION)]
        begun = time.perf_counter()
        self._add(ids, 1, pixels, grid)
        while self._engine.busy:
            self._engine.step()
        return time.perf_counter() - begun

    def _add(
        self, ids: list[int], answer: int, pixels: torch.Tensor | None = None, grid: PatchGrid | None = None
    ) -> str:
        """Queues a request that nothing ends before its time. Returns its id."""
        inputs = ModelInputs(
            input_ids=torch.tensor(ids),
            answer_mask=torch.zeros(len(ids), dtype=torch.bool),
            pixel_values=pixels,
            image_grid_hws=torch.tensor([] if grid is None else [[grid.h, grid.w]]).long().reshape(-1, 2),
            text_tokens=len(ids) - (0 if grid is None else grid.tokens),
            image_tokens=0 if grid is None else grid.tokens,
            end_ids=(),
            vocab_size=self._engine.config.text_config.vocab_size,
            seconds=0.0,
        )
        request = self._engine.request(inputs, SamplingParams(max_new_tokens=answer))
        self._engine.add(request)
        return request.id

    def _until_token(self, reused: int) -> None:
        progress = self._engine.step()
        while not progress:
            progress = self._engine.step()
        assert progress[0].reused == reused, "the depth is not what was asked for"

    def _pretend_read(self, depth: int) -> None:
        """Puts random latents where the beginning's would be, if it had been read."""
        pool, cache = self._engine._pool, self._engine._cache
        keys = page_keys(self._beginning[:depth], ())
        pages = pool.known(keys)
        pool.hold(pages)
        for key in keys[len(pages) :]:
            page = pool.take()
            assert page is not None, "the cache is too small"
            pool.name(page, key)
            cache[:, page].normal_(generator=self._random)
            pages.append(page)
        pool.release(pages)

    def _repeated(self, name: str, at: int | str, measure: Callable[[], float], unit: str = "tokens/s") -> Figure:
        pairs = [quietly(measure, self._plan.patience) for _ in range(self._plan.repeat)]
        values, others = zip(*pairs, strict=True)
        return Figure(name, f"{at}", unit, values, others)


def _age() -> float:
    """Seconds since this process began, where Linux tells; else 0, and loading Python is not counted."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError):
        return 0.0


def _resident() -> dict[str, float]:
    """Bytes of memory that this process has, and of them what is its own and what files are mapped to; Linux only."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    sizes = dict(line.split(":") for line in lines if line.startswith(tuple(_STATUS)))
    return {name: int(sizes[field].split()[0]) * 1024.0 for field, name in _STATUS.items()}
