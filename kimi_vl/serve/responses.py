"""``POST /v1/responses``: OpenAI's newer shape of the same, items in and items out. Nothing is kept afterwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any

from kimi_vl.parts import CallArguments, CallBegun, Part, Said, Thought
from kimi_vl.sampling import Drawn
from kimi_vl.serve.answer_schema import (
    Content,
    FunctionCallItem,
    IncompleteDetails,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseDocument,
    ResponseEvent,
    ResponsesUsage,
    ShownReasoning,
    ShownText,
    ShownTool,
    TokenLogprobs,
)
from kimi_vl.serve.answering import Delta, Finish
from kimi_vl.serve.ask import Ask, Habits, conversation, sampling, schema_of, thinking
from kimi_vl.serve.envelope import Envelope, token_logprobs, usage
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.request_schema import ResponsesRequest
from kimi_vl.serve.service import Answering
from kimi_vl.serve.wire import event

_LOGPROBS = "message.output_text.logprobs"
_Turn = dict[str, Any]


def ask_of(request: ResponsesRequest, habits: Habits, limits: ServerLimits) -> Ask:
    """Raises: ``ValueError`` naming the field."""
    raw = [*_instructions(request), *messages_of(request.input)]
    messages, choice = conversation(raw, request, habits, limits)
    wished = request.text.format if request.text is not None else None
    schema = None if wished is None else schema_of(wished.type, wished.schema_, "text.format.schema", limits)
    thinks, budget = thinking(request, request.reasoning.effort if request.reasoning else None, habits)
    return Ask(
        messages=messages,
        params=sampling(
            request,
            habits,
            answers=1,
            logprobs=(request.top_logprobs or 0) if wants_logprobs(request) else None,
            limits=limits,
        ),
        most_tokens=request.max_output_tokens,
        choice=choice,
        schema=schema,
        thinks=thinks,
        thinking_budget=budget,
    )


def wants_logprobs(request: ResponsesRequest) -> bool:
    return _LOGPROBS in (request.include or ()) or bool(request.top_logprobs)


def _instructions(request: ResponsesRequest) -> list[_Turn]:
    return [] if not request.instructions else [{"role": "system", "content": request.instructions}]


def messages_of(items: str | Sequence[Mapping[str, Any]]) -> list[_Turn]:
    """Items as the messages of a chat: calls belong to the assistant's turn before them, old thoughts are left out.

    Raises: ``ValueError`` naming the item.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    messages: list[_Turn] = []
    for index, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "function_call":
            call = {
                "id": item.get("call_id"),
                "type": "function",
                "function": {"name": item.get("name"), "arguments": item.get("arguments")},
            }
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif kind != "reasoning":
            raise ValueError(
                f"input[{index}].type is {kind!r}; known are message, function_call, function_call_output and reasoning"
            )
    return messages


