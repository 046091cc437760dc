"""Conversations → answers: the public face of the package.

    messages ─ KimiVLProcessor ─→ ids, patches ─ KimiVL.stream ─→ tokens ─ Transcript ─→ text

:class:`KimiVL` is the exact model, one request at a time; :class:`kimi_vl.engine.engine.Engine` runs 4-bit weights,
many requests at once. Both are :class:`Answering`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kimi_vl.chat import Message
from kimi_vl.checkpoint import DTYPES, load_model, save_model
from kimi_vl.config import KimiVLConfig
from kimi_vl.generate import generate
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor, ModelInputs, check_fit
from kimi_vl.sampling import Drawn, FinishReason, Sampler, SamplingParams
from kimi_vl.transcript import Transcript


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
    """What was said.

    ``stop_string`` is the one that ended the text, which ends before it. ``logprobs`` are there if they were asked for:
    every token that was drawn, as many as ``usage.completion_tokens``.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    stop_string: str | None = None
    logprobs: tuple[Drawn, ...] | None = None


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

    def stream(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> TokenStream:
        """The answer's tokens as they come, the end token included.

        Raises: ``ValueError`` at once if prompt and answer exceed the context, or the ids are not this model's.
        """
        check_fit(self.config, inputs, params.max_new_tokens)
        params.check(inputs.vocab_size)
        return generate(
            self.model,
            inputs.input_ids,
            pixel_values=inputs.pixel_values,
            image_grid_hws=inputs.image_grid_hws,
            sampler=Sampler(inputs.input_ids.tolist(), inputs.end_ids, params),
        )

    def generate(self, inputs: ModelInputs, params: SamplingParams = SamplingParams()) -> list[int]:
        """The answer's ids, the end token included; stop strings are not looked for."""
        return [token.id for token in self.stream(inputs, params)]


class TokenStream(Protocol):
    """One answer's tokens as they come. Closed early, it costs no more."""

    def __iter__(self) -> Iterator[Drawn]: ...

    def __next__(self) -> Drawn: ...

    def close(self) -> None: ...


class Answering(Protocol):
    """Whoever turns :class:`ModelInputs` into tokens: :class:`KimiVL`, or :class:`kimi_vl.engine.engine.Engine`."""

    def stream(self, inputs: ModelInputs, params: SamplingParams) -> TokenStream: ...


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
        self._stream = model.stream(self._inputs, params)
        self._transcript = Transcript(processor.tokenizer, params)
        self._prepared = self._first = time.perf_counter()
        self._answer: Answer | None = None
        self._wants_logprobs = params.logprobs is not None

    @property
    def tokens(self) -> Sequence[Drawn]:
        """All that were drawn so far, with their log-probabilities if those were asked for."""
        return self._transcript.tokens

    @property
    def answer(self) -> Answer:
        """The whole answer; what has not been iterated yet is generated first."""
        if self._answer is None:
            for _ in self:
                pass
        assert self._answer is not None
        return self._answer

    def end(self, stop_string: str) -> None:
        """Ends it where it is, for what was found in it; nothing more is generated."""
        if self._answer is None:
            self._stream.close()
            self._answer = replace(self._finished("stop"), stop_string=stop_string)

    def __iter__(self) -> Iterator[str]:
        """The pieces that have not been given yet: an iteration that was left goes on where it was."""
        while self._answer is None:
            token = next(self._stream, None)
            if token is None:
                raise RuntimeError("the request was cancelled before its answer was whole")
            if not self._transcript.tokens:
                self._first = time.perf_counter()
            piece = self._transcript.push(token)
            if (reason := self._transcript.finish_reason) is not None:
                self._stream.close()
                self._answer = self._finished(reason)
            if piece:
                yield piece

    def _finished(self, reason: FinishReason) -> Answer:
        return Answer(
            text=self._transcript.text,
            finish_reason=reason,
            usage=Usage(self._inputs.text_tokens, self._inputs.image_tokens, len(self._transcript.tokens)),
            timings=Timings(
                preparing=self._inputs.seconds,
                first_token=self._first - self._prepared,
                generating=time.perf_counter() - self._first,
            ),
            stop_string=self._transcript.stop_string,
            logprobs=tuple(self.tokens) if self._wants_logprobs else None,
        )


def replies(
    model: Answering,
    processor: KimiVLProcessor,
    messages: Sequence[Mapping[str, Any] | Message] | ModelInputs,
    params: SamplingParams = SamplingParams(),
) -> list[Reply]:
    """``params.n`` answers to one prompt. An engine reads it once and gives them side by side, whichever is iterated.

    Raises: ``ValueError`` before the model runs.
    """
    inputs = messages if isinstance(messages, ModelInputs) else processor(messages)
    return [Reply(model, processor, inputs, each) for each in params.each()]
