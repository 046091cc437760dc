"""Many requests on one model: ``step()`` is schedule → run → postprocess.

In: :class:`Request`, ids and pictures ready for the tower. Out: :class:`Progress`, a token at a time. Knows nothing of
words, threads or HTTP; one caller at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kimi_vl.checkpoint import read_config, read_json
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.backend import backend
from kimi_vl.engine.fitting import check_start
from kimi_vl.engine.layout import stored_bytes
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE, PagePool
from kimi_vl.engine.plan import Limits, int4_weights
from kimi_vl.engine.request import FinishReason, Picture, Progress, Request, request_of
from kimi_vl.engine.scheduler import Piece, Scheduler
from kimi_vl.engine.store import is_quantized
from kimi_vl.engine.weights import Segment
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.machine import this_machine
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.processor import ModelInputs, check_fit
from kimi_vl.sampling import SamplingParams, draw


@dataclass(frozen=True)
class EngineOptions:
    """How much the engine may hold, and do at a time.

    ``context`` is what all requests together have in the cache, in tokens; ``feature_tokens`` what is kept of
    pictures that were seen, for when they come again.
    """

    context: int = 16384
    step_tokens: int = 512
    most_running: int = 16
    feature_tokens: int = 16384
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("context", "step_tokens", "most_running", "feature_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class Engine:
    """Serves requests until there are none."""

    def __init__(self, model: EngineModel, options: EngineOptions = EngineOptions()) -> None:
        self.model = model
        self.options = options
        self._pool = PagePool(-(-options.context // PAGE))
        self._cache = model.new_cache(self._pool.count)
        self._features = FeatureCache(options.feature_tokens)
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
        return cls(EngineModel.from_folder(folder, backend(threads)), options)

    @property
    def config(self) -> KimiVLConfig:
        return self.model.config

    def add(self, request: Request) -> None:
        """Queues a request.

        Raises: ``ValueError`` with the numbers if it can never be answered here.
        """
        self._scheduler.add(request)

    def cancel(self, request_id: str) -> None:
        """Ends a request and frees what it holds; one that has ended already stays so."""
        for running in (*self._scheduler.running, *self._scheduler.waiting):
            if running.request.id == request_id:
                self._scheduler.remove(running)
                return

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
        pieces = self._scheduler.schedule()
        if not pieces:
            return []
        rows = self._run(pieces)
        return self._postprocess(pieces, rows)

    def stream(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> Iterator[int]:
        """One answer's ids as they come, the end token included. Whoever stops asking cancels it.

        Raises: ``ValueError`` at once if it can never be answered here.
        """
        check_fit(self.config, inputs, params.max_new_tokens)
        request = self.request(inputs, params)
        self.add(request)
        return self._until_done(request)

    def request(self, inputs: ModelInputs, params: SamplingParams) -> Request:
        return request_of(
            inputs,
            params,
            placeholder=self.config.media_placeholder_token_id,
            merge_kernel_size=self.config.vision_config.merge_kernel_size,
        )

    def _until_done(self, request: Request) -> Iterator[int]:
        try:
            while True:
                for progress in self.step():
                    if progress.request is request:
                        yield progress.drawn.id
                        if progress.finish is not None:
                            return
        finally:
            self.cancel(request.id)

    def _run(self, pieces: list[Piece]) -> Tensor:
        """The last row of each piece that a token follows from: [n, V] logits."""
        x = torch.cat([self._embedded(piece) for piece in pieces])
        segments = [Segment(tuple(p.running.pages), p.start, p.tokens, p.is_prompt) for p in pieces]
        x = self.model.run(x, segments, self._cache)
        ends = torch.tensor([piece.tokens for piece in pieces]).cumsum(0) - 1
        wanted = torch.tensor([piece.is_last for piece in pieces])
        return self.model.logits(x[ends[wanted]].contiguous())

    def _embedded(self, piece: Piece) -> Tensor:
        """[tokens, D], with the pictures' features where their placeholders stand."""
        ids = piece.running.ids[piece.start : piece.start + piece.tokens]
        x = self.model.embed(torch.tensor(ids)).clone()
        for picture in piece.running.request.pictures:
            span = picture.span
            first, last = max(span.start, piece.start), min(span.start + span.tokens, piece.start + piece.tokens)
            if first < last:
                features = self._features.get(picture, self.model)
                x[first - piece.start : last - piece.start] = features[first - span.start : last - span.start]
        return x

    def _postprocess(self, pieces: list[Piece], logits: Tensor) -> list[Progress]:
        progress = []
        rows = iter(logits)
        for piece in pieces:
            is_last = piece.is_last
            self._scheduler.done(piece)
            if not is_last:
                continue
            running, request = piece.running, piece.running.request
            drawn = draw(next(rows), request.prompt, running.answer, request.params, request.seed)
            running.answer.append(drawn.id)
            finish: FinishReason | None = None
            if drawn.id in request.end_ids:
                finish = "stop"
            elif len(running.answer) == request.params.max_new_tokens:
                finish = "length"
            if finish is not None:
                self._scheduler.remove(running)
            progress.append(Progress(request, drawn, finish, running.reused))
        return progress


def _check_memory(name: str | Path, folder: Path, options: EngineOptions) -> None:
    config, machine = read_config(folder), this_machine()
    path = folder / "preprocessor_config.json"
    settings = ImageProcessorConfig.from_dict(read_json(path)) if path.exists() else ImageProcessorConfig()
    weights = int4_weights(config, stored_bytes(folder, config), machine)
    limits = Limits(options.context, options.step_tokens, options.most_running, options.feature_tokens)
    check_start(name, config, weights, limits, settings, machine)


class FeatureCache:
    """Pictures' features by digest, up to so many tokens, the longest unused given up first."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def tokens(self) -> int:
        return sum(len(features) for features in self._kept.values())

    def get(self, picture: Picture, model: EngineModel) -> Tensor:
        """[tokens, D] float32. The last one asked for is kept however large it is."""
        digest = picture.span.digest
        if digest not in self._kept:
            self._kept[digest] = model.image_features(picture.pixel_values, picture.grid)
        self._kept.move_to_end(digest)
        while self.tokens > self.most_tokens and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[digest]