class ResponseBuilder:
    """Items of one answer as they grow, and the events that tell of it."""

    def __init__(self, request: ResponsesRequest, envelope: Envelope, answering: Answering) -> None:
        self._request = request
        self._envelope = envelope
        self._answering = answering
        self._items: list[Item] = []
        self._is_open = False
        self._text = ""  # of the open item
        self._logprobs: list[TokenLogprobs] = []
        self._finish: Finish | None = None
        self._numbers = count()

    def begin(self) -> Iterator[ResponseEvent]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self.document())

    def push(self, delta: Delta) -> Iterator[ResponseEvent]:
        said_by = delta.said_by
        for part in delta.parts:
            is_said = isinstance(part, Said)
            yield from self._push(part, said_by if is_said else ())
            said_by = () if is_said else said_by
        if delta.finish is not None:
            self._finish = delta.finish
            yield from self._close()
            name = "response.incomplete" if delta.finish == "length" else "response.completed"
            yield self._event(name, response=self.document())

    def document(self) -> ResponseDocument:
        """The response as it stands."""
        request, is_cut = self._request, self._finish == "length"
        wished = request.text.format if request.text is not None else None
        return ResponseDocument(
            id=self._envelope.id,
            object="response",
            created_at=self._envelope.created,
            status="in_progress" if self._finish is None else "incomplete" if is_cut else "completed",
            background=False,
            error=None,
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if is_cut else None,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            model=self._envelope.model,
            output=list(self._items),
            parallel_tool_calls=request.parallel_tool_calls is not False,
            previous_response_id=None,
            reasoning=ShownReasoning(effort=request.reasoning.effort if request.reasoning else None, summary=None),
            store=False,
            temperature=request.temperature,
            text=ShownText(format={"type": "text"} if wished is None else wished.model_dump(by_alias=True)),
            tool_choice=request.tool_choice or "auto",
            tools=[_shown_tool(tool) for tool in request.tools or ()],
            top_p=request.top_p,
            truncation="disabled",
            usage=None if self._finish is None else _usage(self._answering),
        )

    def _push(self, part: Part, said_by: Sequence[Drawn]) -> Iterator[ResponseEvent]:
        match part:
            case Thought(text):
                yield from self._open(ReasoningItem)
                yield self._delta("response.reasoning_text.delta", text, content_index=0)
            case Said(text):
                yield from self._open(MessageItem)
                new = [
                    token_logprobs(drawn, self._envelope.tokenizer) for drawn in said_by if drawn.logprob is not None
                ]
                self._logprobs += new
                yield self._delta("response.output_text.delta", text, content_index=0, logprobs=new)
            case CallBegun():
                yield from self._close()
                yield from self._begin(_call_item(part))
            case CallArguments(_, text):
                yield self._delta("response.function_call_arguments.delta", text)

    def _open(self, kind: type[ReasoningItem | MessageItem]) -> Iterator[ResponseEvent]:
        """Begins an item, unless one of its kind is open."""
        if self._is_open and isinstance(self._items[-1], kind):
            return
        yield from self._close()
        if kind is ReasoningItem:
            yield from self._begin(_reasoning_item())
            part: Content = self._reasoning_text()
        else:
            yield from self._begin(_message_item())
            part = self._output_text()
        yield self._about("response.content_part.added", content_index=0, part=part)

    def _begin(self, item: Item) -> Iterator[ResponseEvent]:
        self._text, self._logprobs, self._is_open = "", [], True
        self._items.append(item)
        # as it is now: what is written when this is read may have grown
        yield self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=item.model_copy(deep=True)
        )

    def _close(self) -> Iterator[ResponseEvent]:
        """Ends the open item, if there is one."""
        if not self._is_open:
            return
        self._is_open = False
        item = self._items[-1]
        item.status = "incomplete" if self._finish == "length" else "completed"
        if isinstance(item, FunctionCallItem):
            item.arguments = self._text
            yield self._about("response.function_call_arguments.done", arguments=self._text, name=item.name)
        elif isinstance(item, MessageItem):
            item.content = [self._output_text()]
            yield self._about("response.output_text.done", content_index=0, text=self._text, logprobs=self._logprobs)
            yield self._about("response.content_part.done", content_index=0, part=item.content[0])
        else:
            item.content = [self._reasoning_text()]
            yield self._about("response.reasoning_text.done", content_index=0, text=self._text)
            yield self._about("response.content_part.done", content_index=0, part=item.content[0])
        yield self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _output_text(self) -> OutputText:
        return OutputText(type="output_text", text=self._text, annotations=[], logprobs=list(self._logprobs))

    def _reasoning_text(self) -> ReasoningText:
        return ReasoningText(type="reasoning_text", text=self._text)

    def _delta(self, name: str, text: str, **more: Any) -> ResponseEvent:
        self._text += text
        return self._about(name, delta=text, **more)

    def _about(self, name: str, /, **more: Any) -> ResponseEvent:
        """An event of the open item."""
        return self._event(name, item_id=self._items[-1].id, output_index=len(self._items) - 1, **more)

    def _event(self, kind: str, /, **more: Any) -> ResponseEvent:
        return ResponseEvent(type=kind, sequence_number=next(self._numbers), **more)


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _reasoning_item() -> ReasoningItem:
    return ReasoningItem(type="reasoning", id=_new_id("rs"), status="in_progress", summary=[], content=[])


def _message_item() -> MessageItem:
    return MessageItem(type="message", id=_new_id("msg"), status="in_progress", role="assistant", content=[])


def _call_item(call: CallBegun) -> FunctionCallItem:
    return FunctionCallItem(
        type="function_call",
        id=_new_id("fc"),
        status="in_progress",
        call_id=call.id,
        name=call.name,
        arguments="",
    )


def _usage(answering: Answering) -> ResponsesUsage:
    """As chats have it, by this interface's names."""
    as_chat = usage(answering)
    return ResponsesUsage(
        input_tokens=as_chat.prompt_tokens,
        input_tokens_details=as_chat.prompt_tokens_details,
        output_tokens=as_chat.completion_tokens,
        output_tokens_details=as_chat.completion_tokens_details,
        total_tokens=as_chat.total_tokens,
    )


def _shown_tool(tool: Mapping[str, Any]) -> ShownTool:
    """As the interface has it, which a client may have put otherwise."""
    function = tool.get("function", tool)
    return ShownTool(
        type="function",
        name=str(function.get("name")),
        description=function.get("description"),
        parameters=function.get("parameters"),
        strict=bool(function.get("strict", False)),
    )


async def response(builder: ResponseBuilder, answering: Answering) -> ResponseDocument:
    """The whole answer. Raises: ``StepError``."""
    async with aclosing(answering.deltas()) as deltas:
        async for _, delta in deltas:
            for _ in builder.push(delta):
                pass
    return builder.document()


async def events(builder: ResponseBuilder, answering: Answering) -> AsyncGenerator[bytes, None]:
    """The same piece by piece. Raises: ``StepError``."""
    for told in builder.begin():
        yield event(told, told.type)
    async with aclosing(answering.deltas()) as deltas:
        async for _, delta in deltas:
            for told in builder.push(delta):
                yield event(told, told.type)
