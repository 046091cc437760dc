"""The engine against itself: whatever else it does meanwhile, a request gets the answer that it gets alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from kimi_vl import KimiVLProcessor, Reply, SamplingParams
from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE, PagePool, PictureSpan, page_keys
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.request import Progress, Request
from kimi_vl.hub import NANO

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
LINE = Image.open(Path(__file__).parents[1] / "docs" / "line.png")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "nano4"
    quantize(NANO, folder, backend())
    return folder


@pytest.fixture(scope="session")
def model(folder: Path) -> EngineModel:
    return EngineModel.from_folder(folder, backend())


def picture(seed: int) -> Image.Image:
    """Noise of a size of its own."""
    r = random.Random(seed)
    size = (r.randint(1, 180), r.randint(1, 90))
    return Image.frombytes("RGB", size, r.randbytes(3 * size[0] * size[1]))


def ask(model: EngineModel, question: str, *pictures: Image.Image, params: SamplingParams) -> Request:
    parts = [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": question}]
    inputs = PROCESSOR([{"role": "user", "content": parts}])
    return Engine(model, EngineOptions(context=PAGE)).request(inputs, params)


def mixed_request(model: EngineModel, seed: int) -> Request:
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
    return ask(model, words, *(picture(r.randint(0, 5)) for _ in range(r.choice([0, 1, 1, 2]))), params=params)


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
def alone(model: EngineModel) -> tuple[list[Request], dict[str, list[int]]]:
    """Sixty requests, each answered by an engine of its own."""
    requests = [mixed_request(model, seed) for seed in range(60)]
    said: dict[str, list[int]] = {}
    for request in requests:
        said |= answers(Engine(model, EngineOptions(context=2048)), [request])
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
    model: EngineModel, alone: tuple[list[Request], dict[str, list[int]]], options: EngineOptions
) -> None:
    requests, said = alone
    engine = Engine(model, options)
    order = random.Random(1).sample(requests, len(requests))
    assert answers(engine, order) == said
    assert engine.pages_free == engine.pages


def test_a_cancelled_request_hurts_no_other(
    model: EngineModel, alone: tuple[list[Request], dict[str, list[int]]]
) -> None:
    requests, said = alone
    engine = Engine(model, EngineOptions(context=512, step_tokens=60))
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


def test_the_same_beginning_is_read_once(model: EngineModel) -> None:
    engine = Engine(model, EngineOptions(context=4096))
    params = SamplingParams(max_new_tokens=3)
    a, b = picture(1).resize((400, 200)), picture(2).resize((400, 200))

    def reused(image: Image.Image) -> int:
        request = ask(model, "What is this?", image, params=params)
        engine.add(request)
        found = [p.reused for p in finish(engine)]
        assert len(set(found)) == 1
        return found[0]

    def finish(engine: Engine) -> Iterator[Progress]:
        while engine.busy:
            yield from engine.step()

    prompt = len(ask(model, "What is this?", a, params=params).prompt)
    before_pictures = 0  # the words before a picture fill no page
    assert [reused(a), reused(a), reused(b), reused(a)] == [
        before_pictures,
        (prompt - 1) // PAGE * PAGE,
        before_pictures,
        (prompt - 1) // PAGE * PAGE,
    ]


def test_a_prompt_that_fills_its_pages_is_still_read_to_its_end(model: EngineModel) -> None:
    engine = Engine(model, EngineOptions(context=1024))
    params = SamplingParams(max_new_tokens=3)
    words = ask(model, "word " * 200, params=params)
    first, second = (replace(words, id=name, prompt=words.prompt[: 2 * PAGE]) for name in "ab")
    assert answers(engine, [first])["a"] == answers(engine, [second])["b"]
    engine.add(replace(second, id="c"))
    # the last page is known as well, but a token must follow from something that is read
    assert next(p.reused for p in engine.step()) == PAGE


def test_what_can_never_fit_is_refused_with_the_numbers(model: EngineModel) -> None:
    engine = Engine(model, EngineOptions(context=128))
    request = ask(model, "Hello", params=SamplingParams(max_new_tokens=200))
    with pytest.raises(ValueError, match=r"\d+ prompt and 200 new tokens need \d pages of 64 tokens, .* has 2"):
        engine.add(request)
    assert not engine.busy


def test_a_stream_that_is_left_frees_its_pages(model: EngineModel) -> None:
    engine = Engine(model, EngineOptions(context=256))
    stream = engine.stream(PROCESSOR([{"role": "user", "content": "Hello"}]), SamplingParams(max_new_tokens=50))
    next(stream)
    assert engine.pages_free < engine.pages
    stream.close()  # type: ignore[attr-defined]
    assert engine.pages_free == engine.pages and not engine.busy


def test_a_quantised_folder_answers_like_any_other(folder: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "image": LINE}, "Read the text."]}]
    answer = Reply(Engine.from_pretrained(folder), PROCESSOR, messages).answer
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


def test_random_numbers_are_the_requests_own(model: EngineModel) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=1.0)
    said = [
        answers(Engine(model), [replace(ask(model, "Hello", params=params), seed=seed, id="x")])["x"]
        for seed in (1, 1, 2, 2**62 + 1)
    ]
    assert said[0] == said[1]
    assert len({tuple(tokens) for tokens in said}) > 1
    torch.manual_seed(0)
