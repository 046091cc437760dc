"""From a conversation to words: the same words however they are asked for, and honest counts."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from kimi_vl import generate as generation
from kimi_vl import sampling
from kimi_vl.answer import KimiVL, Reply, replies
from kimi_vl.config import KimiVLConfig
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.processor import KimiVLProcessor, ModelInputs
from kimi_vl.sampling import Drawn, Sampler, SamplingParams, draw, probabilities
from kimi_vl.tokenizer import Tokenizer
from tests.conftest import GOLDEN, GOLDEN_CONFIG, random_model

TOKENIZER = Tokenizer((GOLDEN / "tiny_tiktoken.model").read_bytes())
PROCESSOR = KimiVLProcessor(TOKENIZER, ImageProcessorConfig())
CONFIG = KimiVLConfig(
    text_config=replace(
        GOLDEN_CONFIG.text_config,
        vocab_size=TOKENIZER.vocab_size,
        bos_token_id=TOKENIZER.bos_id,
        eos_token_id=TOKENIZER.eos_id,
        pad_token_id=TOKENIZER.pad_id,
    ),
    vision_config=GOLDEN_CONFIG.vision_config,
    media_placeholder_token_id=TOKENIZER.media_pad_id,
    torch_dtype="float32",
)
MODEL = KimiVL(random_model(config=CONFIG))

MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": Image.new("RGB", (90, 60), (200, 30, 30))},
            "Which of the two is larger?",
            {"type": "image", "image": Image.new("RGB", (28, 50), (30, 30, 200))},
        ],
    }
]
INPUTS = PROCESSOR(MESSAGES)
SAMPLED = SamplingParams(max_new_tokens=12, temperature=1.0, seed=7)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the model say given ids, and counts how many it was made to compute."""

    def script(ids: Sequence[int]) -> list[int]:
        computed: list[int] = []

        def following(*_: object, **__: object) -> Tensor:
            computed.append(ids[len(computed)])
            return torch.nn.functional.one_hot(torch.tensor(computed[-1]), TOKENIZER.vocab_size).float()

        monkeypatch.setattr(generation, "prefill", following)
        monkeypatch.setattr(generation, "decode_step", following)
        return computed

    return script


# --- the same in each way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [SamplingParams(max_new_tokens=12), SAMPLED, replace(SAMPLED, top_p=0.5)])
def test_a_stream_is_the_answer(params: SamplingParams) -> None:
    assert [token.id for token in MODEL.stream(INPUTS, params)] == MODEL.generate(INPUTS, params)
    reply = Reply(MODEL, PROCESSOR, MESSAGES, params)
    pieces = list(reply)
    ids = [token for token in MODEL.generate(INPUTS, params) if token not in INPUTS.end_ids]
    assert "".join(pieces) == reply.answer.text == TOKENIZER.decode(ids)


def test_a_stream_computes_no_more_than_is_taken(says: Any) -> None:
    computed = says([1, 2, 3, 4, 5])
    stream = MODEL.stream(INPUTS, SamplingParams(max_new_tokens=5))
    assert computed == []
    assert [next(stream).id, next(stream).id] == [1, 2]
    assert computed == [1, 2]


def test_without_temperature_an_answer_is_the_likeliest_and_always_the_same() -> None:
    params = SamplingParams(max_new_tokens=12)
    answer = MODEL.generate(INPUTS, params)
    assert answer == MODEL.generate(INPUTS, replace(params, seed=1)) == MODEL.generate(INPUTS, params)
    ids = torch.cat((INPUTS.input_ids, torch.tensor(answer)))
    with torch.inference_mode():
        logits = MODEL.model(
            ids, [len(ids)], pixel_values=INPUTS.pixel_values, image_grid_hws=INPUTS.image_grid_hws
        ).logits
    assert logits[len(INPUTS.input_ids) - 1 : -1].argmax(-1).tolist() == answer


def test_a_seed_repeats_a_draw() -> None:
    torch.manual_seed(0)
    first = MODEL.generate(INPUTS, SAMPLED)
    torch.manual_seed(1)
    assert MODEL.generate(INPUTS, SAMPLED) == first
    assert MODEL.generate(INPUTS, replace(SAMPLED, seed=8)) != first
    unseeded = replace(SAMPLED, seed=None)
    assert MODEL.generate(INPUTS, unseeded) != MODEL.generate(INPUTS, unseeded)


