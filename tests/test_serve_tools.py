"""Functions: how a model is told of them, how it calls them, and how their results come back, pictures included."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_vl import Reply, SamplingParams
from kimi_vl.chat import DEFAULT_SYSTEM_PROMPT, Message, PicturePart, TextPart
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.parts import CallArguments, CallBegun, Marks, PartsParser
from kimi_vl.serve.tools import Tool, as_messages, parse_choice, parse_tools
from tests.engines import PROCESSOR

MARKS = Marks()
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
CHAT_SHAPE = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
RESPONSES_SHAPE = {"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA}
LOOK, SHOW = Tool("look", "Looks.", SCHEMA), Tool("show", "", {"type": "object", "properties": {}})
# with a reference, as libraries write their schemas
POINT = Tool(
    "point",
    "",
    {
        "$defs": {
            "P": {
                "type": "object",
                "properties": {a: {"type": "integer", "maximum": 999} for a in "xy"},
                "required": ["x", "y"],
            }
        },
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/P"}},
        "required": ["at"],
        "additionalProperties": False,
    },
)
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def texts(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


@pytest.mark.parametrize("raw", [CHAT_SHAPE, RESPONSES_SHAPE])
def test_tools_of_either_shape(raw: dict[str, Any]) -> None:
    assert parse_tools([raw, {"function": {"name": "show", "description": None}}], 2) == (LOOK, SHOW)
    assert parse_tools(None, 2) == parse_tools([], 2) == ()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ([{"type": "web_search"}], r"tools\[0\]\.type is 'web_search'"),
        ([{"type": "function", "function": "f"}], r"tools\[0\]\.function must be an object"),
        ([{"function": {"name": ""}}], r"tools\[0\]\.name must be a text of 1 to 64"),
        ([{"function": {"name": "f" * 65}}], r"tools\[0\]\.name must be"),
        ([{"function": {"name": "f", "parameters": [1]}}], r"tools\[0\] must have a text as description"),
        ([CHAT_SHAPE, RESPONSES_SHAPE], r"tools\[1\]\.name 'look' is there twice"),
        ([CHAT_SHAPE] * 4, "tools has 4 entries, over the limit of 3"),
    ],
)
def test_tools_that_are_none(raw: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_tools(raw, 3)


def test_which_may_be_called() -> None:
    both = (LOOK, SHOW)
    named = {"type": "function", "function": {"name": "show"}}
    assert parse_choice((), None, parallel=True) is None
    assert parse_choice(both, "none", parallel=True) is None
    for raw, required in ((None, False), ("auto", False), ("required", True)):
        choice = parse_choice(both, raw, parallel=True)
        assert choice is not None
        assert (choice.tools, choice.required, choice.parallel) == (both, required, True)
    for name in (named, {"type": "function", "name": "show"}):
        choice = parse_choice(both, name, parallel=True)
        assert choice is not None
        assert (choice.tools, choice.required) == ((SHOW,), True)
    for wrong in ("some", {"type": "function", "function": {"name": "f"}}, 7):
        with pytest.raises(ValueError, match=r"tool_choice is .*; allowed are 'auto'"):
            parse_choice(both, wrong, parallel=True)
    with pytest.raises(ValueError, match="tool_choice is 'required', but there are no tools"):
        parse_choice((), "required", parallel=True)


@pytest.mark.parametrize("parallel", [True, False])
def test_an_answer_that_must_call_does(nano4: EngineModel, parallel: bool) -> None:
    """Nano was never taught to call anything; the grammar leaves it no other way."""
    choice = parse_choice((LOOK, POINT), "required", parallel=parallel)
    assert choice is not None
    grammar = choice.grammar(PROCESSOR.tokenizer, MARKS)
    engine = Engine(nano4, EngineOptions(context=4096))
    counts = set()
    for seed in range(6):
        params = SamplingParams(max_new_tokens=400, temperature=1.5, seed=seed, grammar=grammar)
        reply = Reply(engine, PROCESSOR, [{"role": "user", "content": "Where?"}], params)
        if reply.answer.finish_reason == "length":
            continue
        parser = PartsParser(MARKS, thinks=False, calls=True)
        parts = parser.push(reply.answer.text) + parser.flush()
        assert {type(part) for part in parts} == {CallBegun, CallArguments}
        for begun in (part for part in parts if isinstance(part, CallBegun)):
            text = "".join(p.text for p in parts if isinstance(p, CallArguments) and p.index == begun.index)
            value = json.loads(text)
            if begun.name == "point":
                assert set(value) == {"at"}
                assert all(isinstance(value["at"][axis], int) for axis in ("x", "y"))
            else:
                assert begun.name == "look"
        counts.add(parser.calls)
    assert counts
    assert parallel or counts == {1}


def test_parameters_that_cannot_be_kept_to_are_refused() -> None:
    choice = parse_choice(
        (Tool("f", "", {"type": "object", "properties": {"a": {"type": "colour"}}}),), "auto", parallel=True
    )
    assert choice is not None
    with pytest.raises(ValueError, match="a function's schema cannot be followed"):
        choice.grammar(PROCESSOR.tokenizer, MARKS)


def test_the_model_is_told_behind_what_the_system_says() -> None:
    raw = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    system, user = as_messages(raw, (LOOK,), MARKS)
    assert texts(system).startswith("Be brief.\n\n# Tools")
    assert LOOK.line in texts(system).splitlines()
    assert json.loads(LOOK.line) == {"name": "look", "description": "Looks.", "parameters": SCHEMA}
    assert user == Message("user", (TextPart("Hi"),))
    (system, _) = as_messages(raw[1:], (LOOK,), MARKS)
    assert texts(system).startswith(f"{DEFAULT_SYSTEM_PROMPT}\n\n# Tools")
    assert as_messages(raw[1:], (), MARKS) == [user]


@pytest.mark.parametrize("content", [None, "", "I look.", [{"type": "text", "text": "I look."}]])
def test_a_call_is_written_as_the_model_writes_it(content: object) -> None:
    turn = {"role": "assistant", "content": content, "tool_calls": [CALL, CALL]}
    _, message = as_messages([{"role": "user", "content": "Hi"}, turn], (), MARKS)
    parser = PartsParser(MARKS, thinks=False, calls=True)
    parts = parser.push(texts(message)) + parser.flush()
    assert texts(message).startswith("I look." if content else "<tool_call>")
    assert [part.name for part in parts if isinstance(part, CallBegun)] == ["look", "look"]
    assert [part.text for part in parts if isinstance(part, CallArguments)] == ['{"x": 1}'] * 2


def test_a_result_keeps_its_pictures_in_their_place() -> None:
    content = [
        {"type": "text", "text": "before"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "text", "text": "behind"},
    ]
    raw: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    ]
    result = as_messages(raw, (), MARKS)[2]
    assert result == Message(
        "user",
        (
            TextPart('<tool_response id="call_1">\n'),
            TextPart("before"),
            PicturePart(PIXEL, None, 512 * 512),
            TextPart("behind"),
            TextPart("\n</tool_response>"),
        ),
    )


def test_a_result_may_be_empty_or_text() -> None:
    for content, inner in ((None, ""), ("", ""), ("42", "42"), ([], "")):
        (message,) = as_messages([{"role": "tool", "tool_call_id": "a", "content": content}], (), MARKS)
        assert texts(message) == f'<tool_response id="a">\n{inner}\n</tool_response>'


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"role": "assistant", "tool_calls": "f"}, r"messages\[0\]\.tool_calls must be a list"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, r"messages\[0\]\.tool_calls\[0\] names no function"),
        ({"role": "tool", "tool_call_id": 7}, r"messages\[0\]\.tool_call_id must be a text"),
        ({"role": "tool", "content": [{"type": "video"}]}, r"messages\[0\]\.content\[0\] is of type 'video'"),
    ],
)
def test_turns_that_are_none(turn: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        as_messages([turn], (), MARKS)
