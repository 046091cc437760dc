"""Structured answers: whatever the model would rather say, what it says matches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_vl import KimiVLProcessor, SamplingParams
from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.request import Request
from kimi_vl.grammar import Grammar
from kimi_vl.hub import NANO
from kimi_vl.sampling import Drawn, FinishReason, Sampler
from kimi_vl.tokenizer import Tokenizer

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
TOKENIZER = PROCESSOR.tokenizer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "grün", None]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["colour", "count", "tags"],
    "additionalProperties": False,
}
PATTERN = r"[a-zé]{3,6}/[0-9]{2}(\.[0-9])?"
CHOICES = ("yes", "yes, please", "no", '日本 "1"\n')


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("grammar") / "nano4"
    quantize(NANO, folder, backend())
    return Engine.from_pretrained(folder, options=EngineOptions(most_running=64))


def is_of_schema(text: str) -> bool:
    value = json.loads(text)
    return (
        list(value) == ["colour", "count", "tags"]
        and value["colour"] in ("red", "grün", None)
        and isinstance(value["count"], int)
        and 0 <= value["count"] <= 99
        and len(value["tags"]) <= 2
        and all(isinstance(tag, str) and len(tag) <= 4 for tag in value["tags"])
    )


def finish(engine: Engine, requests: list[Request]) -> dict[str, tuple[str, FinishReason]]:
    """Texts, and why they ended."""
    for request in requests:
        engine.add(request)
    ids: dict[str, list[int]] = {request.id: [] for request in requests}
    ended: dict[str, tuple[str, FinishReason]] = {}
    while engine.busy:
        for progress in engine.step():
            ids[progress.request.id].append(progress.drawn.id)
            if progress.finish is not None:
                ended[progress.request.id] = (TOKENIZER.decode(ids[progress.request.id]), progress.finish)
    return ended


def test_answers_match_and_those_beside_them_are_free(engine: Engine) -> None:
    inputs = PROCESSOR([{"role": "user", "content": "Hello"}])
    grammars = {
        "schema": Grammar.json_schema(TOKENIZER, SCHEMA),
        "regex": Grammar.regex(TOKENIZER, PATTERN),
        "choice": Grammar.choice(TOKENIZER, CHOICES),
    }
    free = [engine.request(inputs, SamplingParams(32, temperature=1.0, seed=seed)) for seed in range(3)]
    alone = [finish(engine, [request])[request.id] for request in free]
    kinds = {
        engine.request(inputs, SamplingParams(400, temperature=1.0, seed=seed, grammar=grammar)): kind
        for seed in range(30)
        for kind, grammar in grammars.items()
    }
    ended = finish(engine, [*kinds, *free])
    assert [ended[request.id] for request in free] == alone
    for request, kind in kinds.items():
        text, reason = ended[request.id]
        assert reason == "stop", text
        match kind:
            case "schema":
                assert is_of_schema(text)
            case "regex":
                assert re.fullmatch(PATTERN, text)
            case "choice":
                assert text in CHOICES


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_that_a_grammar_forces_takes_fewer_steps(engine: Engine, temperature: float) -> None:
    grammar = Grammar.regex(TOKENIZER, r'\{"(colour|shape)": "a word that is always the same", "number": [0-9]\}')
    params = SamplingParams(200, temperature=temperature, seed=1, logprobs=1, grammar=grammar)
    request = engine.request(PROCESSOR([{"role": "user", "content": "Hello"}]), params)

    def run(speculation: int) -> tuple[list[Drawn], int]:
        other = Engine(engine.model, EngineOptions(speculation=speculation))
        other.add(request)
        drawn, steps = [], 0
        while other.busy:
            drawn += [progress.drawn for progress in other.step()]
            steps += 1
        return drawn, steps

    (one_by_one, steps), (guessed, fewer) = run(0), run(8)
    assert guessed == one_by_one and steps == len(one_by_one)
    assert fewer < 0.7 * steps


def said(grammar: Grammar, *, seed: int = 0, temperature: float = 1.0, most: int = 200) -> tuple[str, FinishReason]:
    """By a model that finds every token as likely as any other."""
    params = SamplingParams(most, temperature=temperature, seed=seed, grammar=grammar)
    sampler = Sampler([1], TOKENIZER.end_ids, params)
    logits = torch.zeros(TOKENIZER.vocab_size)
    while (drawn := sampler.draw(logits)).finish is None:
        pass
    return TOKENIZER.decode(sampler.answer, skip_special=False), drawn.finish


def test_every_choice_can_be_said() -> None:
    grammar = Grammar.choice(TOKENIZER, CHOICES)
    texts = [said(grammar, seed=seed) for seed in range(60)]
    # what goes on needs an end token, which comes after it and is no part of the text
    assert {text.removesuffix("<|im_end|>").removesuffix("[EOS]") for text, _ in texts} == set(CHOICES)
    assert {reason for _, reason in texts} == {"stop"}


def test_a_grammar_that_is_complete_ends_the_answer_without_an_end_token() -> None:
    assert said(Grammar.choice(TOKENIZER, ["a"])) == ("a", "stop")
    assert said(Grammar.regex(TOKENIZER, "a{3}"), most=3) == ("aaa", "stop")
    assert said(Grammar.regex(TOKENIZER, "b*"), temperature=0.0, most=4)[1] == "length"


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5), st.integers(0, 100))
@settings(max_examples=60)
def test_any_text_may_be_a_choice(options: list[str], seed: int) -> None:
    text, reason = said(Grammar.choice(TOKENIZER, options), seed=seed)
    assert text.removesuffix("<|im_end|>").removesuffix("[EOS]") in options and reason == "stop"


def test_an_object_of_any_kind_is_an_object() -> None:
    sampler = Sampler([1], TOKENIZER.end_ids, SamplingParams(temperature=0, grammar=Grammar.json_object(TOKENIZER)))
    for token in TOKENIZER.encode('{"a": [1, {}],\n "b": "é"}'):
        drawn = sampler.draw(torch.nn.functional.one_hot(torch.tensor(token), TOKENIZER.vocab_size).float())
        assert drawn.id == token
    assert drawn.finish == "stop"


def test_special_tokens_are_never_text() -> None:
    matcher = Grammar.regex(TOKENIZER, r"(?s).*").matcher()
    special = matcher.allowed()[TOKENIZER.n_base :].nonzero().flatten() + TOKENIZER.n_base
    assert special.tolist() == sorted(TOKENIZER.end_ids)
    for token in TOKENIZER.encode("<|media_pad|>"):
        assert matcher.allowed()[token]
        matcher.accept(token)
    unfinished = Grammar.regex(TOKENIZER, "ab").matcher()
    assert not unfinished.allowed()[TOKENIZER.n_base :].any()


@pytest.mark.parametrize("written", ["{ ", "{\n" + 32 * " ", "{\r\n\t\t"])
def test_spaces_do_not_go_on_for_ever(written: str) -> None:
    """A blank, or a new line and its indentation, may stand between two tokens of JSON; no more."""
    newline, blank = (TOKENIZER.encode(space)[0] for space in ("\n", " "))
    matcher = Grammar.json_object(TOKENIZER).matcher()
    for token in (token for character in written for token in TOKENIZER.encode(character)):
        assert matcher.allowed()[token]
        matcher.accept(token)
    assert not matcher.allowed()[newline]
    assert bool(matcher.allowed()[blank]) == written.endswith("\t")
    for token in TOKENIZER.encode("}"):
        assert matcher.allowed()[token]


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "colour"}, "Invalid type: colour"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"$ref": "#/nowhere"}, "'/nowhere' does not exist"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "greater than maximum"),
        ({"enum": [object]}, "is no JSON"),
        (["type"], "must be an object"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as error:
        Grammar.json_schema(TOKENIZER, schema)
    assert str(error.value).startswith("the JSON schema") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "fault"), [("[0-9", "unclosed character class"), ("(?=a)b", "look-around"), (r"\bx", "look")]
)
def test_a_regular_expression_that_cannot_be_followed_is_refused(pattern: str, fault: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"the regular expression {pattern!r} cannot be followed: ")
    ) as error:
        Grammar.regex(TOKENIZER, pattern)
    assert fault in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("options", [[], ["a", ""], "yes"])
def test_a_choice_of_nothing_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="a choice needs one or more texts"):
        Grammar.choice(TOKENIZER, options)


def test_a_grammar_of_another_tokenizer_is_refused(engine: Engine) -> None:
    model = (Path(__file__).parent / "golden" / "tiny_tiktoken.model").read_bytes()
    other = Grammar.choice(Tokenizer(model), ["a"])
    with pytest.raises(ValueError, match="the grammar was made for 656 ids, the model has 4096"):
        engine.request(PROCESSOR([{"role": "user", "content": "Hello"}]), SamplingParams(grammar=other))


def test_a_grammar_that_outgrows_its_limits_is_an_error_and_no_answer() -> None:
    text, reason = said(Grammar.regex(TOKENIZER, r"(?s)(.{0,400}[a-m].{0,400}){9}z"), most=600)
    assert reason == "error" and not text.endswith("z")
