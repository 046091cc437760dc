"""Conversations → answers: the public face of the package.

    messages ─ KimiVLProcessor ─→ ids, patches ─ KimiVL.generate ─→ ids ─ StreamDecoder ─→ text

:class:`KimiVL` is the exact model, one request at a time; :class:`kimi_vl.engine.engine.Engine` runs 4-bit weights,
many requests at once. Both are :class:`Answering`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from kimi_vl.chat import Message
from kimi_vl.checkpoint import DTYPES, load_model, save_model
from kimi_vl.config import KimiVLConfig
from kimi_vl.generate import generate
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor, ModelInputs, check_fit
from kimi_vl.sampling import SamplingParams
from kimi_vl.tokenizer import StreamDecoder

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, by kind."""

    text_tokens: int  # of the prompt, without the pictures
    image_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.text_tokens + self.image_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds: reading pictures and words, to the first token after that, and for all later ones."""

    preparing: float
    first_token: float
    generating: float


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class KimiVL:
    """A loaded model that generates.

    >>> model, processor = KimiVL.from_pretrained("nano"), KimiVLProcessor.from_pretrained("nano")
    >>> inputs = processor([{"role": "user", "content": [{"type": "image", "image": "a.png"}, "What is this?"]}])
    >>> processor.tokenizer.decode(model.generate(inputs))
    """

    def __init__(self, model: KimiVLForConditionalGeneration) -> None:
        self.model = model

    @property
    def config(self) -> KimiVLConfig:
        return self.model.config

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "nano",
        *,
        revision: str | None = None,
        offline: bool = False,
        dtype: str | None = None,
        device: str = "cpu",
    ) -> KimiVL:
        """Loads a checkpoint.

        Args:
            name: ``nano``, ``instruct``, ``thinking``, ``thinking-2506``, a folder, or a hub id.
            revision: branch, tag or commit of a hub id.
            offline: use only what is on this machine.
            dtype: ``float32``, ``bfloat16`` or ``float16`` in memory; as stored if not given.

        Raises: ``ValueError`` naming what is missing, left over or unknown.
        """
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        folder = resolve(name, (*CONFIG_FILES, *WEIGHT_FILES), revision=revision, offline=offline)
        return cls(load_model(folder, dtype=None if dtype is None else DTYPES[dtype], device=device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that :meth:`from_pretrained` and the official classes read."""
        save_model(self.model, Path(folder))

    def stream(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> Iterator[int]:
        """Yields the answer's ids as they come, the end token included.

        Raises: ``ValueError`` at once if prompt and answer exceed the context, or the ids are not this model's.
        """
        check_fit(self.config, inputs, params.max_new_tokens)
        return generate(
            self.model,
            inputs.input_ids,
            pixel_values=inputs.pixel_values,
            image_grid_hws=inputs.image_grid_hws,
            end_ids=inputs.end_ids,
            params=params,
        )

    def generate(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> list[int]:
        """The answer's ids, the end token included."""
        return list(self.stream(inputs, params))


class Answering(Protocol):
    """Whoever turns :class:`ModelInputs` into ids: :class:`KimiVL`, or :class:`kimi_vl.engine.engine.Engine`."""

    def stream(self, inputs: ModelInputs, params: SamplingParams) -> Iterator[int]: ...


class Reply:
    """One answer as it grows: iterate for the pieces of text, then read :attr:`answer`."""

    def __init__(
        self,
        model: Answering,
        processor: KimiVLProcessor,
        messages: Sequence[Mapping[str, Any] | Message] | ModelInputs,
        params: SamplingParams = SamplingParams(),
    ) -> None:
        """Reads the pictures, unless that was done, and checks all of the request.

        Raises: ``ValueError`` before the model runs.
        """
        self._inputs = messages if isinstance(messages, ModelInputs) else processor(messages)
        self._ids = model.stream(self._inputs, params)
        self._decoder = StreamDecoder(processor.tokenizer)
        self._prepared = self._first = time.perf_counter()
        self._pieces: list[str] = []
        self._count = 0
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer; what has not been iterated yet is generated first."""
        if self._answer is None:
            for _ in self:
                pass
        assert self._answer is not None
        return self._answer

    def __iter__(self) -> Iterator[str]:
        """The pieces that have not been given yet: an iteration that was left goes on where it was."""
        if self._answer is not None:
            return
        finish: FinishReason = "length"
        for token in self._ids:
            self._count += 1
            self._first = time.perf_counter() if self._count == 1 else self._first
            if token in self._inputs.end_ids:
                finish = "stop"
                break
            if piece := self._decoder.push(token):
                self._pieces.append(piece)
                yield piece
        if rest := self._decoder.flush():
            self._pieces.append(rest)
        self._answer = Answer(
            text="".join(self._pieces),
            finish_reason=finish,
            usage=Usage(self._inputs.text_tokens, self._inputs.image_tokens, self._count),
            timings=Timings(
                preparing=self._inputs.seconds,
                first_token=self._first - self._prepared,
                generating=time.perf_counter() - self._first,
            ),
        )
        if rest:
            yield rest
