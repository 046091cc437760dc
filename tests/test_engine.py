"""The engine against itself: whatever else it does meanwhile, a request gets the answer that it gets alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from kimi_vl import KimiVLProcessor, Reply, SamplingParams, replies
from kimi_vl.engine import scheduler
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.guess import Guesses
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE, PagePool, PictureSpan, page_keys
from kimi_vl.engine.request import Progress, Request
from kimi_vl.engine.weights import Segment
from kimi_vl.sampling import Drawn, penalised, probabilities

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
LINE = Image.open(Path(__file__).parents[1] / "docs" / "line.png")


def picture(seed: int) -> Image.Image:
    """Noise of a size of its own."""
    r = random.Random(seed)
    size = (r.randint(1, 104), r.randint(1, 52))
    return Image.frombytes("RGB", size, r.randbytes(3 * size[0] * size[1]))


def ask(nano4: EngineModel, question: str, *pictures: Image.Image, params: SamplingParams) -> Request:
    parts = [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": question}]
    inputs = PROCESSOR([{"role": "user", "content": parts}])
    return Engine(nano4, EngineOptions(context=PAGE)).request(inputs, params)


def mixed_request(nano4: EngineModel, seed: int) -> Request:
    r = random.Random(seed)
    words = " ".join(
        r.choice(["what", "read", "the", "colour", "Ünïcode", "42", "<|media_pad|>"]) for _ in range(r.randint(1, 60))
    )
    params = SamplingParams(
        max_new_tokens=r.randint(1, 24),
        temperature=r.choice([0.0, 0.0, 0.8]),
        top_p=r.choice([1.0, 0.9]),
        repetition_penalty=r.choice([1.0, 1.2]),
        seed=seed,
    )
    return ask(nano4, words, *(picture(r.randint(0, 5)) for _ in range(r.choice([0, 1, 1, 2]))), params=params)


def answers(engine: Engine, requests: list[Request]) -> dict[str, list[int]]:
    for request in requests:
        engine.add(request)
    said: dict[str, list[int]] = {request.id: [] for request in requests}
    for _ in range(100_000):  # steps that do nothing are soon over
        if not engine.busy:
            return said
        for progress in engine.step():
            said[progress.request.id].append(progress.drawn.id)
    raise AssertionError("the engine is busy with nothing")


@pytest.fixture(scope="session")
def alone(nano4: EngineModel) -> tuple[list[Request], dict[str, list[int]]]:
    """Forty requests, each answered by an engine of its own, one token a step."""
    requests = [mixed_request(nano4, seed) for seed in range(40)]
    said: dict[str, list[int]] = {}
    for request in requests:
        said |= answers(Engine(nano4, EngineOptions(context=2048, speculation=0)), [request])
    return requests, said


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(step_tokens=1, most_running=3),
        EngineOptions(step_tokens=17, context=1024),
        EngineOptions(context=448, step_tokens=100, feature_tokens=1),
        EngineOptions(deterministic=True, context=512),
    ],
)
def test_together_is_alone(
    nano4: EngineModel, alone: tuple[list[Request], dict[str, list[int]]], options: EngineOptions
) -> None:
    requests, said = alone
    engine = Engine(nano4, options)
    # One token a step takes ten times as long as any other way: a third of them.
    order = random.Random(1).sample(requests, len(requests) // (3 if options.step_tokens == 1 else 1))
    assert answers(engine, order) == {request.id: said[request.id] for request in order}
    assert engine.pages_free == engine.pages


@pytest.mark.parametrize("deterministic", [False, True])
def test_guesses_right_or_wrong_change_no_answer(
    nano4: EngineModel,
    alone: tuple[list[Request], dict[str, list[int]]],
    monkeypatch: pytest.MonkeyPatch,
    deterministic: bool,
) -> None:
    requests, said = alone
    by_prompt = {request.prompt: said[request.id] for request in requests}
    r = random.Random(4)

    def guess(self: Guesses, most: int) -> list[int]:
        """What comes next indeed, but for a token here and there."""
        prompt = next(p for p in by_prompt if p == tuple(self.ids[: len(p)]))
        coming = by_prompt[prompt][len(self.ids) - len(prompt) :]
        return [token if r.random() < 0.7 else r.randrange(4096) for token in coming[:most]]

    monkeypatch.setattr(Guesses, "next", guess)
    monkeypatch.setattr(scheduler, "how_many", lambda *_: 5)
    engine = Engine(nano4, EngineOptions(context=640, deterministic=deterministic))
    assert answers(engine, requests) == said
    assert engine.pages_free == engine.pages


def test_text_that_repeats_itself_takes_fewer_steps(nano4: EngineModel) -> None:
    params = SamplingParams(
        max_new_tokens=60, logprobs=2, logit_bias=dict.fromkeys(PROCESSOR.tokenizer.encode("a b"), 50.0)
    )
    request = ask(nano4, "Hello", params=params)

    def run(speculation: int) -> tuple[list[Drawn], int]:
        engine = Engine(nano4, EngineOptions(speculation=speculation))
        engine.add(request)
        drawn, steps = [], 0
        while engine.busy:
            drawn += [progress.drawn for progress in engine.step()]
            steps += 1
        return drawn, steps

    one_by_one, steps = run(0)
    guessed, fewer = run(8)
    assert guessed == one_by_one and steps == 60
    assert fewer < 30


def test_a_cancelled_request_hurts_no_other(
    nano4: EngineModel, alone: tuple[list[Request], dict[str, list[int]]]
) -> None:
    requests, said = alone
    engine = Engine(nano4, EngineOptions(context=512, step_tokens=60))
    r = random.Random(2)
    for request in requests:
        engine.add(request)
    gone: set[str] = set()
    heard: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.busy:
        if r.random() < 0.1:
            victim = r.choice(requests).id
            gone.add(victim)
            engine.cancel(victim)
        for progress in engine.step():
            heard[progress.request.id].append(progress.drawn.id)
    for request_id, tokens in said.items():
        if request_id in gone:
            assert tokens[: len(heard[request_id])] == heard[request_id]
        else:
            assert tokens == heard[request_id]
    assert gone and engine.pages_free == engine.pages


def test_the_same_beginning_is_read_once(nano4: EngineModel) -> None:
    engine = Engine(nano4, EngineOptions(context=4096))
    params = SamplingParams(max_new_tokens=3)
    a, b = picture(1).resize((400, 200)), picture(2).resize((400, 200))

    def reused(image: Image.Image) -> int:
        request = ask(nano4, "What is this?", image, params=params)
        engine.add(request)
        found = [p.reused for p in finish(engine)]
        assert len(set(found)) == 1
        return found[0]

    def finish(engine: Engine) -> Iterator[Progress]:
        while engine.busy:
            yield from engine.step()

    prompt = len(ask(nano4, "What is this?", a, params=params).prompt)
    before_pictures = 0  # the words before a picture fill no page
    assert [reused(a), reused(a), reused(b), reused(a)] == [
        before_pictures,
        (prompt - 1) // PAGE * PAGE,
        before_pictures,
        (prompt - 1) // PAGE * PAGE,
    ]


@pytest.mark.parametrize("deterministic", [False, True])
def test_several_answers_read_their_prompt_once(
    nano4: EngineModel, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    inputs = PROCESSOR([{"role": "user", "content": [{"type": "image", "image": LINE}, "word " * 150]}])
    params = SamplingParams(max_new_tokens=20, temperature=1.0, seed=5, n=4)
    alone = [Reply(Engine(nano4), PROCESSOR, inputs, each).answer.text for each in params.each()]
    read = 0
    run = EngineModel.run

    def counting(self: EngineModel, x: Tensor, segments: Sequence[Segment], cache: Tensor) -> Tensor:
        nonlocal read
        read += sum(segment.tokens for segment in segments if segment.is_prompt)
        return run(self, x, segments, cache)

    monkeypatch.setattr(EngineModel, "run", counting)
    engine = Engine(nano4, EngineOptions(step_tokens=100, deterministic=deterministic))
    several = replies(engine, PROCESSOR, inputs, params)
    assert [reply.answer.text for reply in reversed(several)] == alone[::-1]
    assert len(set(alone)) == 4
    prompt = len(inputs.input_ids)
    # what fills no page is read by each
    assert read == prompt + 3 * (prompt - (prompt - 1) // PAGE * PAGE)
    assert engine.pages_free == engine.pages


def test_one_answer_is_the_first_of_several() -> None:
    params = SamplingParams(n=3, seed=11)
    each = params.each()
    assert each[0] == replace(params, n=1) and len({one.seed for one in each}) == 3
    assert each == params.each()
    unseeded = SamplingParams(n=2).each()
    assert None not in {one.seed for one in unseeded} and unseeded[0].seed != unseeded[1].seed


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (SamplingParams(n=2), "n is 2, but this gives one answer"),
        (SamplingParams(logit_bias={4096: 1.0}), "logit_bias names id 4096, outside the vocabulary, 0 to 4095"),
    ],
)
def test_what_would_stop_the_others_is_refused(nano4: EngineModel, params: SamplingParams, message: str) -> None:
    engine = Engine(nano4)
    with pytest.raises(ValueError, match=message):
        engine.stream(PROCESSOR([{"role": "user", "content": "Hello"}]), params)
    assert not engine.busy


def test_a_prompt_that_fills_its_pages_is_still_read_to_its_end(nano4: EngineModel) -> None:
    engine = Engine(nano4, EngineOptions(context=1024))
    params = SamplingParams(max_new_tokens=3)
    words = ask(nano4, "word " * 200, params=params)
    first, second = (replace(words, id=name, prompt=words.prompt[: 2 * PAGE]) for name in "ab")
    assert answers(engine, [first])["a"] == answers(engine, [second])["b"]
    engine.add(replace(second, id="c"))
    # the last page is known as well, but a token must follow from something that is read
    assert next(p.reused for p in engine.step()) == PAGE


def test_what_can_never_fit_is_refused_with_the_numbers(nano4: EngineModel) -> None:
    engine = Engine(nano4, EngineOptions(context=128))
    request = ask(nano4, "Hello", params=SamplingParams(max_new_tokens=200))
    with pytest.raises(ValueError, match=r"\d+ prompt and 200 new tokens need \d pages of 64 tokens, .* has 2"):
        engine.add(request)
    assert not engine.busy


def test_a_stream_that_is_left_frees_its_pages(nano4: EngineModel) -> None:
    engine = Engine(nano4, EngineOptions(context=256))
    stream = engine.stream(PROCESSOR([{"role": "user", "content": "Hello"}]), SamplingParams(max_new_tokens=50))
    next(stream)
    assert engine.pages_free < engine.pages
    stream.close()
    assert engine.pages_free == engine.pages and not engine.busy


def test_streams_of_one_engine_may_be_read_in_any_order(nano4: EngineModel) -> None:
    inputs = [PROCESSOR([{"role": "user", "content": text}]) for text in ("Hello", "What is this?")]
    params = SamplingParams(max_new_tokens=12, temperature=1.0, seed=3)
    alone = [list(Engine(nano4).stream(each, params)) for each in inputs]
    engine = Engine(nano4)
    first, second = (engine.stream(each, params) for each in inputs)
    begun = [next(second), next(second)]
    assert [list(first), begun + list(second)] == alone
    assert not engine.busy


def test_a_stop_string_cancels_the_request(nano4: EngineModel) -> None:
    engine = Engine(nano4)
    messages = [{"role": "user", "content": [{"type": "image", "image": LINE}, "Read the text."]}]
    reply = Reply(engine, PROCESSOR, messages, SamplingParams(stop=("second", "xyz")))
    assert "".join(reply) == reply.answer.text == "Turn left at the "
    assert (reply.answer.finish_reason, reply.answer.stop_string) == ("stop", "second")
    assert not engine.busy and engine.pages_free == engine.pages
    whole = Reply(engine, PROCESSOR, messages).answer
    assert reply.answer.usage.completion_tokens < whole.usage.completion_tokens


def test_a_stream_that_is_let_go_is_cancelled(nano4: EngineModel) -> None:
    engine = Engine(nano4)
    stream = engine.stream(PROCESSOR([{"role": "user", "content": "Hello"}]))
    assert engine.busy
    del stream
    assert not engine.busy


def test_a_quantised_folder_answers_like_any_other(nano4_folder: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "image": LINE}, "Read the text."]}]
    answer = Reply(Engine.from_pretrained(nano4_folder), PROCESSOR, messages).answer
    assert answer.text == "Turn left at the second street." and answer.finish_reason == "stop"


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="nano is not in 4 bits: run kimi-vl quantize nano DST"):
        Engine.from_pretrained("nano")


# --- pages -------------------------------------------------------------------------------------------------------


def test_keys_depend_on_all_that_came_before_and_on_every_picture() -> None:
    ids = list(range(200))
    span = PictureSpan(70, 20, b"a")
    keys = page_keys(ids, [span])
    assert len(keys) == 3
    assert page_keys([9, *ids[1:]], [span])[0] != keys[0]
    other = page_keys(ids, [replace(span, digest=b"b")])
    assert other[0] == keys[0] and other[1] != keys[1] and other[2] != keys[2]
    assert page_keys(ids, [replace(span, start=71)])[1] != keys[1]
    assert page_keys(ids[:-8], [span]) == keys
    assert page_keys(ids, [span], keys[:2]) == keys


def test_the_longest_unused_page_goes_first() -> None:
    pool = PagePool(3)
    pages = [pool.take() for _ in range(3)]
    assert pool.take() is None
    held = [page for page in pages if page is not None]
    for page in held:
        pool.name(page, bytes([page]))
    pool.release(held)
    # the end of a sequence before its beginning
    assert pool.take() == held[-1]
    assert pool.known([bytes([held[0]]), bytes([held[1]]), bytes([held[2]])]) == held[:2]
    pool.hold(held[:2])
    assert pool.free == 0


def test_random_numbers_are_the_requests_own(nano4: EngineModel) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=2.0)
    said = [
        answers(Engine(nano4), [replace(ask(nano4, "Hello", params=params), seed=seed, id="x")])["x"]
        for seed in (1, 1, 2, 2**62 + 1)
    ]
    assert said[0] == said[1]
    assert len({tuple(tokens) for tokens in said}) > 1
    torch.manual_seed(0)


class Faulty:
    """What an answer may be, until it fails at its third token."""

    vocab_size = PROCESSOR.tokenizer.vocab_size
    complete = failed = False
    tokens = 0

    def matcher(self) -> Faulty:
        return Faulty()

    def allowed(self) -> None:
        if self.tokens == 3:
            raise ZeroDivisionError("at the third token")

    def accept(self, token: int) -> None:
        self.tokens += 1

    def forced(self) -> list[int]:
        return []


def test_logits_that_are_no_numbers_are_their_own_requests_fault(
    nano4: EngineModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all that are drawn by a temperature alone are drawn together."""
    params = SamplingParams(max_new_tokens=6, temperature=1.0, seed=1)
    requests = [ask(nano4, f"Hello {n}", params=params) for n in range(3)]
    alone = [answers(Engine(nano4), [request])[request.id] for request in requests]
    plain = EngineModel.logits

    def broken(self: EngineModel, x: Tensor) -> Tensor:
        found = plain(self, x).clone()
        if len(found) == 3:  # once, for then there are two
            found[1, 7] = float("nan")
        return found

    monkeypatch.setattr(EngineModel, "logits", broken)
    engine = Engine(nano4, EngineOptions(context=2048, speculation=0))
    said = answers(engine, requests)
    assert (said[requests[0].id], said[requests[2].id]) == (alone[0], alone[2])
    (error,) = engine.take_failures().values()
    assert "the logits are no numbers" in str(error)


