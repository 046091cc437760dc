"""Functions that a model may call: how it is told of them, and how calls and their results stand in a conversation.

The official chat template knows none, so this is a convention of ours (docs/serving.md):

    system     …                                        user        <tool_response id="call_1">
               # Tools                                              text and pictures, in their order
               {"name": "look", "description": …}                   </tool_response>
    assistant  <tool_call>{"name": "look", "arguments": {"x": 1}}</tool_call>

All of it is ordinary text to the tokenizer, and a stranger's text within it stays text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_vl.chat import DEFAULT_SYSTEM_PROMPT, Message, TextPart, parse_messages
from kimi_vl.grammar import Grammar
from kimi_vl.parts import Marks
from kimi_vl.tokenizer import Tokenizer

_NAME_CHARACTERS = 64


@dataclass(frozen=True)
class Tool:
    """A function; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def line(self) -> str:
        shown: dict[str, Any] = {"name": self.name}
        if self.description:
            shown["description"] = self.description
        return json.dumps(shown | {"parameters": self.parameters}, ensure_ascii=False)


@dataclass(frozen=True)
class ToolChoice:
    """Which functions may be called in this answer. ``required`` is whether one must be."""

    tools: tuple[Tool, ...]
    required: bool
    parallel: bool

    def grammar(self, tokenizer: Tokenizer, marks: Marks, schema: Mapping[str, Any] | None = None) -> Grammar:
        """That an answer follows which must call; with ``schema``, and if it need not, it may be JSON of that instead.

        Raises: ``ValueError`` for parameters that cannot be kept to.
        """
        functions = {tool.name: tool.parameters for tool in self.tools}
        otherwise = None if self.required else schema
        return Grammar.calls(
            tokenizer, functions, before=marks.call, after=marks.called, many=self.parallel, otherwise=otherwise
        )


def parse_tools(raw: Sequence[Mapping[str, Any]] | None, most: int) -> tuple[Tool, ...]:
    """Tools of either OpenAI shape, with the function beside its type or within it.

    Raises: ``ValueError`` naming the place.
    """
    if not raw:
        return ()
    if len(raw) > most:
        raise ValueError(f"tools has {len(raw)} entries, over the limit of {most}")
    tools: list[Tool] = []
    for index, item in enumerate(raw):
        where = f"tools[{index}]"
        if item.get("type", "function") != "function":
            raise ValueError(f"{where}.type is {item.get('type')!r}; only 'function' is known here")
        function = item.get("function", item)
        if not isinstance(function, Mapping):
            raise ValueError(f"{where}.function must be an object, not {type(function).__name__}")
        name = function.get("name")
        if not isinstance(name, str) or not 1 <= len(name) <= _NAME_CHARACTERS:
            raise ValueError(f"{where}.name must be a text of 1 to {_NAME_CHARACTERS} characters, not {name!r}")
        description = function.get("description") or ""
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(description, str) or not isinstance(parameters, Mapping):
            raise ValueError(f"{where} must have a text as description and an object as parameters")
        if name in (tool.name for tool in tools):
            raise ValueError(f"{where}.name {name!r} is there twice")
        tools.append(Tool(name, description, parameters))
    return tuple(tools)


def parse_choice(tools: tuple[Tool, ...], raw: object, *, parallel: bool) -> ToolChoice | None:
    """``None`` if no function may be called.

    Raises: ``ValueError`` for a choice that is unknown or names no tool.
    """
    if raw is None:
        raw = "auto" if tools else "none"
    if raw == "none":
        return None
    if not tools:
        raise ValueError(f"tool_choice is {raw!r}, but there are no tools")
    if raw in ("auto", "required"):
        return ToolChoice(tools, raw == "required", parallel)
    name = None
    if isinstance(raw, Mapping) and raw.get("type") == "function":
        function = raw.get("function", raw)
        name = function.get("name") if isinstance(function, Mapping) else None
    chosen = tuple(tool for tool in tools if tool.name == name)
    if not chosen:
        raise ValueError(
            f"tool_choice is {raw!r}; allowed are 'auto', 'none', 'required' and a function that is among the tools"
        )
    return ToolChoice(chosen, True, False)


def as_messages(raw: Sequence[Mapping[str, Any]], tools: Sequence[Tool], marks: Marks) -> list[Message]:
    """A conversation with the tools told of, calls written out and results as the user's turns.

    Raises: ``ValueError`` naming the place.
    """
    frames = [_frame(item, f"messages[{index}]", marks) for index, item in enumerate(raw)]
    plain = [{"role": "user", "content": item.get("content")} if _is_result(item) else item for item in raw]
    messages = [
        Message(message.role, (*map(TextPart, before), *message.parts, *map(TextPart, behind)))
        for message, (before, behind) in zip(parse_messages(plain), frames, strict=True)
    ]
    return _told(messages, tools, marks) if tools else messages


def _told(messages: list[Message], tools: Sequence[Tool], marks: Marks) -> list[Message]:
    told = "\n".join(
        (
            "# Tools",
            "",
            "You may call these functions, each a line of JSON:",
            "",
            *(tool.line for tool in tools),
            "",
            "To call one, write this, once for each call, and nothing after it:",
            f'{marks.call}{{"name": "the function", "arguments": {{}}}}{marks.called}',
        )
    )
    if messages[0].role == "system":
        first, *rest = messages
        return [Message("system", (*first.parts, TextPart(f"\n\n{told}"))), *rest]
    return [Message("system", (TextPart(f"{DEFAULT_SYSTEM_PROMPT}\n\n{told}"),)), *messages]


def _is_result(item: object) -> bool:
    return isinstance(item, Mapping) and item.get("role") in ("tool", "function")


def _frame(item: object, where: str, marks: Marks) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands before and behind the content of a message: marks of a tool's answer, calls."""
    if not isinstance(item, Mapping):
        return (), ()
    if _is_result(item):
        call = item.get("tool_call_id", item.get("name", ""))
        if not isinstance(call, str):
            raise ValueError(f"{where}.tool_call_id must be a text, not {type(call).__name__}")
        return (f"<tool_response id={json.dumps(call, ensure_ascii=False)}>\n",), ("\n</tool_response>",)
    if item.get("role") == "assistant" and item.get("tool_calls"):
        return (), tuple(_written_calls(item["tool_calls"], f"{where}.tool_calls", marks))
    return (), ()


def _written_calls(calls: object, where: str, marks: Marks) -> Iterator[str]:
    if not isinstance(calls, list):
        raise ValueError(f"{where} must be a list, not {type(calls).__name__}")
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}[{index}] names no function")
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(function["name"], ensure_ascii=False)
        yield f'{marks.call}{{"name": {name}, "arguments": {text}}}{marks.called}'
