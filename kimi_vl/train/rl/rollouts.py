"""The policy's own answers: problems through our engine, over the very weights that learn.

In: conversations with their pictures, and how answers are drawn. Out: :class:`Rollout`, whose ids, pictures' features
and log-probabilities are those that the engine had. Nothing of the model is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_vl.chat import Message
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.exact import ExactModel
from kimi_vl.engine.request import Request
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.sampling import Drawn, SamplingParams

_STEP_TOKENS = 4096
_MOST_RUNNING = 512


@dataclass(frozen=True, eq=False)
class Answer:
    ids: Tensor  # [n] int64, with the end token if it came to its end
    logprobs: Tensor  # [n] float32, of each when it was drawn
    text: str
    ended: bool


@dataclass(frozen=True, eq=False)
class Rollout:
    """One problem and its answers."""

    prompt: Tensor  # [T] int64
    features: Tensor | None  # [image tokens, D]
    answers: list[Answer]


class Rollouts:
    """``cache`` is how many tokens all answers under way may have together; more of them wait."""

    def __init__(self, model: KimiVLForConditionalGeneration, processor: KimiVLProcessor, *, cache: int) -> None:
        self._processor = processor
        # To guess ahead pays where weights are read from memory for each token, not where hundreds share them.
        options = EngineOptions(
            context=cache,
            step_tokens=_STEP_TOKENS,
            most_running=_MOST_RUNNING,
            feature_tokens=cache,
            deterministic=True,
            speculation=0,
        )
        self._engine = Engine(ExactModel(model), options)

    def answer(self, conversations: Sequence[Sequence[Message]], params: Sequence[SamplingParams]) -> list[Rollout]:
        """``n`` answers to each conversation, by its own parameters. The same weights give the same answers.

        Raises: ``ValueError`` for what the model cannot be asked.
        """
        self._engine.forget()
        asked: list[list[Request]] = []
        prompts: list[Tensor] = []
        for messages, of_all in zip(conversations, params, strict=True):
            inputs = self._processor(messages)
            prompts.append(inputs.input_ids)
            asked.append([self._engine.request(inputs, each) for each in of_all.each()])
        heard: dict[str, list[Drawn]] = {request.id: [] for requests in asked for request in requests}
        for requests in asked:
            for request in requests:
                self._engine.add(request)
        while self._engine.busy:
            for progress in self._engine.step():
                heard[progress.request.id].append(progress.drawn)
            for error in self._engine.take_failures().values():
                raise error
        return [
            Rollout(prompt, self._features(requests[0]), [self._answer(heard[request.id]) for request in requests])
            for prompt, requests in zip(prompts, asked, strict=True)
        ]

    def _features(self, request: Request) -> Tensor | None:
        seen = self._engine.features(request)
        return torch.cat(seen) if seen else None

    def _answer(self, drawn: Sequence[Drawn]) -> Answer:
        ids = [token.id for token in drawn]
        logprobs = [0.0 if token.logprob is None else token.logprob for token in drawn]
        text = self._processor.tokenizer.decode(ids, skip_special=True)
        return Answer(torch.tensor(ids), torch.tensor(logprobs), text, drawn[-1].finish == "stop")