def test_no_gradient_and_no_change() -> None:
    before = {name: tensor.clone() for name, tensor in MODEL.model.state_dict().items()}
    MODEL.generate(INPUTS, SAMPLED)
    assert all(torch.equal(before[name], tensor) for name, tensor in MODEL.model.state_dict().items())
    assert all(parameter.grad is None for parameter in MODEL.model.parameters())


# --- sampling --------------------------------------------------------------------------------------------------

EXAMPLE = torch.tensor([0.05, 0.5, 0.15, 0.3])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.05, 0.5, 0.15, 0.3]),
        (0.96, [0.05, 0.5, 0.15, 0.3]),
        (0.9, [0, 0.5 / 0.95, 0.15 / 0.95, 0.3 / 0.95]),
        (0.75, [0, 0.625, 0, 0.375]),
        (0.4, [0, 1, 0, 0]),
        (1e-9, [0, 1, 0, 0]),
    ],
)
def test_top_p_keeps_the_likeliest_until_their_mass_is_reached(top_p: float, expected: list[float]) -> None:
    params = SamplingParams(temperature=1.0, top_p=top_p)
    torch.testing.assert_close(probabilities(EXAMPLE.log(), params), torch.tensor(expected).float())


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.05, 0.5, 0.15, 0.3]),
        (0.5, [p * p / 0.365 for p in (0.05, 0.5, 0.15, 0.3)]),
        (1e9, [0.25] * 4),
        (1e-300, [0, 1, 0, 0]),
    ],
)
def test_temperature_sharpens_and_flattens(temperature: float, expected: list[float]) -> None:
    params = SamplingParams(temperature=temperature)
    torch.testing.assert_close(probabilities(EXAMPLE.log(), params), torch.tensor(expected).float())


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    temperature=st.floats(1e-3, 10),
    top_p=st.floats(1e-3, 1),
)
@settings(max_examples=100)
def test_top_p_keeps_the_smallest_set_that_is_enough(logits: list[float], temperature: float, top_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p)
    full = probabilities(torch.tensor(logits), replace(params, top_p=1.0))
    cut = probabilities(torch.tensor(logits), params)
    assert float(cut.sum()) == pytest.approx(1.0, abs=1e-5)
    kept = full[cut > 0]
    assert float(kept.sum()) >= top_p - 1e-5
    assert float(kept.sum() - kept.min()) < top_p + 1e-5
    assert float(kept.min()) >= float(full[cut == 0].max() if (cut == 0).any() else 0.0)


def test_draws_come_as_often_as_they_are_likely() -> None:
    params = SamplingParams(temperature=1.0)
    draws = torch.tensor([draw(EXAMPLE.log(), [], [], params, seed).id for seed in range(4000)])
    shares = torch.bincount(draws, minlength=4) / len(draws)
    assert (shares - EXAMPLE).abs().max() < 0.03  # four standard deviations of the most uncertain one
    cut = replace(params, top_p=0.75)
    assert {draw(EXAMPLE.log(), [], [], cut, seed).id for seed in range(300)} == {1, 3}


def test_drawn_together_is_drawn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any number of answers, each of its own seed, temperature and length, however many are done at a time."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 33, 500, generator=generator) * 3
    params = [
        SamplingParams(temperature=(0.3, 1.0, 2.0)[n % 3], seed=n, logprobs=(None, 0)[n % 2], max_new_tokens=3 + n % 2)
        for n in range(33)
    ]
    assert all(each.is_plain for each in params)

    def samplers() -> list[Sampler]:
        return [Sampler([1, 2], [499], each) for each in params]

    here = samplers()
    alone = [[one.draw(row) for one, row in zip(here, of_all, strict=True)] for of_all in logits]
    for at_a_time in (2**21, 1, 7 * 500):
        monkeypatch.setattr(sampling, "_TOGETHER", at_a_time)
        here = samplers()
        assert [Sampler.draw_together(here, of_all) for of_all in logits] == alone
    assert {one.finish for one in alone[2]} == {None, "length"}


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 0.0},
        {"top_p": 0.9},
        {"top_k": 3},
        {"min_p": 0.1},
        {"logit_bias": {1: 2.0}},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
        {"logprobs": 1},
    ],
)
def test_who_wants_more_than_a_temperature_is_not_plain(wish: dict[str, Any]) -> None:
    assert not replace(SamplingParams(temperature=1.0), **wish).is_plain


