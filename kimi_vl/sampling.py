"""Logits to the next token, as a request wants it.

In: a row of logits [V] float32 and what was said so far. Out: one id, and log-probabilities if asked for. A draw
depends on the request's seed and the number of the token alone, so one that is made again comes out the same.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kimi_vl.grammar import Grammar
    from kimi_vl.thinking import Thinking

# "error": the grammar could not be followed further
FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is drawn, under the names that OpenAI's interface and vLLM use.

    ``temperature`` 0 takes the likeliest token. Penalties: ``repetition_penalty`` divides positive and multiplies
    negative logits of all tokens seen in prompt or answer (arXiv 1909.05858); ``presence_penalty`` and
    ``frequency_penalty`` are taken off once and as often as a token stands in the answer. ``min_p`` keeps tokens of at
    least that share of the likeliest one's probability (arXiv 2407.01082). ``logprobs`` is how many of the likeliest
    tokens are reported beside the one drawn, 0 to 20; without it there are none. An answer ends before the first of
    the ``stop`` strings. ``n`` is how many answers are given, each by a seed of its own (:meth:`each`). ``grammar`` is
    what the answer must match (:class:`kimi_vl.grammar.Grammar`); it ends where nothing more can follow. Of a model
    that thinks first, it may be how it does (:class:`kimi_vl.thinking.Thinking`).

    Raises: ``ValueError`` naming the field.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    grammar: Grammar | Thinking | None = None

    def __post_init__(self) -> None:
        def demand(holds: bool, name: str, what: str) -> None:
            if not holds:
                raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")

        demand(self.max_new_tokens >= 1, "max_new_tokens", "at least 1")
        demand(0.0 <= self.temperature < math.inf, "temperature", "0 or more")
        demand(0.0 < self.top_p <= 1.0, "top_p", "above 0 and at most 1")
        demand(self.top_k >= 0, "top_k", "0 (all) or more")
        demand(0.0 <= self.min_p <= 1.0, "min_p", "from 0 to 1")
        demand(0.01 <= self.repetition_penalty <= 100.0, "repetition_penalty", "from 0.01 to 100")
        for name in ("presence_penalty", "frequency_penalty"):
            demand(-2.0 <= getattr(self, name) <= 2.0, name, "from -2 to 2")
        demand(all(-100 <= bias <= 100 for bias in self.logit_bias.values()), "logit_bias", "from -100 to 100 each")
        demand(self.logprobs is None or 0 <= self.logprobs <= 20, "logprobs", "from 0 to 20")
        demand(self.seed is None or 0 <= self.seed < 2**63, "seed", "from 0 to 2^63 - 1")
        demand(1 <= self.n <= 128, "n", "from 1 to 128")
        stop_is_good = not isinstance(self.stop, str) and all(self.stop) and len(self.stop) <= 16
        demand(stop_is_good, "stop", "at most 16 strings, none of them empty")

    @property
    def is_plain(self) -> bool:
        """Whether a temperature is all there is to a draw."""
        cut = self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0
        changed = self.logit_bias or self.repetition_penalty != 1.0 or self.presence_penalty or self.frequency_penalty
        return self.temperature > 0.0 and not (cut or changed or self.logprobs) and self.grammar is None

    def each(self) -> list[SamplingParams]:
        """The parameters of each of the ``n`` answers, with its seed. The first has the seed of all."""
        seed = new_seed() if self.seed is None else self.seed
        return [replace(self, n=1, seed=seed if i == 0 else _mixed(f"{seed}, answer {i}")) for i in range(self.n)]

    def check(self, vocab_size: int) -> None:
        """Raises: ``ValueError`` if one answer of a model with so many ids cannot be drawn by these."""
        if self.n != 1:
            raise ValueError(
                f"n is {self.n}, but this gives one answer: use kimi_vl.replies, or each of SamplingParams"
            )
        strangers = [i for i in self.logit_bias if not 0 <= i < vocab_size]
        if strangers:
            raise ValueError(f"logit_bias names id {strangers[0]}, outside the vocabulary, 0 to {vocab_size - 1}")
        if self.grammar is not None and self.grammar.vocab_size != vocab_size:
            raise ValueError(
                f"the grammar was made for {self.grammar.vocab_size} ids, the model has {vocab_size}: "
                "make it with the tokenizer of the same checkpoint"
            )


@dataclass(frozen=True)
class TokenLogprob:
    id: int
    logprob: float


@dataclass(frozen=True)
class Drawn:
    """One token; with log-probabilities if they were asked for, and why it is the last if it is.

    Log-probabilities are the model's own, before bias, penalties, grammar, temperature and cuts, as vLLM gives them
    (``raw_logprobs``): they say what the model thought, whatever it was then made to say.
    """

    id: int
    logprob: float | None = None
    likeliest: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None


def new_seed() -> int:
    """For a request that names none."""
    return secrets.randbelow(2**63)


def _mixed(text: str) -> int:
    """63 bits that depend on all of ``text``."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def penalised(logits: Tensor, prompt: Sequence[int], answer: Sequence[int], params: SamplingParams) -> Tensor:
    """Logits [V] after bias and penalties; the same tensor if there are none."""
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias))
        logits = logits.index_add(0, ids, torch.tensor(list(params.logit_bias.values())))
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *answer}))
        values = logits[seen]
        factor = params.repetition_penalty
        logits = logits.index_copy(0, seen, torch.where(values > 0, values / factor, values * factor))
    if answer and (params.presence_penalty or params.frequency_penalty):
        ids, counts = torch.tensor(answer).unique(return_counts=True)
        logits = logits.index_add(0, ids, -(params.presence_penalty + params.frequency_penalty * counts))
    return logits


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """Logits [V] → probabilities [V] float32 after temperature (above 0), top-k, top-p and min-p, in this order.

    Top-p keeps the likeliest tokens until their mass reaches ``top_p``, the one that crosses it included (Holtzman
    et al., arXiv 1904.09751).
    """
    logits = logits.double()  # a temperature just above 0 makes no overflow of what remains
    if 0 < params.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], float("-inf"))
    kept = ((logits - logits.max()) / params.temperature).softmax(-1).float()
    if params.top_p < 1.0:
        ordered, order = kept.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= params.top_p
        beyond[0] = False  # a top_p that is 0 in float32
        kept = kept.index_fill(0, order[beyond], 0.0)
    if params.min_p > 0.0:
        kept = kept.masked_fill(kept < params.min_p * kept.max(), 0.0)
    return kept / kept.sum()


