"""What requests share: a beginning of the same tokens and the same pictures, and no more (cases in brackets)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from kimi_vl import SamplingParams
from kimi_vl.engine.engine import Engine
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE, PictureSpan, page_keys
from kimi_vl.engine.request import Request
from tests.engines import LINE, PROCESSOR, ask, run, simple_answer

PARAMS = SamplingParams(max_new_tokens=6)
# of one size, 120 tokens each
A, B = Image.new("RGB", (400, 200), "white"), Image.new("RGB", (400, 200), "red")
A.paste(LINE, (20, 80))


def answer_and_reuse(engine: Engine, request: Request) -> tuple[list[int], int]:
    heard = run(engine, request)[request.id]
    assert len({p.reused for p in heard}) == 1
    return [p.drawn.id for p in heard], heard[0].reused


def one_pixel_off(image: Image.Image, at: tuple[int, int]) -> Image.Image:
    near = image.copy()
    red, green, blue = near.getpixel(at)  # type: ignore[misc]
    near.putpixel(at, (red, green, blue ^ 1))
    return near


def test_a_picture_is_read_once(nano4: EngineModel) -> None:
    """(C1, C3) The same question on A, A again, B of the same size, A again."""
    engine = Engine(nano4)
    requests = [ask(nano4, image, "What is this?", params=PARAMS) for image in (A, A, B, A)]
    found = [answer_and_reuse(engine, request) for request in requests]
    whole = (len(requests[0].prompt) - 1) // PAGE * PAGE
    assert whole == 320
    assert [reused for _, reused in found] == [0, whole, 0, whole]
    assert [answer for answer, _ in found] == [simple_answer(nano4, request) for request in requests]
    assert found[0][0] != found[2][0]


def test_a_second_turn_reads_what_is_new(nano4: EngineModel) -> None:
    """(C3) The picture and the first answer are there."""
    engine = Engine(nano4)
    question: dict[str, Any] = {"role": "user", "content": [{"image": A}, "What is this?"]}
    first = engine.request(PROCESSOR([question]), replace(PARAMS, max_new_tokens=60, logit_bias=NEVER_ENDS))
    said = [p.drawn.id for p in run(engine, first)[first.id]]
    talk: list[dict[str, Any]] = [question, {"role": "assistant", "content": PROCESSOR.tokenizer.decode(said)}]
    second = engine.request(PROCESSOR([*talk, {"role": "user", "content": "And?"}]), PARAMS)
    _, reused = answer_and_reuse(engine, second)
    assert reused >= (len(first.prompt) - 1) // PAGE * PAGE > 64


NEVER_ENDS = dict.fromkeys(PROCESSOR.tokenizer.end_ids, -100.0)


@pytest.mark.parametrize("at", [(0, 0), (399, 199), (200, 100)])
def test_one_pixel_makes_another_picture(nano4: EngineModel, at: tuple[int, int]) -> None:
    """(C1) One bit of one channel: nothing but the words before it is shared."""
    engine = Engine(nano4)
    answer_and_reuse(engine, ask(nano4, "word " * 80, A, "?", params=PARAMS))
    near = ask(nano4, "word " * 80, one_pixel_off(A, at), "?", params=PARAMS)
    answer, reused = answer_and_reuse(engine, near)
    assert reused == near.pictures[0].span.start // PAGE * PAGE > 0
    assert answer == simple_answer(nano4, near)


def test_the_same_pixels_read_in_another_way_are_another_picture(nano4: EngineModel) -> None:
    """(C1) With fewer patches allowed, and on another background: the words and their number may be the same."""
    clear = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    small = replace(PROCESSOR, image_config=replace(PROCESSOR.image_config, in_token_limit=64))
    black = replace(PROCESSOR, background=(0, 0, 0))
    for image, other in ((A, small), (clear, black)):
        messages = [{"role": "user", "content": [{"image": image}, "?"]}]
        engine = Engine(nano4)
        requests = [engine.request(processor(messages), PARAMS) for processor in (PROCESSOR, other)]
        assert requests[0].pictures[0].span.digest != requests[1].pictures[0].span.digest
        found = [answer_and_reuse(engine, request) for request in requests]
        assert [reused for _, reused in found] == [0, 0]
        assert [answer for answer, _ in found] == [simple_answer(nano4, request) for request in requests]


def test_patches_that_lie_otherwise_are_another_picture(nano4: EngineModel) -> None:
    """(C1) One grey makes the same bytes whether it stands or lies."""
    grey = [Image.new("RGB", size, (90, 90, 90)) for size in ((448, 112), (112, 448))]
    requests = [ask(nano4, image, "?", params=PARAMS) for image in grey]
    assert requests[0].prompt == requests[1].prompt
    engine = Engine(nano4)
    for request in requests:
        assert answer_and_reuse(engine, request) == (simple_answer(nano4, request), 0)


def test_pictures_in_another_order_are_other_pictures(nano4: EngineModel) -> None:
    """(C1) A and B, B and A, A twice, A and B again: what comes before the first that differs is shared."""
    engine = Engine(nano4)
    ab, ba, aa = (ask(nano4, *images, "Which is first?", params=PARAMS) for images in ((A, B), (B, A), (A, A)))
    assert ab.prompt == ba.prompt == aa.prompt
    to_the_second, whole = ab.pictures[1].span.start, len(ab.prompt) - 1
    for request, known in ((ab, 0), (ba, 0), (aa, to_the_second), (ab, whole)):
        answer, reused = answer_and_reuse(engine, request)
        assert reused == known // PAGE * PAGE
        assert answer == simple_answer(nano4, request)


def test_digests_count_to_the_last_bit() -> None:
    """(C2) Crafted digests that share all but one bit, and a picture that lies elsewhere over the same page."""
    ids = [7] * 300
    digest = bytes(32)
    keys = page_keys(ids, [PictureSpan(10, 200, digest)])
    for place in (0, 15, 30, 31):
        near = bytearray(digest)
        near[place] ^= 1
        assert not set(keys) & set(page_keys(ids, [PictureSpan(10, 200, bytes(near))]))
    assert not set(keys) & set(page_keys(ids, [PictureSpan(11, 200, digest)]))
    # what a key says is not only where its page lies: the same page behind another beginning is another
    assert page_keys([8, *ids[1:]], [])[-1] != page_keys(ids, [])[-1]
    assert len(keys[0]) == 32


def test_pictures_are_known_by_256_bits_of_all_that_the_tower_sees(nano4: EngineModel) -> None:
    """(C2) Thousands of pictures that differ in one patch have as many digests."""
    digests = set()
    blank = Image.new("RGB", (28, 28))
    for number in range(3000):
        blank.putpixel((number % 28, number // 28 % 28), (number % 256, number // 256, 5))
        digests.add(ask(nano4, blank, params=PARAMS).pictures[0].span.digest[:8])
    assert len(digests) == 3000
    assert len(ask(nano4, LINE, params=PARAMS).pictures[0].span.digest) == 32