def test_a_request_that_fails_fails_alone(nano4: EngineModel) -> None:
    """By how it is drawn, by a picture that the tower cannot take, or one that does not fill its place (B1); its pages
    are free again."""
    params = SamplingParams(max_new_tokens=12, temperature=1.0, seed=1)
    good = [ask(nano4, f"Hello {n}", LINE, params=params) for n in range(3)]
    alone = [answers(Engine(nano4), [request])[request.id] for request in good]
    drawn = ask(nano4, "Hi", params=replace(params, grammar=Faulty()))  # type: ignore[arg-type]
    seen = ask(nano4, "Hi", picture(77), params=params)
    seen = replace(seen, pictures=(replace(seen.pictures[0], pixel_values=torch.zeros(3, 3)),))
    short = ask(nano4, "Hi", picture(78), params=params)
    four = replace(short.pictures[0], pixel_values=short.pictures[0].pixel_values[:4].contiguous(), grid=(2, 2))
    short = replace(short, pictures=(four,))
    engine = Engine(nano4, EngineOptions(context=2048))
    said = answers(engine, [good[0], drawn, good[1], seen, short, good[2]])
    assert [said[request.id] for request in good] == alone
    failures = engine.take_failures()
    assert isinstance(failures[drawn.id], ZeroDivisionError)
    assert set(failures) == {drawn.id, seen.id, short.id}
    assert "a picture has 1 features for" in str(failures[short.id])
    assert engine.take_failures() == {}
    assert engine.pages_free == engine.pages
    stream = engine.stream(PROCESSOR([{"role": "user", "content": "Hi"}]), drawn.params)
    with pytest.raises(ZeroDivisionError):
        list(stream)


@pytest.mark.parametrize("wishes", [{"top_p": 5e-324}, {"temperature": 5e-324}, {"temperature": 1e300}, {"min_p": 1.0}])
def test_the_ends_of_ranges_draw_something(wishes: dict[str, float]) -> None:
    params = SamplingParams(**{"temperature": 1.0, **wishes})  # type: ignore[arg-type]
    logits = torch.tensor([3.0, -80.0, 3.5, 1e4])
    kept = probabilities(logits, params)
    assert kept.isfinite().all()
    assert kept.sum() == pytest.approx(1.0)
    for factor in (0.01, 100.0):
        changed = penalised(logits * 1e4, [0, 1], [], replace(params, repetition_penalty=factor))
        assert probabilities(changed, params).isfinite().all()
