"""What the documents of all interfaces have: whose they are, what they cost, and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_vl.sampling import Drawn
from kimi_vl.serve.answer_schema import CompletionDetails, PromptDetails, TokenLogprobs, TopLogprob, Usage
from kimi_vl.serve.service import Answering
from kimi_vl.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"
_LEAST = -9999.0  # what stands for a log-probability that JSON has no number for


@dataclass(frozen=True)
class Envelope:
    """What every document of one answer has."""

    id: str
    created: int
    model: str
    tokenizer: Tokenizer
    logprobs: bool


def usage(answering: Answering) -> Usage:
    prompt, completion = answering.prompt_tokens, answering.completion_tokens
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(
            cached_tokens=answering.cached_tokens,
            text_tokens=prompt - answering.image_tokens,
            image_tokens=answering.image_tokens,
        ),
        completion_tokens_details=CompletionDetails(reasoning_tokens=answering.reasoning_tokens),
    )


def token_logprobs(drawn: Drawn, tokenizer: Tokenizer) -> TokenLogprobs:
    assert drawn.logprob is not None
    own = _top(drawn.id, drawn.logprob, tokenizer)
    return TokenLogprobs(
        token=own.token,
        logprob=own.logprob,
        bytes=own.bytes,
        top_logprobs=[_top(each.id, each.logprob, tokenizer) for each in drawn.likeliest],
    )


def _top(token: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    # a token may be a part of a character, which only its bytes show
    data = tokenizer.decode_bytes([token], skip_special=False)
    return TopLogprob(token=data.decode("utf-8", "replace"), logprob=max(logprob, _LEAST), bytes=list(data))
