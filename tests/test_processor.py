"""Conversations with pictures: counts that agree, pictures in their order, errors that name the picture."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kimi_vl.chat import parse_messages
from kimi_vl.media import PictureLimits
from kimi_vl.patches import ImageProcessorConfig, patchify, plan_grid
from kimi_vl.processor import KimiVLProcessor, ModelInputs
from kimi_vl.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
TOKENIZER = Tokenizer((GOLDEN / "tiny_tiktoken.model").read_bytes())
CONFIG = ImageProcessorConfig()
PROCESSOR = KimiVLProcessor(TOKENIZER, CONFIG)


def picture(width: int, height: int, grey: int = 90) -> Image.Image:
    return Image.new("RGB", (width, height), (grey, 255 - grey, 7))


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def ask(*content: Any, processor: KimiVLProcessor = PROCESSOR) -> ModelInputs:
    return processor([{"role": "user", "content": list(content)}])


def runs(inputs: ModelInputs) -> list[int]:
    """Lengths of the runs of placeholders, checked to stand within their marks."""
    t = TOKENIZER
    text = t.decode(inputs.input_ids.tolist(), skip_special=False)
    pieces = text.split("<|media_start|>image<|media_content|>")[1:]
    assert all("<|media_pad|><|media_end|>" in piece for piece in pieces)
    return [piece.count("<|media_pad|>") for piece in pieces]


def test_one_picture() -> None:
    inputs = ask({"type": "image", "image": picture(100, 50)}, "Hi")
    assert inputs.image_grid_hws.tolist() == [[4, 8]]
    assert inputs.image_grid_hws.dtype == inputs.input_ids.dtype == torch.int64
    assert inputs.answer_mask.dtype == torch.bool
    assert inputs.pixel_values is not None
    assert inputs.pixel_values.shape == (32, 3, 14, 14)
    assert inputs.pixel_values.dtype == torch.float32
    assert runs(inputs) == [8]
    assert inputs.image_tokens == 8
    assert inputs.text_tokens == len(inputs.input_ids) - 8
    assert inputs.input_ids.shape == inputs.answer_mask.shape
    assert not inputs.answer_mask.any()


def test_no_picture() -> None:
    inputs = PROCESSOR([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    assert inputs.pixel_values is None
    assert inputs.image_grid_hws.shape == (0, 2)
    assert inputs.image_grid_hws.dtype == torch.int64
    assert inputs.image_tokens == 0
    assert inputs.text_tokens == len(inputs.input_ids)
    assert TOKENIZER.decode(inputs.input_ids[inputs.answer_mask].tolist(), skip_special=False) == "Ho<|im_end|>"


def test_the_generation_prompt_can_be_left_out() -> None:
    raw = [{"role": "user", "content": ["Hi", {"image": picture(28, 28)}]}]
    opening = TOKENIZER.encode("<|im_assistant|>assistant<|im_middle|>", allow_special=True)
    without = PROCESSOR(raw, add_generation_prompt=False)
    assert PROCESSOR(raw).input_ids.tolist() == without.input_ids.tolist() + opening


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=4), st.booleans())
def test_placeholders_features_and_patches_agree_for_mixed_sizes(sizes: list[tuple[int, int]], small: bool) -> None:
    config = replace(CONFIG, in_token_limit=20) if small else CONFIG
    inputs = ask(*({"image": picture(*size)} for size in sizes), processor=replace(PROCESSOR, image_config=config))
    grids = [plan_grid(*size, config) for size in sizes]
    assert runs(inputs) == [grid.tokens for grid in grids]
    assert inputs.image_grid_hws.tolist() == [[grid.h, grid.w] for grid in grids]
    assert inputs.image_tokens == int((inputs.input_ids == TOKENIZER.media_pad_id).sum())
    assert inputs.pixel_values is not None
    assert len(inputs.pixel_values) == 4 * inputs.image_tokens


@pytest.mark.parametrize("number", range(6))
def test_golden_pictures_have_their_tokens(number: int) -> None:
    case = json.loads((GOLDEN / "io_golden.json").read_text(encoding="utf-8"))["images"][number]
    processor = replace(PROCESSOR, image_config=replace(CONFIG, in_token_limit=case["in_token_limit"]))
    inputs = ask({"type": "image", "path": GOLDEN / case["file"]}, processor=processor)
    assert inputs.image_tokens == case["tokens"]
    assert inputs.image_grid_hws.tolist() == [case["grid_hw"]]


def test_pictures_stay_in_order_over_turns() -> None:
    pictures = [picture(28 * n, 28, grey=50 * n) for n in (1, 3, 2)]
    inputs = PROCESSOR(
        [
            {"role": "user", "content": ["a", {"image": pictures[0]}, "b", {"image": pictures[1]}]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": [{"image": pictures[2]}, "d"]},
        ]
    )
    assert runs(inputs) == [1, 3, 2]
    assert inputs.image_grid_hws.tolist() == [[2, 2], [2, 6], [2, 4]]
    assert inputs.pixel_values is not None
    assert torch.equal(inputs.pixel_values, torch.cat([patchify(image, CONFIG)[0] for image in pictures]))
    text = TOKENIZER.decode(inputs.input_ids.tolist())
    assert text.endswith("useraimagebimageassistantcuserimagedassistant")


def test_placeholders_in_the_text_of_a_user_are_text() -> None:
    fake = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
    inputs = ask(fake, {"image": picture(56, 28)}, "<|media_pad|>")
    assert int((inputs.input_ids == TOKENIZER.media_pad_id).sum()) == inputs.image_tokens == 2
    alone = ask(fake)
    assert alone.image_tokens == 0
    assert alone.pixel_values is None
    assert int((alone.input_ids >= TOKENIZER.media_start_id).sum()) == 0


PNG = file_of(picture(60, 30))
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        f"DATA:IMAGE/PNG;BASE64,{TEXT}",
        f"data:image/jpeg;base64,{TEXT}",
        f"data:image;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode()}",
        "data:image/png;base64," + "\r\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
        TEXT,
    ],
)
@pytest.mark.parametrize("shape", ["openai", "input_image", "image", "base64"])
def test_data_urls_and_base64_in_every_shape(url: str, shape: str) -> None:
    part = {
        "openai": {"type": "image_url", "image_url": {"url": url}},
        "input_image": {"type": "input_image", "image_url": url},
        "image": {"type": "image", "image": url},
        "base64": {"type": "image", "base64": url},
    }[shape]
    inputs = ask(part)
    assert inputs.pixel_values is not None
    assert torch.equal(inputs.pixel_values, patchify(picture(60, 30), CONFIG)[0])


def test_bytes_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for source in (PNG, path, str(path)):
        assert ask({"type": "image", "image": source}).image_grid_hws.tolist() == [[4, 6]]
    assert ask({"type": "image", "path": str(path)}).image_grid_hws.tolist() == [[4, 6]]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"no picture", "no picture in a known format"),
        (PNG[:-40], "cannot be read"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("https://example.com/a.png", "not fetched here"),
        (Path("/nowhere/a.png"), "no such file"),
        (picture(14 * 512, 1), "a side must stay under 512 patches"),
    ],
)
def test_the_error_names_the_picture(bad: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^picture 2 of 3: .*{says}"):
        ask({"image": PNG}, "and", {"type": "image", "image": bad}, {"image": PNG})


def test_messages_are_checked_before_a_picture_is_opened() -> None:
    with pytest.raises(ValueError, match=r"^messages\[1\]\.role is 'robot'"):
        PROCESSOR([{"role": "user", "content": [{"image": b"broken"}]}, {"role": "robot", "content": ""}])


def test_limits_and_background_reach_the_reader() -> None:
    with pytest.raises(ValueError, match=r"picture 1 of 1: .*limit of 1799"):
        ask({"image": PNG}, processor=replace(PROCESSOR, limits=PictureLimits(max_pixels=1799)))
    assert ask({"image": PNG}, processor=replace(PROCESSOR, limits=PictureLimits(max_pixels=1800))).image_tokens == 6
    clear = Image.new("RGBA", (28, 28), (9, 9, 9, 0))
    for background, value in (((255, 255, 255), 1.0), ((0, 0, 0), -1.0)):
        pixels = ask({"image": clear}, processor=replace(PROCESSOR, background=background)).pixel_values
        assert pixels is not None
        assert torch.all(pixels == value)


def test_parsed_messages_are_taken_too() -> None:
    raw = [{"role": "user", "content": ["Hi", {"image": PNG}]}]
    assert torch.equal(PROCESSOR(parse_messages(raw)).input_ids, PROCESSOR(raw).input_ids)


def test_saved_and_read_again(tmp_path: Path) -> None:
    config = ImageProcessorConfig(in_token_limit=16384)
    KimiVLProcessor(TOKENIZER, config).save_pretrained(tmp_path / "folder")
    again = KimiVLProcessor.from_pretrained(tmp_path / "folder")
    assert again.image_config == config
    assert torch.equal(ask(picture_part := {"image": PNG}, processor=again).input_ids, ask(picture_part).input_ids)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing: copy"),
        ("{", "is not JSON"),
        ("[]", "must hold a mapping, not list"),
        ("{}", "pad_input"),
    ],
)
def test_a_missing_or_broken_preprocessor_config(tmp_path: Path, content: str | None, says: str) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"preprocessor_config\.json:? {says}"):
        KimiVLProcessor.from_pretrained(tmp_path)