def test_logits_that_are_no_numbers_are_not_drawn_from() -> None:
    with pytest.raises(ValueError, match="the logits are no numbers"):
        draw(torch.tensor([0.0, float("nan"), 1.0]), [], [], SamplingParams(temperature=1.0), 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -3),
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("seed", -1),
        ("seed", 2**63),
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-30),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3.0),
        ("logprobs", 21),
        ("n", 0),
        ("stop", "end"),
    ],
)
def test_wrong_parameters_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .*, not {value!r}"):
        SamplingParams(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("params", [{"seed": 0}, {"seed": 2**63 - 1}, {"top_p": 1.0}, {"max_new_tokens": 1}])
def test_the_outermost_parameters_work(params: dict[str, Any]) -> None:
    assert MODEL.generate(INPUTS, SamplingParams(**{"max_new_tokens": 2, "temperature": 0.7, **params}))


def test_log_probabilities_are_the_models_own() -> None:
    params = replace(SAMPLED, logprobs=3, repetition_penalty=1.5, logit_bias={7: 50.0}, top_k=5)
    reply = Reply(MODEL, PROCESSOR, MESSAGES, params)
    next(iter(reply))
    assert reply.tokens and all(token.logprob is not None for token in reply.tokens)
    tokens = reply.answer.logprobs
    assert tokens is not None and len(tokens) == reply.answer.usage.completion_tokens
    ids = torch.cat((INPUTS.input_ids, torch.tensor([token.id for token in tokens])))
    with torch.inference_mode():
        out = MODEL.model(ids, [len(ids)], pixel_values=INPUTS.pixel_values, image_grid_hws=INPUTS.image_grid_hws)
    for token, row in zip(tokens, out.logits[len(INPUTS.input_ids) - 1 : -1].log_softmax(-1), strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-3)
        assert [other.logprob for other in token.likeliest] == pytest.approx(row.topk(3).values.tolist(), abs=1e-3)
    assert Reply(MODEL, PROCESSOR, MESSAGES, SAMPLED).answer.logprobs is None


def test_no_likeliest_may_be_asked_for() -> None:
    token = draw(EXAMPLE.log(), [], [], SamplingParams(logprobs=0), seed=0)
    assert token.logprob == pytest.approx(math.log(0.5)) and token.likeliest == ()


def test_several_answers_are_those_of_their_seeds() -> None:
    params = replace(SAMPLED, n=3)
    texts = [TOKENIZER.decode(MODEL.generate(INPUTS, each)) for each in params.each()]
    assert [reply.answer.text for reply in replies(MODEL, PROCESSOR, MESSAGES, params)] == texts
    with pytest.raises(ValueError, match="n is 3"):
        MODEL.stream(INPUTS, params)


# --- ends and counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [TOKENIZER.im_end_id, TOKENIZER.eos_id])
@pytest.mark.parametrize("length", [0, 3])
def test_both_ends_stop(says: Any, end: int, length: int) -> None:
    words = TOKENIZER.encode("abcdefg")[:length]
    assert len(words) == length
    says([*words, end, 1, 1])
    reply = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=20))
    assert "".join(reply) == TOKENIZER.decode(words)
    assert reply.answer.finish_reason == "stop"
    assert reply.answer.usage.completion_tokens == length + 1
    says([*words, end, 1, 1])
    assert MODEL.generate(INPUTS, SamplingParams(max_new_tokens=20)) == [*words, end]


def test_the_last_allowed_token_may_be_an_end(says: Any) -> None:
    says([5, TOKENIZER.im_end_id])
    reply = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=2))
    assert (reply.answer.finish_reason, reply.answer.usage.completion_tokens) == ("stop", 2)


def test_an_answer_that_is_cut_says_so(says: Any) -> None:
    computed = says([5] * 9)
    reply = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=4))
    assert (reply.answer.finish_reason, reply.answer.usage.completion_tokens) == ("length", 4)
    assert len(computed) == 4


def test_a_stop_string_ends_an_answer_and_is_told(says: Any) -> None:
    computed = says([*TOKENIZER.encode("a cat, a dog"), TOKENIZER.im_end_id])
    reply = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(stop=(", a", "x")))
    assert "".join(reply) == reply.answer.text == "a cat"
    assert (reply.answer.finish_reason, reply.answer.stop_string) == ("stop", ", a")
    assert TOKENIZER.decode(computed).endswith(", a")
    assert reply.answer.usage.completion_tokens == len(computed)


