"""``POST /v1/responses``: OpenAI's newer shape of the same, items in and items out. Nothing is kept afterwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kimi_vl.sampling import Drawn
from kimi_vl.serve.answering import Delta, Finish
from kimi_vl.serve.ask import Ask, Habits, conversation, sampling, schema_of, thinking
from kimi_vl.serve.envelope import Envelope, token_logprobs
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.parts import CallArguments, CallBegun, Part, Said, Thought
from kimi_vl.serve.schema import ResponsesRequest
from kimi_vl.serve.service import Answering
from kimi_vl.serve.wire import event

_LOGPROBS = "message.output_text.logprobs"
_PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
_Item = dict[str, Any]


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


def _instructions(request: ResponsesRequest) -> list[_Item]:
    return [] if not request.instructions else [{"role": "system", "content": request.instructions}]


def messages_of(items: str | Sequence[Mapping[str, Any]]) -> list[_Item]:
    """Items as the messages of a chat: calls belong to the assistant's turn before them, old thoughts are left out.

    Raises: ``ValueError`` naming the item.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    messages: list[_Item] = []
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
        self._items: list[_Item] = []
        self._is_open = False
        self._text = ""  # of the open item
        self._logprobs: list[_Item] = []
        self._finish: Finish | None = None

    def begin(self) -> Iterator[_Item]:
        for name in ("response.created", "response.in_progress"):
            yield {"type": name, "response": self.document()}

    def push(self, delta: Delta) -> Iterator[_Item]:
        said_by = delta.said_by
        for part in delta.parts:
            is_said = isinstance(part, Said)
            yield from self._push(part, said_by if is_said else ())
            said_by = () if is_said else said_by
        if delta.finish is not None:
            self._finish = delta.finish
            yield from self._close()
            name = "response.incomplete" if delta.finish == "length" else "response.completed"
            yield {"type": name, "response": self.document()}

    def document(self) -> _Item:
        """The response as it stands."""
        request, is_cut = self._request, self._finish == "length"
        status = "in_progress" if self._finish is None else "incomplete" if is_cut else "completed"
        usage = {
            "input_tokens": self._answering.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": self._answering.cached_tokens,
                "text_tokens": self._answering.prompt_tokens - self._answering.image_tokens,
                "image_tokens": self._answering.image_tokens,
            },
            "output_tokens": self._answering.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._answering.reasoning_tokens},
            "total_tokens": self._answering.prompt_tokens + self._answering.completion_tokens,
        }
        wished = request.text.format if request.text is not None else None
        return {
            "id": self._envelope.id,
            "object": "response",
            "created_at": self._envelope.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": self._envelope.model,
            "output": [dict(item) for item in self._items],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
            "store": False,
            "temperature": request.temperature,
            "text": {"format": {"type": "text"} if wished is None else wished.model_dump(by_alias=True)},
            "tool_choice": request.tool_choice or "auto",
            "tools": [_shown_tool(tool) for tool in request.tools or ()],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": None if self._finish is None else usage,
        }

    def _push(self, part: Part, said_by: Sequence[Drawn]) -> Iterator[_Item]:
        match part:
            case Thought(text):
                yield from self._open("reasoning")
                yield self._delta("response.reasoning_text.delta", text, content_index=0)
            case Said(text):
                yield from self._open("message")
                new = [
                    token_logprobs(d, self._envelope.tokenizer).model_dump() for d in said_by if d.logprob is not None
                ]
                self._logprobs += new
                yield self._delta("response.output_text.delta", text, content_index=0, logprobs=new)
            case CallBegun():
                yield from self._close()
                yield from self._open("function_call", part)
            case CallArguments(_, text):
                yield self._delta("response.function_call_arguments.delta", text)

    def _open(self, kind: str, call: CallBegun | None = None) -> Iterator[_Item]:
        """Begins an item, unless one of its kind is open."""
        if self._is_open and self._items[-1]["type"] == kind:
            return
        yield from self._close()
        self._text, self._logprobs, self._is_open = "", [], True
        item: _Item = {"type": kind, "id": f"{_PREFIXES[kind]}_{secrets.token_hex(12)}", "status": "in_progress"}
        if kind == "reasoning":
            item |= {"summary": [], "content": []}
        elif kind == "message":
            item |= {"role": "assistant", "content": []}
        else:
            assert call is not None
            item |= {"call_id": call.id, "name": call.name, "arguments": ""}
        self._items.append(item)
        yield {"type": "response.output_item.added", "output_index": len(self._items) - 1, "item": dict(item)}
        if kind != "function_call":
            yield self._about("response.content_part.added", content_index=0, part=self._content())

    def _close(self) -> Iterator[_Item]:
        """Ends the open item, if there is one."""
        if not self._is_open:
            return
        self._is_open = False
        item = self._items[-1]
        item["status"] = "incomplete" if self._finish == "length" else "completed"
        if item["type"] == "function_call":
            item["arguments"] = self._text
            yield self._about("response.function_call_arguments.done", arguments=self._text, name=item["name"])
        else:
            content = self._content()
            item["content"] = [content]
            if item["type"] == "message":
                yield self._about(
                    "response.output_text.done", content_index=0, text=self._text, logprobs=self._logprobs
                )
            else:
                yield self._about("response.reasoning_text.done", content_index=0, text=self._text)
            yield self._about("response.content_part.done", content_index=0, part=content)
        yield {"type": "response.output_item.done", "output_index": len(self._items) - 1, "item": dict(item)}

    def _content(self) -> _Item:
        if self._items[-1]["type"] == "reasoning":
            return {"type": "reasoning_text", "text": self._text}
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": list(self._logprobs)}

    def _delta(self, name: str, text: str, **more: Any) -> _Item:
        self._text += text
        return self._about(name, delta=text, **more)

    def _about(self, kind: str, /, **more: Any) -> _Item:
        """An event of the open item."""
        return {"type": kind, "item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, **more}


def _shown_tool(tool: Mapping[str, Any]) -> _Item:
    """As the interface has it, which a client may have put otherwise."""
    function = tool.get("function", tool)
    return {
        "type": "function",
        "name": function.get("name"),
        "description": function.get("description"),
        "parameters": function.get("parameters"),
        "strict": bool(function.get("strict", False)),
    }


async def response(builder: ResponseBuilder, answering: Answering) -> _Item:
    """The whole answer. Raises: ``StepError``."""
    async with aclosing(answering.deltas()) as deltas:
        async for _, delta in deltas:
            list(builder.push(delta))
    return builder.document()


async def events(builder: ResponseBuilder, answering: Answering) -> AsyncGenerator[bytes, None]:
    """The same piece by piece, each event with its number. Raises: ``StepError``."""
    number = 0

    def numbered(raw: _Item) -> bytes:
        nonlocal number
        number += 1
        return event(raw | {"sequence_number": number - 1}, raw["type"])

    for raw in builder.begin():
        yield numbered(raw)
    async with aclosing(answering.deltas()) as deltas:
        async for _, delta in deltas:
            for raw in builder.push(delta):
                yield numbered(raw)
