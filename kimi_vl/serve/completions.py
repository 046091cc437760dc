"""``POST /v1/completions``: text that goes on, without a chat's structure and without pictures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from kimi_vl.parts import Said
from kimi_vl.processor import KimiVLProcessor, ModelInputs
from kimi_vl.sampling import Drawn
from kimi_vl.serve.answer_schema import Completion, CompletionChoice, CompletionLogprobs
from kimi_vl.serve.answering import Finish
from kimi_vl.serve.ask import Ask, Habits, sampling
from kimi_vl.serve.envelope import DONE, Envelope, token_logprobs, usage
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.request_schema import CompletionRequest
from kimi_vl.serve.service import Answering
from kimi_vl.serve.wire import event


def ask_of(request: CompletionRequest, habits: Habits, limits: ServerLimits) -> Ask:
    """Raises: ``ValueError`` naming the field."""
    params = sampling(request, habits, answers=request.n or 1, logprobs=request.logprobs, limits=limits)
    return Ask(messages=(), params=params, most_tokens=request.max_tokens)


def prompts_of(request: CompletionRequest, processor: KimiVLProcessor) -> list[ModelInputs]:
    """Each of its prompts. Raises: ``ValueError`` naming an empty one, or an id that there is not."""
    prompt = request.prompt
    if isinstance(prompt, str):
        several: Sequence[str | list[int]] = [prompt]
    elif prompt and isinstance(prompt[0], int):
        several = [[each for each in prompt if isinstance(each, int)]]
    else:
        several = [each for each in prompt if not isinstance(each, int)]
    if not several:
        raise ValueError("prompt is empty: give at least one")
    inputs = []
    for number, each in enumerate(several):
        try:
            inputs.append(processor.text(each))
        except ValueError as error:
            raise ValueError(f"prompt[{number}] {error}") from None
    return inputs


def echoes(request: CompletionRequest, prompts: Sequence[ModelInputs], processor: KimiVLProcessor) -> list[str]:
    """What stands before each answer: its prompt if that is wished for, else nothing."""
    texts = [processor.tokenizer.decode(inputs.input_ids.tolist()) if request.echo else "" for inputs in prompts]
    return [text for text in texts for _ in range(request.n or 1)]


async def completion(answering: Answering, envelope: Envelope, texts: Sequence[str]) -> Completion:
    """The whole answers; ``texts`` stand before them, echoed or empty. Raises: ``StepError``."""
    wholes = await answering.finish()
    choices = []
    for answer, whole, before in zip(answering.answers, wholes, texts, strict=True):
        said = whole.said or ""
        logprobs = _logprobs(whole.said_by, envelope, len(before)) if envelope.logprobs else None
        choice = CompletionChoice(
            index=answer.index, text=before + said, logprobs=logprobs, finish_reason=_plain(whole.finish)
        )
        choices.append(choice)
    document = _document(envelope, choices)
    document.usage = usage(answering)
    return document


async def chunks(
    answering: Answering, envelope: Envelope, texts: Sequence[str], *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The same piece by piece. Raises: ``StepError``."""
    offsets = [len(text) for text in texts]
    for answer, before in zip(answering.answers, texts, strict=True):
        if before:
            choice = CompletionChoice(index=answer.index, text=before, logprobs=None, finish_reason=None)
            yield event(_document(envelope, [choice]))
    async with aclosing(answering.deltas()) as deltas:
        async for answer, delta in deltas:
            text = "".join(part.text for part in delta.parts if isinstance(part, Said))
            if not text and delta.finish is None:
                continue
            logprobs = None
            if envelope.logprobs and delta.said_by:
                logprobs = _logprobs(delta.said_by, envelope, offsets[answer.index])
            offsets[answer.index] += len(text)
            reason = None if delta.finish is None else _plain(delta.finish)
            choice = CompletionChoice(index=answer.index, text=text, logprobs=logprobs, finish_reason=reason)
            yield event(_document(envelope, [choice]))
    if with_usage:
        last = _document(envelope, [])
        last.usage = usage(answering)
        yield event(last)
    yield DONE


def _plain(finish: Finish | None) -> Literal["stop", "length"]:
    return "length" if finish == "length" else "stop"


def _document(envelope: Envelope, choices: list[CompletionChoice]) -> Completion:
    return Completion(
        id=envelope.id,
        object="text_completion",
        created=envelope.created,
        model=envelope.model,
        choices=choices,
    )


def _logprobs(tokens: Sequence[Drawn], envelope: Envelope, offset: int) -> CompletionLogprobs:
    shown = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for drawn in tokens:
        token = token_logprobs(drawn, envelope.tokenizer)
        shown.tokens.append(token.token)
        shown.token_logprobs.append(token.logprob)
        shown.top_logprobs.append({top.token: top.logprob for top in token.top_logprobs})
        shown.text_offset.append(offset)
        offset += len(token.token)
    return shown
