"""``POST /v1/chat/completions``: OpenAI's shape of a conversation, there and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from kimi_vl.parts import CallArguments, CallBegun, Part, Said, Thought
from kimi_vl.sampling import Drawn
from kimi_vl.serve.answer_schema import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    FunctionCall,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from kimi_vl.serve.answering import Delta, Whole
from kimi_vl.serve.ask import Ask, Habits, continues, conversation, sampling, schema_of, thinking
from kimi_vl.serve.envelope import DONE, Envelope, token_logprobs, usage
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.request_schema import ChatRequest
from kimi_vl.serve.service import Answering
from kimi_vl.serve.wire import event
from kimi_vl.tokenizer import Tokenizer


def ask_of(request: ChatRequest, habits: Habits, limits: ServerLimits) -> Ask:
    """Raises: ``ValueError`` naming the field."""
    messages, choice = conversation(request.messages, request, habits, limits)
    wished = request.response_format
    schema = None
    if wished is not None:
        inner = (wished.json_schema or {}).get("schema")
        schema = schema_of(wished.type, inner, "response_format.json_schema.schema", limits)
    if request.top_logprobs is not None and not request.logprobs:
        raise ValueError("top_logprobs is given without logprobs: set logprobs to true, or leave it out")
    thinks, budget = thinking(request, request.reasoning_effort, habits)
    goes_on = continues(messages, request, habits)
    return Ask(
        messages=messages,
        params=sampling(
            request,
            habits,
            answers=request.n or 1,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            limits=limits,
        ),
        most_tokens=request.max_completion_tokens or request.max_tokens,
        choice=choice,
        schema=schema,
        # What is begun already is past its thought.
        thinks=thinks and not goes_on,
        thinking_budget=budget,
        continues=goes_on,
    )


async def completion(answering: Answering, envelope: Envelope) -> ChatCompletion:
    """The whole answer. Raises: ``StepError``."""
    wholes = await answering.finish()
    return ChatCompletion(
        id=envelope.id,
        object="chat.completion",
        created=envelope.created,
        model=envelope.model,
        choices=[_choice(index, whole, envelope) for index, whole in enumerate(wholes)],
        usage=usage(answering),
    )


async def chunks(answering: Answering, envelope: Envelope, *, with_usage: bool) -> AsyncGenerator[bytes, None]:
    """The same piece by piece. Raises: ``StepError``."""

    def chunk(index: int, delta: ChatDelta, said_by: Sequence[Drawn] = (), finish: Delta | None = None) -> bytes:
        logprobs = chat_logprobs(said_by, envelope.tokenizer) if envelope.logprobs and said_by else None
        reason = None if finish is None else finish.finish
        choice = ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=reason)
        return event(_chunk(envelope, [choice], None, with_usage=with_usage))

    for answer in answering.answers:
        yield chunk(answer.index, ChatDelta(role="assistant", content=""))
    async with aclosing(answering.deltas()) as deltas:
        async for answer, delta in deltas:
            said_by = delta.said_by
            for part, change in _changes(delta.parts):
                is_said = isinstance(part, Said)
                yield chunk(answer.index, change, said_by if is_said else ())
                said_by = () if is_said else said_by
            if delta.finish is not None:
                yield chunk(answer.index, ChatDelta(), finish=delta)
    if with_usage:
        yield event(_chunk(envelope, [], usage(answering), with_usage=True))
    yield DONE


def chat_logprobs(tokens: Sequence[Drawn], tokenizer: Tokenizer) -> ChatLogprobs:
    return ChatLogprobs(content=[token_logprobs(token, tokenizer) for token in tokens])


def _choice(index: int, whole: Whole, envelope: Envelope) -> ChatChoice:
    assert whole.finish is not None
    said = whole.said if whole.said is not None or whole.calls else ""
    message = ChatMessage(role="assistant", content=said, refusal=None)
    if whole.thought:
        message.reasoning_content = whole.thought
    if whole.calls:
        message.tool_calls = [
            ToolCall(id=call.id, type="function", function=FunctionCall(name=call.name, arguments=arguments))
            for call, arguments in whole.calls
        ]
    logprobs = chat_logprobs(whole.said_by, envelope.tokenizer) if envelope.logprobs else None
    return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=whole.finish)


def _changes(parts: Sequence[Part]) -> Iterator[tuple[Part, ChatDelta]]:
    for part in parts:
        match part:
            case Thought(text):
                yield part, ChatDelta(reasoning_content=text)
            case Said(text):
                yield part, ChatDelta(content=text)
            case CallBegun(index, name, call_id):
                function = FunctionDelta(name=name, arguments="")
                call = ToolCallDelta(index=index, id=call_id, type="function", function=function)
                yield part, ChatDelta(tool_calls=[call])
            case CallArguments(index, text):
                call = ToolCallDelta(index=index, function=FunctionDelta(arguments=text))
                yield part, ChatDelta(tool_calls=[call])


def _chunk(envelope: Envelope, choices: list[ChatChunkChoice], cost: Usage | None, *, with_usage: bool) -> ChatChunk:
    chunk = ChatChunk(
        id=envelope.id,
        object="chat.completion.chunk",
        created=envelope.created,
        model=envelope.model,
        choices=choices,
    )
    if with_usage:
        chunk.usage = cost
    return chunk
