"""Many requests on one model: ``step()`` is schedule → run → postprocess.

In: :class:`Request`, ids and pictures ready for the tower. Out: :class:`Progress`, a token at a time. Knows nothing of
words, threads or HTTP; one caller at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from kimi_vl.checkpoint import read_config, read_json
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.backend import backend
from kimi_vl.engine.features import FeatureCache
from kimi_vl.engine.fitting import check_start
from kimi_vl.engine.layout import stored_bytes
from kimi_vl.engine.model import EngineModel, Served
from kimi_vl.engine.pages import PAGE, CacheDtype, PagePool
from kimi_vl.engine.plan import Limits, int4_weights
from kimi_vl.engine.request import Progress, Request, Running, request_of
from kimi_vl.engine.scheduler import Piece, Scheduler
from kimi_vl.engine.store import is_quantized
from kimi_vl.engine.stream import TokenStream
from kimi_vl.engine.threads import torch_threads
from kimi_vl.engine.weights import Segment
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.machine import this_machine
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.processor import ModelInputs, check_fit
from kimi_vl.sampling import Drawn, Sampler, SamplingParams


@dataclass(frozen=True)
class EngineOptions:
    """How much the engine may hold, and do at a time.

    ``context`` is what all requests together have in the cache, in tokens. ``feature_tokens`` is what is kept of
    pictures that were seen, for when they come again: so many vectors of the decoder's width in float32, or those of
    one picture if it has more. No request waits for them. ``speculation`` is how many tokens a step may guess ahead of
    an answer (0: none), which changes its speed only. ``kv_cache_dtype`` "int8" halves the cache.
    """

    context: int = 16384
    step_tokens: int = 512
    most_running: int = 16
    feature_tokens: int = 16384
    deterministic: bool = False
    speculation: int = 8
    kv_cache_dtype: CacheDtype = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("context", "step_tokens", "most_running", "feature_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.kv_cache_dtype not in get_args(CacheDtype):
            names = " or ".join(get_args(CacheDtype))
            raise ValueError(f"kv_cache_dtype must be {names}, not {self.kv_cache_dtype!r}")
        if self.speculation < 0:
            raise ValueError(f"speculation must be 0 (none) or more, not {self.speculation}")


@dataclass(frozen=True, eq=False)
class Shown:
    """What a piece shows of a picture: features [tokens, D] float32, the first for the piece's token ``at``."""

    at: int
    features: Tensor


