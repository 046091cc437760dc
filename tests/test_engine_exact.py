"""The engine over a model as it is: answers of the model's own, and its log-probabilities to the last digits."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from kimi_vl import KimiVL, Reply, SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.exact import ExactModel
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import ModelInputs
from tests.engines import LINE, LINE_SAYS, PROCESSOR, picture, run

ENGLISH = "Read the text."


@pytest.fixture(scope="module")
def nano() -> KimiVL:
    return KimiVL.from_pretrained("nano", dtype="float32")


def asked(seed: int) -> ModelInputs:
    """Texts of many lengths, with pictures or without; some begin alike."""
    r = random.Random(seed)
    shown = [r.choice([LINE, picture(r.randint(0, 5))]) for _ in range(r.choice([0, 1, 1, 2]))]
    words = r.choice(["", "Answer in one word. ", "Well then, " * 40]) + r.choice([ENGLISH, "What is this?", "And?"])
    return PROCESSOR([{"role": "user", "content": [*({"type": "image", "image": one} for one in shown), words]}])


def said(engine: Engine, questions: list[ModelInputs], params: SamplingParams) -> list[list[tuple[int, float | None]]]:
    """Tokens and their log-probabilities, all asked at once."""
    requests = [engine.request(inputs, params) for inputs in questions]
    heard = run(engine, *requests)
    return [
        [(p.drawn.id, None if p.drawn.logprob is None else p.drawn.logprob) for p in heard[request.id]]
        for request in requests
    ]


@torch.inference_mode()
def logprobs(model: KimiVLForConditionalGeneration, inputs: ModelInputs, answer: list[int]) -> Tensor:
    """[answer], in one pass over all of it."""
    ids = torch.cat((inputs.input_ids, torch.tensor(answer)))
    grids = inputs.image_grid_hws if inputs.pixel_values is not None else None
    logits = model(ids, [len(ids)], pixel_values=inputs.pixel_values, image_grid_hws=grids).logits
    chances = logits[-len(answer) - 1 : -1].float().log_softmax(-1)
    return chances[torch.arange(len(answer)), torch.tensor(answer)]


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(context=32768, most_running=24),
        EngineOptions(step_tokens=50, most_running=7, speculation=0),
        EngineOptions(context=4096, speculation=0),
    ],
    ids=["all at once", "small steps", "small cache"],
)
def test_answers_are_those_of_one_pass_over_them(nano: KimiVL, options: EngineOptions) -> None:
    """Each greedy token is the likeliest, and each log-probability the model's."""
    engine = Engine(ExactModel(nano.model), options)
    questions = [asked(seed) for seed in range(24)]
    for inputs, heard in zip(
        questions, said(engine, questions, SamplingParams(max_new_tokens=12, logprobs=0)), strict=True
    ):
        answer = [token for token, _ in heard]
        told = torch.tensor([logprob for _, logprob in heard])
        assert (told - logprobs(nano.model, inputs, answer)).abs().max() < 1e-3
        alone = Reply(nano, PROCESSOR, inputs, SamplingParams(max_new_tokens=12)).answer
        assert PROCESSOR.tokenizer.decode(answer, skip_special=True).strip() == alone.text.strip()


def test_sampled_answers_have_the_chances_that_one_pass_gives(nano: KimiVL) -> None:
    engine = Engine(ExactModel(nano.model), EngineOptions(speculation=0))
    questions = [asked(seed) for seed in range(8)]
    params = SamplingParams(max_new_tokens=24, temperature=1.0, logprobs=0, seed=3)
    gaps = []
    for inputs, heard in zip(questions, said(engine, questions, params), strict=True):
        told = torch.tensor([logprob for _, logprob in heard])
        gaps.append((told - logprobs(nano.model, inputs, [token for token, _ in heard])).abs())
    assert torch.cat(gaps).mean() < 1e-5


def test_weights_that_change_are_those_that_answer_next() -> None:
    """What was read and seen before is forgotten, and no copy of the weights is kept."""
    model = KimiVL.from_pretrained("nano", dtype="float32")
    engine = Engine(ExactModel(model.model))
    params = SamplingParams(max_new_tokens=8, logprobs=0)
    long = PROCESSOR([{"role": "user", "content": [{"type": "image", "image": LINE}, "Well then, " * 60 + ENGLISH]}])
    before = said(engine, [long], params)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if name.endswith(("o_proj.weight", "wo.weight")):
                weight.mul_(1.1)
    engine.forget()
    (after,) = said(engine, [long], params)
    assert [after] != before
    told = torch.tensor([logprob for _, logprob in after])
    assert (told - logprobs(model.model, long, [token for token, _ in after])).abs().max() < 1e-3


def test_nothing_is_forgotten_at_work(nano: KimiVL) -> None:
    engine = Engine(ExactModel(nano.model))
    request = engine.request(asked(1), SamplingParams(max_new_tokens=4))
    engine.add(request)
    with pytest.raises(ValueError, match="the engine is at work"):
        engine.forget()
    engine.cancel(request.id)
    engine.forget()


def test_other_types_of_weights_answer_in_their_own(nano: KimiVL) -> None:
    half = KimiVL.from_pretrained("nano", dtype="bfloat16")
    line = PROCESSOR([{"role": "user", "content": [{"type": "image", "image": LINE}, ENGLISH]}])
    (heard,) = said(Engine(ExactModel(half.model)), [line], SamplingParams(max_new_tokens=24))
    assert PROCESSOR.tokenizer.decode([token for token, _ in heard]).strip() == LINE_SAYS
    with pytest.raises(ValueError, match="a cache of 8 bits is for weights of 4"):
        Engine(ExactModel(half.model), EngineOptions(kv_cache_dtype="int8"))
