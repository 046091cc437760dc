"""Plain completions over HTTP: text goes on as the model would have it, several at once, and pictures are refused."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_vl import KimiVLProcessor
from tests.serving import LINE_PART, Server

PATH = "/v1/completions"
TOKENIZER = KimiVLProcessor.from_pretrained("nano").tokenizer


def joined(events: list[dict[str, Any]]) -> dict[int, tuple[str, str | None, list[str]]]:
    choices: dict[int, tuple[str, str | None, list[str]]] = {}
    for event in events:
        for choice in event["choices"]:
            text, _, tokens = choices.get(choice["index"], ("", None, []))
            new = (choice["logprobs"] or {"tokens": []})["tokens"]
            choices[choice["index"]] = text + choice["text"], choice["finish_reason"], tokens + new
    return choices


def both(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = server.post(PATH, body).json()
    assert document["object"] == "text_completion", document
    events = server.events(PATH, {**body, "stream_options": {"include_usage": True}})
    for usage in (events[-1]["usage"], document["usage"]):
        usage["prompt_tokens_details"].pop("cached_tokens")
    assert events[-1]["usage"] == document["usage"]
    assert joined(events) == {
        choice["index"]: (choice["text"], choice["finish_reason"], (choice["logprobs"] or {"tokens": []})["tokens"])
        for choice in document["choices"]
    }
    return document


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "The first"},
        {"prompt": ["The first", "A second"], "n": 2, "temperature": 1.0, "seed": 1},
        {"prompt": "The first", "echo": True, "logprobs": 2},
        {"prompt": "The first", "temperature": 20.0, "seed": 2, "logprobs": 0},
        {"prompt": "The first", "stop": "e"},
    ],
)
def test_streamed_is_as_at_once(server: Server, body: dict[str, Any]) -> None:
    document = both(server, {"max_tokens": 40, **body})
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    assert [choice["index"] for choice in document["choices"]] == list(range(len(prompts) * body.get("n", 1)))
    assert document["usage"]["prompt_tokens"] == sum(len(TOKENIZER.encode(prompt)) for prompt in prompts)


def test_ids_are_as_their_text(server: Server) -> None:
    text = "The first"
    said = [
        server.post(PATH, {"prompt": prompt, "max_tokens": 12}).json()["choices"][0]["text"]
        for prompt in (text, TOKENIZER.encode(text), [TOKENIZER.encode(text)], [text])
    ]
    assert len(set(said)) == 1


def test_logprobs_say_where_each_token_stands(server: Server) -> None:
    body = {"prompt": "The first", "max_tokens": 12, "logprobs": 2, "echo": True}
    choice = server.post(PATH, body).json()["choices"][0]
    shown = choice["logprobs"]
    for token, offset, top in zip(shown["tokens"], shown["text_offset"], shown["top_logprobs"], strict=True):
        assert choice["text"][offset:].startswith(token)
        assert 1 <= len(top) <= 2
    assert choice["text"].startswith("The first")


def test_marks_are_ordinary_text_here(server: Server) -> None:
    """Nothing of what a plain text goes on with is taken for a thought."""
    ids = TOKENIZER.encode("◁think▷a")
    bias = {str(token): 60 for token in ids}
    body = {"prompt": "x", "max_tokens": 12, "logit_bias": bias, "temperature": 1.0, "seed": 1}
    document = server.post(PATH, body).json()
    choice, usage = document["choices"][0], document["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0
    assert choice["text"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": ""}, "prompt[0] is empty"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [[]]}, "prompt[0] is empty"),
        ({"prompt": [1, 99999]}, "outside the vocabulary"),
        ({"prompt": [1, -5]}, "outside the vocabulary"),
        ({"prompt": [TOKENIZER.media_pad_id]}, "stands for a picture's part"),
        ({"prompt": [LINE_PART]}, "pictures go to /v1/chat/completions"),
        ({"prompt": LINE_PART}, "pictures go to /v1/chat/completions"),
        ({"prompt": "x", "multi_modal_data": {"image": "x"}}, "pictures go to /v1/chat/completions"),
        ({"prompt": "x", "messages": [{}]}, "they go to /v1/chat/completions"),
        ({"prompt": ["x"] * 17}, "ask for 17 answers, over the limit of 16"),
        ({"prompt": "x", "suffix": "y"}, "suffix is not known here"),
        ({"prompt": "x", "best_of": 3}, "best_of is not known here"),
        ({"prompt": "x", "max_tokens": 999_999}, "exceed the context of 131072"),
        ({}, "prompt: Field required"),
    ],
)
def test_what_cannot_be_done_is_refused(server: Server, body: dict[str, Any], says: str) -> None:
    response = server.post(PATH, body)
    assert response.status_code == 400, response.text
    assert says in response.json()["error"]["message"]
