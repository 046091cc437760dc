"""The tokenizer and the chat form against values of tiktoken and of the official template, case by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from kimi_vl.chat import parse_messages, picture_parts, render
from kimi_vl.tokenizer import CHAT_TEMPLATE, Tokenizer

GOLDEN = Path(__file__).parent / "golden"
IO = json.loads((GOLDEN / "io_golden.json").read_text(encoding="utf-8"))
TEXTS = IO["tokenizer"]["cases"]
CHATS = IO["chat"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer((GOLDEN / "tiny_tiktoken.model").read_bytes())


def test_there_are_cases() -> None:
    assert len(TEXTS) == 19
    assert len(CHATS) == 10


@pytest.mark.parametrize("case", TEXTS, ids=[f"{i}-{case['text'][:12]!r}" for i, case in enumerate(TEXTS)])
def test_ids_of_a_text(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    assert tokenizer.encode(case["text"]) == case["ids_no_special"]
    assert tokenizer.encode(case["text"], allow_special=True) == case["ids"]
    assert tokenizer.decode(case["ids"], skip_special=False) == case["text"]


def test_special_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.n_base == IO["tokenizer"]["n_base"]
    assert tokenizer.vocab_size == IO["tokenizer"]["n_base"] + 256
    for name, token_id in IO["tokenizer"]["special"].items():
        assert tokenizer.encode(name, allow_special=True) == [token_id]
        assert tokenizer.decode([token_id], skip_special=False) == name


@pytest.mark.parametrize("case", CHATS, ids=[str(i) for i in range(len(CHATS))])
def test_ids_of_a_chat(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    messages = parse_messages(case["messages"])
    prompt = case["add_generation_prompt"]
    ones = [1] * len(picture_parts(messages))
    rendered = render(messages, tokenizer, ones, add_generation_prompt=prompt)
    assert rendered.input_ids == tokenizer.encode(case["rendered"], allow_special=True)
    assert tokenizer.decode(rendered.input_ids, skip_special=False) == case["rendered"]


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("case", CHATS, ids=[str(i) for i in range(len(CHATS))])
def test_text_of_the_template_that_is_saved(case: dict[str, Any], trim: bool) -> None:
    # transformers trims blocks, llama.cpp and others do not
    template = jinja2.Environment(trim_blocks=trim, lstrip_blocks=trim).from_string(CHAT_TEMPLATE)
    wanted = {key: case[key] for key in ("messages", "add_generation_prompt")}
    assert template.render(**wanted) == case["rendered"]
