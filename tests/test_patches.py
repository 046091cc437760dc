"""The grid and the pixels as properties; recorded values are in test_golden_patches.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kimi_vl.patches import ImageProcessorConfig, PatchGrid, patchify, plan_grid

CONFIG = ImageProcessorConfig()


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def put_back(pixels: torch.Tensor, grid: PatchGrid) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lays the patches out one by one, as a reader of the paper would."""
    canvas = np.zeros((grid.h * 14, grid.w * 14, 3), dtype=np.uint8)
    for index, patch in enumerate(pixels):
        row, column = divmod(index, grid.w)
        values = ((patch.permute(1, 2, 0) * 0.5 + 0.5) * 255).round().to(torch.uint8)
        canvas[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = values.numpy()
    return canvas


def test_every_small_picture_has_a_quarter_as_many_tokens_as_patches() -> None:
    for height in range(1, 61):
        for width in range(1, 61):
            pixels, grid = patchify(Image.new("RGB", (width, height), (9, 9, 9)), CONFIG)
            assert pixels.shape == (grid.h * grid.w, 3, 14, 14)
            assert grid.tokens * 4 == grid.h * grid.w
            # sides are the next multiple of 28
            assert (grid.w, grid.h) == (2 * ((width + 27) // 28), 2 * ((height + 27) // 28))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (22, 3), (3, 22), (28, 28), (29, 57), (100, 30)])
def test_pixels_keep_their_place_and_padding_is_black_right_and_below(width: int, height: int) -> None:
    image = noise(width, height)
    pixels, grid = patchify(image, CONFIG)
    canvas = put_back(pixels, grid)
    assert np.array_equal(canvas[:height, :width], np.asarray(image))
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()


def test_values_are_from_minus_one_to_one() -> None:
    pixels, _ = patchify(Image.new("RGB", (28, 28), (0, 255, 51)), CONFIG)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.6], abs=1e-6)
    other = ImageProcessorConfig(image_mean=(0.0, 0.5, 0.2), image_std=(1.0, 0.25, 0.1))
    pixels, _ = patchify(Image.new("RGB", (28, 28), (0, 255, 51)), other)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([0.0, 2.0, 0.0], abs=1e-5)


@given(width=st.integers(1, 20000), height=st.integers(1, 20000), limit=st.sampled_from([64, 4096, 16384]))
def test_the_limit_holds_up_to_rounding_and_padding(width: int, height: int, limit: int) -> None:
    try:
        grid = plan_grid(width, height, ImageProcessorConfig(in_token_limit=limit))
    except ValueError:
        # only ever for a side of 512 patches
        assert max(width, height) > 510 * 14
        return
    new_width, new_height = grid.resized_size
    # the scale is worked out on whole patches, so what was cut off a short side comes back on top
    slack = (1 + 1 / max(1, width // 14)) * (1 + 1 / max(1, height // 14))
    assert (new_width // 14) * (new_height // 14) <= limit * slack
    assert new_width <= width
    assert new_height <= height
    assert grid.padded_size == (grid.w * 14, grid.h * 14)
    assert 0 <= grid.padded_size[0] - new_width < 28
    assert 0 <= grid.padded_size[1] - new_height < 28
    assert max(grid.h, grid.w) < 512
    assert (grid.resized_size == (width, height)) == ((width // 14) * (height // 14) <= limit)


def test_a_picture_over_the_limit_is_scaled_as_a_whole() -> None:
    image = Image.linear_gradient("L").resize((2000, 1500)).convert("RGB")
    pixels, grid = patchify(image, ImageProcessorConfig(in_token_limit=64))
    canvas = put_back(pixels, grid)
    # 142 x 107 patches over 64: scale 0.0649
    assert grid.resized_size == (129, 97)
    expected = np.asarray(image)[:: 1500 // 97, 1000, 0][:97]
    assert np.abs(canvas[:97, 60, 0].astype(int) - expected).max() < 12


@pytest.mark.parametrize("size", [(9000, 10), (10, 9000), (7141, 20), (100_000, 20)])
def test_a_side_of_512_patches_is_refused_with_the_numbers(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} needs .*512 patches \(7168 pixels\)"):
        plan_grid(*size, CONFIG)


def test_510_patches_are_the_longest_side() -> None:
    assert plan_grid(7140, 20, CONFIG).w == 510


def test_a_line_is_never_scaled_away() -> None:
    config = ImageProcessorConfig(patch_size=1, in_token_limit=16, merge_kernel_size=(1, 1))
    assert plan_grid(400, 1, config).resized_size == (80, 1)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no pixels"):
        plan_grid(*size, CONFIG)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"not {mode}"):
        patchify(Image.new(mode, (28, 28)), CONFIG)


@given(st.integers(30, 300), st.integers(30, 300), st.integers(1, 60_000), st.integers(2, 4))
def test_a_picture_is_as_large_as_wished(width: int, height: int, least: int, times: int) -> None:
    most = least * times + 2 * 196
    _, grid = patchify(Image.new("RGB", (width, height)), CONFIG, min_pixels=least, max_pixels=most)
    w, h = grid.resized_size
    if least <= width * height <= most:
        assert (w, h) == (width, height)
    assert min(least, width * height) <= w * h <= most
    # the shape stays, but for a side that is rounded to whole pixels
    assert abs(w * height - h * width) <= max(width, height) + max(w, h)


def test_wishes_change_nothing_for_a_picture_within_them() -> None:
    image = noise(100, 60)
    pixels, grid = patchify(image, CONFIG)
    wished, same = patchify(image, CONFIG, min_pixels=6000, max_pixels=100 * 60 + 2000)
    assert same == grid
    assert torch.equal(wished, pixels)


def test_the_models_limit_holds_whatever_is_wished() -> None:
    image, config = noise(300, 200), ImageProcessorConfig(in_token_limit=64)
    pixels, grid = patchify(image, config)
    wished, same = patchify(image, config, max_pixels=50_000)
    assert grid == same
    assert torch.equal(wished, pixels)


def test_a_small_picture_is_enlarged() -> None:
    _, grid = patchify(noise(10, 20), CONFIG, min_pixels=20_000)
    assert grid.resized_size == (100, 200)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"max_pixels": 0}, "max_pixels must be a whole number of at least 1, not 0"),
        ({"min_pixels": 2_000_000}, "min_pixels is 2000000, over the limit of 802816"),
        ({"min_pixels": 5000, "max_pixels": 4000}, "min_pixels is 5000, over the limit of 4000"),
    ],
)
def test_wishes_that_cannot_be_met(wishes: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        patchify(noise(30, 30), CONFIG, **wishes)


def test_without_padding_the_middle_is_kept() -> None:
    image = noise(61, 33)
    pixels, grid = patchify(image, ImageProcessorConfig(pad_input=False))
    # 61 - 56 = 5 leaves 2 on the left (2.5 to even), 33 - 28 = 5 leaves 2 above
    assert np.array_equal(put_back(pixels, grid), np.asarray(image)[2:30, 2:58])


@pytest.mark.parametrize("size", [(42, 28), (28, 42), (13, 28), (28, 13)])
def test_without_padding_blocks_must_be_whole(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"whole blocks of 2 x 2; set pad_input"):
        plan_grid(*size, ImageProcessorConfig(pad_input=False))


OFFICIAL = {
    "image_processor_type": "KimiVLImageProcessor",
    "processor_class": "KimiVLProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "in_token_limit": 4096,
    "merge_kernel_size": [2, 2],
    "num_pooled_tokens": 1024,
    "pad_input": True,
    "patch_size": 14,
}


def test_the_official_file_is_the_default() -> None:
    assert ImageProcessorConfig.from_dict(OFFICIAL) == CONFIG


def test_merge_kernel_size_may_be_missing() -> None:
    raw = {name: value for name, value in OFFICIAL.items() if name != "merge_kernel_size"}
    config = ImageProcessorConfig.from_dict({**raw, "in_token_limit": 16384})
    assert config == ImageProcessorConfig(in_token_limit=16384, merge_kernel_size=(2, 2))


def test_what_is_written_is_read_back() -> None:
    config = ImageProcessorConfig(
        in_token_limit=99, merge_kernel_size=(1, 3), pad_input=False, image_std=(0.1, 0.2, 0.3)
    )
    written = config.to_dict()
    assert ImageProcessorConfig.from_dict(json.loads(json.dumps(written))) == config
    assert written["auto_map"]["AutoImageProcessor"] == (
        "moonshotai/Kimi-VL-A3B-Instruct--image_processing_kimi_vl.KimiVLImageProcessor"
    )


@pytest.mark.parametrize("name", ["pad_input", "image_mean", "image_std"])
def test_settings_with_two_defaults_must_be_written_out(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is missing"):
        ImageProcessorConfig.from_dict({key: value for key, value in OFFICIAL.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 0),
        ("patch_size", 14.0),
        ("in_token_limit", -1),
        ("in_token_limit", True),
        ("merge_kernel_size", [2]),
        ("merge_kernel_size", [2, 0]),
        ("merge_kernel_size", 2),
        ("pad_input", "yes"),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", ["a", "b", "c"]),
        ("image_std", [0.5, 0.5, 0]),
        ("image_std", None),
        ("image_processor_type", "CLIPImageProcessor"),
    ],
)
def test_an_impossible_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"preprocessor_config.json: {name}"):
        ImageProcessorConfig.from_dict({**OFFICIAL, name: value})
