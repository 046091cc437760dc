"""The Responses interface over HTTP: items in and out, each event in its place, streamed as at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving import LINE_FILE, LINE_TOKENS, Server, data_url
from tests.test_serve_chat import LINE_SAYS, SCHEMA

PATH = "/v1/responses"
URL = data_url(LINE_FILE.read_bytes())
LINE = [
    {
        "role": "user",
        "content": [{"type": "input_image", "image_url": URL}, {"type": "input_text", "text": "Read the text."}],
    }
]
TOOL = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": False,
    },
}


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is new in every answer."""
    text = json.dumps(document)
    for item in document["output"]:
        text = text.replace(item["id"], "ID").replace(item.get("call_id", "-" * 99), "CALL")
    parsed: dict[str, Any] = json.loads(text.replace(document["id"], "ID"))
    parsed.pop("created_at")
    parsed["usage"]["input_tokens_details"].pop("cached_tokens")
    return parsed


def both(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """Asks in both ways, and sees that every event is in its place and the end the same."""
    document: dict[str, Any] = server.post(PATH, body).json()
    events = server.events(PATH, body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [event["type"] for event in events]
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == f"response.{document['status']}"
    assert plain(events[-1]["response"]) == plain(document)
    items: list[dict[str, Any]] = []
    texts: list[str] = []
    for event in events[2:-1]:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(items)
                items.append(event["item"])
                texts.append("")
            case "response.output_text.delta" | "response.function_call_arguments.delta":
                assert event["item_id"] == items[-1]["id"]
                texts[-1] += event["delta"]
            case "response.output_text.done":
                assert event["text"] == texts[-1]
            case "response.function_call_arguments.done":
                assert event["arguments"] == texts[-1]
            case "response.output_item.done":
                assert event["item"]["id"] == items[-1]["id"]
                items[-1] = event["item"]
            case other:
                assert other in ("response.content_part.added", "response.content_part.done")
    assert items == events[-1]["response"]["output"]
    for item, text in zip(items, texts, strict=True):
        assert text == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
    return document


def test_a_line_is_read(server: Server) -> None:
    document = both(server, {"input": LINE, "instructions": "Be exact.", "metadata": {"a": "b"}})
    assert document["object"] == "response"
    assert document["status"] == "completed"
    assert document["metadata"] == {"a": "b"}
    (item,) = document["output"]
    assert item["content"][0]["text"] == LINE_SAYS
    usage = document["usage"]
    assert usage["input_tokens_details"]["image_tokens"] == LINE_TOKENS
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(
    "wishes",
    [
        {"input": "Hello"},
        {"input": "Hello", "temperature": 2.0, "seed": 5, "max_output_tokens": 50},
        {"input": LINE, "include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {
            "input": "Which?",
            "temperature": 1.0,
            "seed": 2,
            "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        },
        {"input": "Which?", "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"input": "Which?", "tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}, "temperature": 1.0},
    ],
)
def test_streamed_is_as_at_once(server: Server, wishes: dict[str, Any]) -> None:
    document = both(server, {"seed": 1, **wishes})
    if "tools" in wishes:
        (call,) = document["output"]
        assert call["type"] == "function_call"
        assert 0 <= json.loads(call["arguments"])["n"] <= 99
    if "text" in wishes:
        assert set(json.loads(document["output"][0]["content"][0]["text"])) == {"colour", "count"}
    if "include" in wishes:
        tokens = document["output"][0]["content"][0]["logprobs"]
        assert "".join(token["token"] for token in tokens) == LINE_SAYS


def test_an_answer_that_is_cut_is_incomplete(server: Server) -> None:
    document = both(server, {"input": LINE, "max_output_tokens": 3})
    assert document["status"] == "incomplete"
    assert document["incomplete_details"] == {"reason": "max_output_tokens"}
    assert document["output"][0]["status"] == "incomplete"


def test_calls_and_their_results_with_pictures_go_on(server: Server) -> None:
    call = {"type": "function_call", "call_id": "call_7", "name": "look", "arguments": '{"n": 3}'}
    output = [{"type": "input_text", "text": "Here:"}, {"type": "input_image", "image_url": URL, "detail": "low"}]
    turns = [*LINE, {"type": "reasoning", "id": "rs_1", "summary": []}, call, {**call, "call_id": "call_8"}]
    turns += [{"type": "function_call_output", "call_id": f"call_{n}", "output": output} for n in (7, 8)]
    document = both(server, {"input": turns, "tools": [TOOL], "tool_choice": "none"})
    assert document["usage"]["input_tokens_details"]["image_tokens"] == 3 * LINE_TOKENS
    counted = server.post("/v1/responses/input_tokens", {"input": turns, "tools": [TOOL], "tool_choice": "none"}).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": document["usage"]["input_tokens"]}
    messages = [
        {"role": "user", "content": LINE[0]["content"]},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": '{"n": 3}'}}
                for n in (7, 8)
            ],
        },
        *({"role": "tool", "tool_call_id": f"call_{n}", "content": output} for n in (7, 8)),
    ]
    chat = server.post("/v1/tokenize", {"messages": messages}).json()
    assert chat["count"] == counted["input_tokens"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": []}, "messages is empty"),
        ({"input": 7}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type is 'item_reference'"),
        ({"input": [{"type": "function_call", "call_id": "x"}]}, "names no function"),
        ({"input": "Hi", "previous_response_id": "resp_1"}, "no conversations are kept"),
        ({"input": "Hi", "background": True}, "stay connected"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema"}}}, "must have a JSON schema"),
        ({"input": "Hi", "tools": [{"type": "file_search"}]}, "only 'function' is known"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "none are kept"),
    ],
)
def test_what_cannot_be_done_is_refused(server: Server, body: dict[str, Any], says: str) -> None:
    response = server.post(PATH, body)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
