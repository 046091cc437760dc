"""A model that thinks first, over HTTP: the thought is never an answer, and budget, switch, schema and tools hold.

Nano never learned to think. Its marks are forced, and what stands between them is what it happens to say.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_vl.hub import NANO
from kimi_vl.tokenizer import Tokenizer
from tests.serving import LINE_PART, Server, user
from tests.test_serve_chat import FORMAT, PATH, TOOL, both, joined

TOKENIZER = Tokenizer.from_pretrained(NANO)
MARKS = ("◁think▷", "◁/think▷", "<tool_call>", "</tool_call>")
ASK = {"messages": user(LINE_PART, "Read the text."), "temperature": 1.0, "seed": 3, "max_tokens": 120}


def reasoning_tokens(server: Server, body: dict[str, Any]) -> int:
    usage = server.post(PATH, body).json()["usage"]
    return int(usage["completion_tokens_details"]["reasoning_tokens"])


@pytest.mark.parametrize("seed", range(5))
def test_thought_and_answer_are_apart_and_streamed_as_at_once(thinker: Server, seed: int) -> None:
    (choice,) = both(thinker, {**ASK, "seed": seed}).values()
    assert choice["reasoning_content"]
    assert choice["content"]
    for mark in MARKS:
        assert mark not in choice["content"] + choice["reasoning_content"]


def test_a_thought_that_is_cut_is_no_answer(thinker: Server) -> None:
    """Thought only, no content, and the reason is the length (E1)."""
    (choice,) = both(thinker, {**ASK, "max_tokens": 16, "thinking_budget": 500}).values()
    assert choice["reasoning_content"]
    assert (choice["content"], choice["finish_reason"]) == ("", "length")
    document = thinker.post(PATH, {**ASK, "max_tokens": 16, "thinking_budget": 500}).json()
    assert document["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    "wish",
    [
        {"thinking_budget": 40},
        {"thinking": {"type": "enabled", "budget_tokens": 40}},
        {"thinking": {"budget_tokens": 40}, "reasoning_effort": "low"},
    ],
)
def test_a_budget_bites(thinker: Server, wish: dict[str, Any]) -> None:
    """Though the opening mark is the model's own to write (E3)."""
    spent = reasoning_tokens(thinker, {**ASK, **wish})
    marks = 20  # tokens of both, at most
    assert 40 <= spent <= 40 + marks
    (choice,) = both(thinker, {**ASK, **wish}).values()
    assert choice["content"]