class Engine:
    """Serves requests until there are none."""

    def __init__(self, model: Served, options: EngineOptions = EngineOptions()) -> None:
        self.model = model
        self.options = options
        self._pool = PagePool(-(-options.context // PAGE))
        self._cache = model.new_cache(self._pool.count, options.kv_cache_dtype)
        self._features = FeatureCache(options.feature_tokens)
        self._listeners: dict[str, Callable[[Drawn], object]] = {}
        self._failures: dict[str, Exception] = {}
        self._scheduler = Scheduler(
            self._pool,
            step_tokens=options.step_tokens,
            most_running=options.most_running,
            deterministic=options.deterministic,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        offline: bool = False,
        threads: int | None = None,
        options: EngineOptions = EngineOptions(),
    ) -> Engine:
        """Opens 4-bit weights (``kimi-vl quantize``) by folder or hub id. ``threads`` are as torch has, if not given.

        Raises: ``ValueError`` naming what is missing, left over or not in 4 bits, or with the numbers if it would
        not fit into memory.
        """
        folder = resolve(name, (*CONFIG_FILES, *WEIGHT_FILES), revision=revision, offline=offline)
        if not is_quantized(folder):
            raise ValueError(f"{name} is not in 4 bits: run kimi-vl quantize {name} DST, and open DST")
        _check_memory(name, folder, options)
        engine = cls(EngineModel.from_folder(folder, backend(threads)), options)
        # what is there now stays: to look through all of it for garbage would cost a part of every step
        gc.freeze()
        return engine

    def forget(self) -> None:
        """Keeps nothing of what was read and seen, as is due when the model's weights have changed.

        Raises: ``ValueError`` while it is at work.
        """
        if self.busy:
            raise ValueError("the engine is at work: let it end, or cancel its requests, before it forgets")
        self._pool.forget()
        self._features.forget()

    @property
    def config(self) -> KimiVLConfig:
        return self.model.config

    def check(self, request: Request) -> None:
        """Raises: ``ValueError`` with the numbers if it can never be answered here. Any thread may ask."""
        self._scheduler.check(request)

    def add(self, request: Request) -> None:
        """Queues a request.

        Raises: ``ValueError`` with the numbers if it can never be answered here.
        """
        self._scheduler.add(request)

    def cancel(self, request_id: str) -> None:
        """Ends a request and frees what it holds; one that has ended already stays so."""
        self._listeners.pop(request_id, None)
        self._failures.pop(request_id, None)
        running = self._find(request_id)
        if running is not None:
            self._scheduler.remove(running)

    def take_failures(self) -> dict[str, Exception]:
        """Requests that failed by themselves since this was last asked, and at what. The engine has forgotten them."""
        failures, self._failures = self._failures, {}
        return failures

    def failure(self, request_id: str) -> Exception | None:
        """What one request failed at, if it did; it is told once."""
        return self._failures.pop(request_id, None)

    def holds(self, request_id: str) -> bool:
        """Whether a request waits or is under way."""
        return self._find(request_id) is not None

    @property
    def request_ids(self) -> list[str]:
        """Of all that wait or are under way."""
        return [running.request.id for running in (*self._scheduler.running, *self._scheduler.waiting)]

    def _find(self, request_id: str) -> Running | None:
        held = (*self._scheduler.running, *self._scheduler.waiting)
        return next((running for running in held if running.request.id == request_id), None)

    @property
    def running(self) -> int:
        """Requests that it works on."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._scheduler.waiting)

    @property
    def context(self) -> int:
        """Tokens of all requests that the cache has room for."""
        return self._pool.count * PAGE

    @property
    def pages(self) -> int:
        """Of the cache, 64 tokens each."""
        return self._pool.count

    @property
    def pages_free(self) -> int:
        """Pages that no request holds."""
        return self._pool.free

    @property
    def busy(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting)

    def step(self) -> list[Progress]:
        """Reads some tokens of some requests, and draws the next one of those that are so far.

        What can only be one request's fault, its pictures or how it is drawn, fails that one (:meth:`failure`).
        """
        pieces = self._scheduler.schedule()
        if not pieces:
            assert not self.busy, "requests wait, but none can go on"
            return []
        pieces = self._scheduler.with_guesses(pieces, self.options.speculation)
        with torch_threads(self.model.torch_threads):
            seen = [(piece, shown) for piece in pieces if (shown := self._see(piece)) is not None]
            if not seen:
                return []
            pieces = [piece for piece, _ in seen]
            rows = self._run(pieces, self._embedded(seen))
            progress = self._postprocess(pieces, rows)
        for p in progress:
            if p.request.id in self._listeners:
                self._listeners[p.request.id](p.drawn)
            if p.finish is not None:
                self._listeners.pop(p.request.id, None)
        return progress

    def listen(self, request_id: str, tell: Callable[[Drawn], object]) -> None:
        """Has the tokens of one request told to ``tell`` too, until its end."""
        self._listeners[request_id] = tell

    def stream(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> TokenStream:
        """One answer's tokens as they come, the end token included. Whoever closes it, or lets it go, cancels it.

        Raises: ``ValueError`` at once if it can never be answered here.
        """
        request = self.request(inputs, params)
        self.add(request)
        return TokenStream(self, request.id)

    def request(self, inputs: ModelInputs, params: SamplingParams) -> Request:
        """Raises: ``ValueError`` if the model could not answer it."""
        check_fit(self.config, inputs, params.max_new_tokens)
        return request_of(
            inputs,
            params,
            placeholder=self.config.media_placeholder_token_id,
            merge_kernel_size=self.config.vision_config.merge_kernel_size,
        )

    def features(self, request: Request) -> list[Tensor]:
        """What the model sees of each of a request's pictures, [tokens, D], at no cost if it has just been asked."""
        return [self._features.get(picture, self.model) for picture in request.pictures]

    def _see(self, piece: Piece) -> list[Shown] | None:
        """``None`` if its pictures cannot be seen: then its request has failed, and the others go on."""
        try:
            return list(self._shown(piece))
        except Exception as error:
            self._fail(piece.running, error)
            return None

    def _shown(self, piece: Piece) -> Iterator[Shown]:
        for picture in piece.running.request.pictures:
            span = picture.span
            first, last = max(span.start, piece.start), min(span.start + span.tokens, piece.start + piece.tokens)
            if first < last:
                features = self._features.get(picture, self.model)
                if len(features) != span.tokens:
                    raise ValueError(f"a picture has {len(features)} features for {span.tokens} placeholders")
                yield Shown(first - piece.start, features[first - span.start : last - span.start])

    def _fail(self, running: Running, error: Exception) -> None:
        self._failures[running.request.id] = error
        self._listeners.pop(running.request.id, None)
        self._scheduler.remove(running)

    def _embedded(self, seen: list[tuple[Piece, list[Shown]]]) -> Tensor:
        """[tokens, D] of all pieces, with the pictures' features where their placeholders stand."""
        ids: list[int] = []
        places: list[tuple[int, Tensor]] = []
        for piece, shown in seen:
            places += [(len(ids) + each.at, each.features) for each in shown]
            ids += piece.running.ids[piece.start : piece.start + piece.tokens]
            ids += piece.guessed
        x = self.model.embed(torch.tensor(ids)).clone()
        for at, features in places:
            x[at : at + len(features)] = features
        return x

    def _run(self, pieces: list[Piece], x: Tensor) -> Tensor:
        """Logits [n, V] of the rows that a token follows from: a piece's last token, and its guesses."""
        segments = [Segment(tuple(p.running.pages), p.start, p.tokens + len(p.guessed), p.is_prompt) for p in pieces]
        x = self.model.run(x, segments, self._cache)
        wanted: list[int] = []
        end = 0
        for piece, segment in zip(pieces, segments, strict=True):
            end += segment.tokens
            if piece.is_last:
                wanted += range(end - 1 - len(piece.guessed), end)
        return self.model.logits(x[wanted].contiguous())

    def _postprocess(self, pieces: list[Piece], logits: Tensor) -> list[Progress]:
        progress = []
        are_last = [piece.is_last for piece in pieces]  # until the next token is there
        together = self._draw_together(pieces, logits)
        rows = iter(logits)
        for piece, is_last in zip(pieces, are_last, strict=True):
            running = piece.running
            if not is_last:
                self._scheduler.done(piece)
                continue
            own = [next(rows) for _ in range(1 + len(piece.guessed))]
            try:
                drawn = together.get(piece.running.request.id) or self._draw(piece, own)
            except Exception as error:
                self._fail(running, error)
                continue
            # the last token that was drawn has not been read, or was guessed wrong
            self._scheduler.done(piece, right=len(drawn) - 1)
            if drawn[-1].finish is not None:
                self._scheduler.remove(running)
            progress += [Progress(running.request, token, running.reused) for token in drawn]
        return progress

    def _draw_together(self, pieces: list[Piece], logits: Tensor) -> dict[str, list[Drawn]]:
        """The next tokens of all that need a temperature and no more, by request."""
        rows, plain, row = list[int](), list[Running](), 0
        for piece in pieces:
            if piece.is_last:
                if piece.running.sampler.is_plain and not piece.guessed:
                    rows.append(row)
                    plain.append(piece.running)
                row += 1 + len(piece.guessed)
        # Logits that are no numbers are their own request's fault alone.
        if not plain or not bool((of_plain := logits[rows]).amax(-1).isfinite().all()):
            return {}
        drawn = Sampler.draw_together([running.sampler for running in plain], of_plain)
        for running, token in zip(plain, drawn, strict=True):
            running.guesses.add([token.id])
        return {running.request.id: [token] for running, token in zip(plain, drawn, strict=True)}

    def _draw(self, piece: Piece, rows: list[Tensor]) -> list[Drawn]:
        """The next token, and those after it as long as the guesses were right."""
        running = piece.running
        drawn: list[Drawn] = []
        for row, guess in zip_longest(rows, piece.guessed):
            drawn.append(running.sampler.draw(row))
            if drawn[-1].finish is not None or drawn[-1].id != guess:
                break
        running.guesses.add([token.id for token in drawn])
        return drawn


def _check_memory(name: str | Path, folder: Path, options: EngineOptions) -> None:
    config, machine = read_config(folder), this_machine()
    path = folder / "preprocessor_config.json"
    settings = ImageProcessorConfig.from_dict(read_json(path)) if path.exists() else ImageProcessorConfig()
    weights = int4_weights(stored_bytes(folder, config))
    limits = Limits(
        options.context, options.step_tokens, options.most_running, options.feature_tokens, options.kv_cache_dtype
    )
    check_start(name, config, weights, limits, settings, machine)