def draw(
    logits: Tensor,
    prompt: Sequence[int],
    answer: Sequence[int],
    params: SamplingParams,
    seed: int,
    allowed: Tensor | None = None,
) -> Drawn:
    """The token after ``prompt`` and ``answer``.

    Args:
        logits: [V] float32.
        seed: of the request. Its place in the answer decides the rest.
        allowed: [V] bool, what a grammar admits.
    """
    number = _mixed(f"{seed}/{len(answer)}")
    if params.is_plain:
        return _plainly(logits[None], [params], [number])[0]
    adjusted = penalised(logits, prompt, answer, params)
    if allowed is not None:
        adjusted = adjusted.masked_fill(~allowed, float("-inf"))
    if params.temperature == 0.0:
        token = int(adjusted.argmax())
    else:
        token = int(_at(probabilities(adjusted, params)[None], [number]))
    if params.logprobs is None:
        return Drawn(token)
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(params.logprobs)
    likeliest = (TokenLogprob(i, p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Drawn(token, float(logprobs[token]), tuple(likeliest))


def _plainly(logits: Tensor, params: Sequence[SamplingParams], numbers: Sequence[int]) -> list[Drawn]:
    """:func:`draw` of n answers that are plain, from logits [n, V]: each as if it were alone."""
    temperatures = torch.tensor([[each.temperature] for each in params], dtype=torch.float64)
    highest = logits.amax(-1, keepdim=True).double()
    tokens = _at(((logits.double() - highest) / temperatures).softmax(-1), numbers)
    if all(each.logprobs is None for each in params):
        return [Drawn(token) for token in tokens.tolist()]
    logprobs = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    told = zip(tokens.tolist(), logprobs.tolist(), params, strict=True)
    return [Drawn(token, None if each.logprobs is None else logprob) for token, logprob, each in told]


def _at(shares: Tensor, numbers: Sequence[int]) -> Tensor:
    """The tokens [n] that ``numbers``, of 63 bits, fall to if tokens share them all as ``shares`` [n, V] say.

    Raises: ``ValueError`` for shares that are no numbers.
    """
    ends = shares.double().cumsum(-1)
    if not (ends[:, -1] > 0).all():
        raise ValueError("the logits are no numbers, or none of them is allowed")
    # of 53 bits, so that it is below 1, and the product below the last end
    places = torch.tensor([[(number >> 10) / 2**53] for number in numbers], dtype=torch.float64)
    return torch.searchsorted(ends, ends[:, -1:] * places, right=True)[:, 0]


_TOGETHER = 2**21


class Sampler:
    """One answer as it is drawn."""

    def __init__(self, prompt: Sequence[int], end_ids: Sequence[int], params: SamplingParams) -> None:
        self.answer: list[int] = []
        self.seed = new_seed() if params.seed is None else params.seed
        self._prompt = tuple(set(prompt))  # which tokens it has is all that matters, and it may be long
        self._end_ids = end_ids
        self._params = params
        self._matcher = None if params.grammar is None else params.grammar.matcher()

    def draw(self, logits: Tensor) -> Drawn:
        """The next token, from logits [V] float32. None may follow one that has a ``finish``."""
        allowed = None if self._matcher is None else self._matcher.allowed()
        return self._taken(draw(logits, self._prompt, self.answer, self._params, self.seed, allowed))

    def _taken(self, drawn: Drawn) -> Drawn:
        self.answer.append(drawn.id)
        if self._matcher is not None:
            self._matcher.accept(drawn.id)
        return replace(drawn, finish=self._finish())

    @property
    def is_plain(self) -> bool:
        """Whether :meth:`draw_together` may draw its next token."""
        return self._params.is_plain

    @staticmethod
    def draw_together(samplers: Sequence[Sampler], logits: Tensor) -> list[Drawn]:
        """The next token of each, from logits [n, V] float32: the same that each would draw alone, in less time.

        Raises: ``ValueError`` for logits that are no numbers, before anything is drawn.
        """
        params = [sampler._params for sampler in samplers]
        numbers = [_mixed(f"{sampler.seed}/{len(sampler.answer)}") for sampler in samplers]
        # A few million numbers at a time, of 8 bytes.
        rows = max(1, _TOGETHER // logits.shape[1])
        drawn = [
            one
            for at in range(0, len(samplers), rows)
            for one in _plainly(logits[at : at + rows], params[at : at + rows], numbers[at : at + rows])
        ]
        return [sampler._taken(one) for sampler, one in zip(samplers, drawn, strict=True)]

    def forced(self) -> list[int]:
        """The tokens that most likely come next because the grammar leaves no other text; perhaps none."""
        return [] if self._matcher is None else list(self._matcher.forced())

    def _finish(self) -> FinishReason | None:
        if self._matcher is not None and self._matcher.failed:
            return "error"
        if self.answer[-1] in self._end_ids or (self._matcher is not None and self._matcher.complete):
            return "stop"
        return "length" if len(self.answer) == self._params.max_new_tokens else None