@pytest.mark.parametrize(
    "wish",
    [
        {"thinking_budget": 0},
        {"thinking": {"type": "disabled"}},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"thinking": False}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_thinking_can_be_switched_off(thinker: Server, wish: dict[str, Any]) -> None:
    body = {**ASK, **wish}
    (choice,) = both(thinker, body).values()
    assert choice["reasoning_content"] == ""
    assert choice["content"]
    assert reasoning_tokens(thinker, body) == 0


def test_a_thought_in_circles_is_closed(thinker: Server) -> None:
    """Whatever its budget is (E5)."""
    body = {**ASK, "messages": user("Hello"), "temperature": 0, "thinking_budget": 5000, "max_tokens": 300}
    # one token again and again, but for those of the marks
    body["logit_bias"] = {"300": 100}
    document = thinker.post(PATH, body).json()
    spent = document["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 200 <= spent < 260


def test_a_schema_holds_for_what_is_said_and_not_before(thinker: Server) -> None:
    """(E9)"""
    for seed in range(4):
        (choice,) = both(thinker, {**ASK, "seed": seed, "response_format": FORMAT}).values()
        assert choice["reasoning_content"]
        assert set(json.loads(choice["content"])) == {"colour", "count"}


def test_a_call_follows_a_thought(thinker: Server) -> None:
    """(E10)"""
    body = {**ASK, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    for seed in range(4):
        (choice,) = both(thinker, {**body, "seed": seed}).values()
        assert choice["reasoning_content"]
        assert (choice["content"], choice["finish_reason"]) == ("", "tool_calls")
        assert [call["name"] for call in choice["calls"]] == ["look"]
        json.loads(choice["calls"][0]["arguments"])


def test_a_long_call_comes_whole(thinker: Server) -> None:
    """More than 8 KB of arguments with lines, brackets, and marks within a string (E11)."""
    code = 'if (mark == "◁/think▷") {\n  </tool_call> }\n' + "the same word again, " * 400
    only = {"type": "object", "properties": {"code": {"const": code}}, "required": ["code"]}
    tool = {"type": "function", "function": {"name": "run", "parameters": {**only, "additionalProperties": False}}}
    body = {**ASK, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 4000}
    (choice,) = joined(thinker.events(PATH, {**body, "thinking_budget": 8})).values()
    assert choice["reasoning_content"] and choice["content"] == ""
    (call,) = choice["calls"]
    assert len(call["arguments"]) > 8192 and json.loads(call["arguments"]) == {"code": code}


def test_who_would_end_at_once_thinks_and_says_something(thinker: Server) -> None:
    """(E2)"""
    ends = [str(each) for each in TOKENIZER.end_ids]
    body = {**ASK, "logit_bias": dict.fromkeys(ends, 100), "thinking_budget": 8}
    (choice,) = both(thinker, body).values()
    assert choice["reasoning_content"] and choice["content"]
    assert choice["finish_reason"] == "stop"


def test_marks_that_are_said_are_text(thinker: Server) -> None:
    said = "◁think▷ opens a thought, ◁/think▷ closes it."
    schema = {"type": "object", "properties": {"t": {"const": said}}, "required": ["t"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema}}
    (choice,) = both(thinker, {**ASK, "response_format": form}).values()
    assert choice["reasoning_content"] and said not in choice["reasoning_content"]
    assert json.loads(choice["content"]) == {"t": said}


def test_a_stop_string_is_not_looked_for_in_a_thought(thinker: Server) -> None:
    """(E2)"""
    free = both(thinker, ASK)[0]
    letter = next(each for each in free["reasoning_content"] if each.isalpha())
    stopped = both(thinker, {**ASK, "stop": letter})[0]
    assert stopped["reasoning_content"] == free["reasoning_content"]
    assert stopped["content"] == free["content"].split(letter)[0]


def test_logprobs_are_those_of_what_is_said_alone(thinker: Server) -> None:
    (choice,) = both(thinker, {**ASK, "logprobs": True}).values()
    text = bytes(byte for token in choice["logprobs"] for byte in token["bytes"]).decode(errors="replace")
    assert text.lstrip().endswith(choice["content"][-5:])
    assert choice["reasoning_content"] not in text


def test_what_is_begun_is_gone_on_with_without_a_thought(thinker: Server) -> None:
    def body(begun: str) -> dict[str, Any]:
        return {**ASK, "messages": [*user(LINE_PART, "Read the text."), {"role": "assistant", "content": begun}]}

    for begun in ("Turn left", "◁think▷Hm.◁/think▷Turn left"):
        (choice,) = both(thinker, {**body(begun), "continue_final_message": True}).values()
        assert choice["content"] and choice["reasoning_content"] == ""
    refused = thinker.post(PATH, {**body("◁think▷Turn"), "continue_final_message": True})
    assert refused.status_code == 400
    assert "ends within a thought: close it with ◁/think▷" in refused.json()["error"]["message"]


def test_old_thoughts_are_left_out_of_the_history(thinker: Server) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."},
        {"role": "user", "content": "And?"},
    ]
    without = [{key: value for key, value in turn.items() if key != "reasoning_content"} for turn in turns]
    counts = [thinker.post("/v1/tokenize", {"messages": each}).json()["tokens"] for each in (turns, without)]
    assert counts[0] == counts[1]


def test_the_model_says_that_it_thinks(thinker: Server) -> None:
    (card,) = thinker.get("/v1/models").json()["data"]
    assert card["id"] == "thinker"
    assert "thinking" in card["capabilities"]


def test_responses_have_the_thought_as_an_item_of_its_own(thinker: Server) -> None:
    body = {"input": [{"role": "user", "content": "Hello"}], "temperature": 1.0, "seed": 3, "max_output_tokens": 100}
    document = thinker.post("/v1/responses", body).json()
    reasoning, message = document["output"]
    assert reasoning["type"] == "reasoning"
    assert reasoning["content"][0]["text"]
    assert message["content"][0]["text"]
    assert document["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    again = {**body, "input": [*body["input"], reasoning, message, {"role": "user", "content": "And?"}]}  # type: ignore[misc]
    assert thinker.post("/v1/responses", again).status_code == 200
    off = thinker.post("/v1/responses", {**body, "reasoning": {"effort": "none"}}).json()
    assert [item["type"] for item in off["output"]] == ["message"]