def test_usage_counts_words_and_pictures_apart(says: Any) -> None:
    says([5, 6, TOKENIZER.im_end_id])
    usage = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=9)).answer.usage
    assert usage.image_tokens == 4 * 3 + 1 * 2
    assert usage.text_tokens == int((INPUTS.input_ids != TOKENIZER.media_pad_id).sum())
    assert usage.total_tokens == len(INPUTS.input_ids) + 3


def test_timings_are_parts_of_the_whole(says: Any) -> None:
    says([5] * 3)
    timings = Reply(MODEL, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=3)).answer.timings
    assert min(timings.preparing, timings.first_token, timings.generating) >= 0


# --- a reply as it grows ---------------------------------------------------------------------------------------


def said(ids: Sequence[int]) -> Generator[Drawn]:
    """Tokens as a model would give them, the last one as an end."""
    for place, token in enumerate(ids, start=1):
        yield Drawn(token, finish="stop" if place == len(ids) else None)


@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), min_size=1, max_size=30), taken=st.integers(0, 30))
@settings(max_examples=40)
def test_a_reply_may_be_left_and_taken_up(ids: list[int], taken: int) -> None:
    """Ids cut characters in two, so pieces come late; what was not iterated belongs to the answer too."""
    words = [token for token in ids if token not in TOKENIZER.end_ids]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KimiVL, "stream", lambda *_: said([*words, TOKENIZER.im_end_id]))
        reply = Reply(MODEL, PROCESSOR, [{"role": "user", "content": "?"}])
        first = [piece for _, piece in zip(range(taken), reply, strict=False)]
        rest = list(reply)
    assert reply.answer.text == TOKENIZER.decode(words)
    assert reply.answer.usage.completion_tokens == len(words) + 1
    assert reply.answer.text.startswith("".join(first))
    assert reply.answer.text.endswith("".join(rest))
    answer = reply.answer
    assert list(reply) == []
    assert reply.answer is answer


def test_the_answer_after_a_first_piece_is_whole(says: Any) -> None:
    says([*TOKENIZER.encode("abc"), TOKENIZER.im_end_id])
    reply = Reply(MODEL, PROCESSOR, MESSAGES)
    pieces: Iterator[str] = iter(reply)
    assert "abc".startswith(next(pieces))
    assert reply.answer.text == "abc"
    assert reply.answer.finish_reason == "stop"


# --- what cannot be answered -----------------------------------------------------------------------------------


def with_context(limit: int) -> KimiVL:
    text = replace(CONFIG.text_config, max_position_embeddings=limit)
    return KimiVL(random_model(config=replace(CONFIG, text_config=text)))


def test_a_context_that_is_exceeded_is_refused_at_once_with_the_numbers() -> None:
    prompt = len(INPUTS.input_ids)
    model = with_context(prompt + 5)
    assert len(model.generate(INPUTS, SamplingParams(max_new_tokens=5))) <= 5
    message = (
        f"{INPUTS.text_tokens} text tokens, {INPUTS.image_tokens} image tokens and 6 new tokens "
        f"exceed the context of {prompt + 5}"
    )
    with pytest.raises(ValueError, match=message):
        model.stream(INPUTS, SamplingParams(max_new_tokens=6))
    with pytest.raises(ValueError, match=message):
        Reply(model, PROCESSOR, MESSAGES, SamplingParams(max_new_tokens=6))


def test_the_tokenizer_of_another_model_is_refused() -> None:
    other: ModelInputs = replace(INPUTS, vocab_size=163840)
    with pytest.raises(ValueError, match="the tokenizer has 163840 ids, the model 656"):
        MODEL.stream(other)


def test_patches_of_another_model_are_refused() -> None:
    assert INPUTS.pixel_values is not None
    other: ModelInputs = replace(INPUTS, pixel_values=INPUTS.pixel_values[..., :8, :8])
    with pytest.raises(ValueError, match="the processor cuts patches of 8 pixels, the model sees 14"):
        MODEL.stream(other)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, not 'int8'"):
        KimiVL.from_pretrained("nano", dtype="int8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_saved_and_loaded_it_answers_the_same(tmp_path: Any, dtype: str) -> None:
    model = KimiVL(random_model(config=CONFIG, dtype=getattr(torch, dtype)))
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    loaded, processor = KimiVL.from_pretrained(tmp_path), KimiVLProcessor.from_pretrained(tmp_path)
    params = SamplingParams(max_new_tokens=6)
    assert loaded.generate(processor(MESSAGES), params) == model.generate(INPUTS, params)
    assert loaded.config.torch_dtype == dtype
