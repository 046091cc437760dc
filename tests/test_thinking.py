"""A thinking model's answer: a thought that ends, then something said. Nano, which never thinks, is made to."""

from __future__ import annotations

import json

import pytest
import torch

from kimi_vl import Grammar, Reply, SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.sampling import Sampler
from kimi_vl.thinking import Thinking
from tests.engines import LINE, PROCESSOR

TOKENIZER = PROCESSOR.tokenizer
OPENING, CLOSING = "◁think▷", "◁/think▷"
END = TOKENIZER.im_end_id


def rules(budget: int | None = None, *, ends: tuple[str, ...] = (), then: Grammar | None = None) -> Thinking:
    return Thinking(TOKENIZER, OPENING, CLOSING, budget, ends, then)


def answer(wish: list[int], thinking: Thinking, most: int = 1000) -> tuple[str, str | None]:
    """What becomes of a model that wants to say ``wish``, and next best anything else, and then to end."""
    sampler = Sampler([1], TOKENIZER.end_ids, SamplingParams(max_new_tokens=most, grammar=thinking))
    wish, finish = list(wish), None
    while finish is None:
        logits = torch.zeros(TOKENIZER.vocab_size)
        logits[TOKENIZER.encode(" hm")[0]] = 1.0
        wanted = wish[0] if wish else END
        logits[wanted] = 2.0
        drawn = sampler.draw(logits)
        if wish and drawn.id == wanted:
            wish.pop(0)
        finish = drawn.finish
    return TOKENIZER.decode(sampler.answer), finish


def test_the_thought_is_opened_whether_the_model_wants_it_or_not() -> None:
    said = f"{OPENING}So.{CLOSING}Yes."
    assert answer(TOKENIZER.encode(said), rules()) == (said, "stop")
    assert answer(TOKENIZER.encode(f"So.{CLOSING}Yes."), rules()) == (said, "stop")


def test_there_is_no_end_within_a_thought_and_none_right_behind_it() -> None:
    text, finish = answer(TOKENIZER.encode("So."), rules(), most=60)
    assert finish == "length"
    assert CLOSING not in text
    text, finish = answer(TOKENIZER.encode(f"So.{CLOSING}"), rules())
    assert finish == "stop"
    assert text.split(CLOSING)[1] == TOKENIZER.decode(TOKENIZER.encode(" hm")[:1])


@pytest.mark.parametrize("budget", [1, 7, 30])
def test_a_budget_is_kept_to_the_token(budget: int) -> None:
    text, finish = answer(TOKENIZER.encode(" thought" * 200), rules(budget), most=100 + budget)
    thought = text.removeprefix(OPENING).split(CLOSING)[0]
    assert len(TOKENIZER.encode(" thought" * 200)[:budget]) == budget
    assert thought == TOKENIZER.decode(TOKENIZER.encode(" thought" * 200)[:budget])
    assert CLOSING in text
    assert finish == "length"


def test_without_a_budget_nothing_is_thought() -> None:
    assert answer(TOKENIZER.encode("Yes."), rules(0)) == (f"{OPENING}{CLOSING}Yes.", "stop")


@pytest.mark.parametrize("piece", ["ha", "over and over, ", "".join(f"step {i}, " for i in range(12))])
def test_who_goes_round_in_circles_is_led_out(piece: str) -> None:
    tokens = TOKENIZER.encode("Well. " + piece * 500)
    text, _ = answer(tokens, rules(), most=3000)
    thought = text.split(CLOSING)[0]
    assert CLOSING in text
    assert 3 <= thought.count(piece) < 250


def test_lists_and_numbers_are_no_circles() -> None:
    thought = "".join(f"{n} squared is {n * n}, " for n in range(120))
    said = f"{OPENING}{thought}{CLOSING}Yes."
    assert answer(TOKENIZER.encode(said), rules(), most=5000) == (said, "stop")


def test_a_call_ends_a_thought() -> None:
    call = '<tool_call>{"name": "look"}</tool_call>'
    said = f"{OPENING}I look. {call}"
    assert answer(TOKENIZER.encode(said), rules(30, ends=("<tool_call>",))) == (said, "stop")


def test_a_grammar_begins_behind_the_thought() -> None:
    then = Grammar.choice(TOKENIZER, ["yes", "no"])
    text, finish = answer(TOKENIZER.encode(f'The answer is {{"a": 1}}, maybe.{CLOSING}no'), rules(then=then))
    assert (text, finish) == (f'{OPENING}The answer is {{"a": 1}}, maybe.{CLOSING}no', "stop")


def test_nano_thinks_within_its_budget_and_answers_by_schema(nano4: EngineModel) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    thinking = rules(12, then=Grammar.json_schema(TOKENIZER, schema))
    content = [{"type": "image", "image": LINE}, "Read the text."]
    texts = []
    for speculation in (0, 8):
        engine = Engine(nano4, EngineOptions(context=4096, speculation=speculation))
        params = SamplingParams(max_new_tokens=300, grammar=thinking)
        reply = Reply(engine, PROCESSOR, [{"role": "user", "content": content}], params)
        texts.append(reply.answer.text)
        assert reply.answer.finish_reason == "stop"
    thought, said = texts[0].removeprefix(OPENING).split(CLOSING)
    assert texts[0] == texts[1]
    assert 0 < len(TOKENIZER.encode(thought)) <= 12
    assert json.loads(said)["n"] in (1, 2)


def test_a_budget_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget must be 0 \(none\) or more, not -1"):
        rules(-1)
