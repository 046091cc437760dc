"""Grids and pixels against recorded values: the official algorithm restated by others (see tests/golden)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kimi_vl.media import load_picture
from kimi_vl.patches import ImageProcessorConfig, patchify, plan_grid

GOLDEN = Path(__file__).parent / "golden"
RECORD = json.loads((GOLDEN / "io_golden.json").read_text())
PIXELS = load_file(GOLDEN / "image_processor.safetensors")


@pytest.mark.parametrize("case", RECORD["images"], ids=lambda case: str(case["file"]))
def test_pixels_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    image = load_picture(GOLDEN / case["file"])
    assert image.size == tuple(case["size_wh"])
    pixels, grid = patchify(image, ImageProcessorConfig(in_token_limit=case["in_token_limit"]))
    assert [grid.h, grid.w] == case["grid_hw"]
    assert grid.tokens == case["tokens"]
    assert pixels.dtype == torch.float32
    # the record is rounded to float16, so ours must round to the very same
    assert torch.equal(pixels.to(torch.float16), PIXELS[f"{Path(case['file']).stem}.pixel_values_f16"])
    assert pixels.double().sum().item() == pytest.approx(case["float32_sum"], abs=1e-6 * pixels.numel())
    assert pixels.double().abs().sum().item() == pytest.approx(case["float32_abs_sum"], abs=1e-6 * pixels.numel())


@pytest.mark.parametrize("limit", [4096, 16384])
@pytest.mark.parametrize("case", RECORD["grids"], ids=lambda case: "x".join(map(str, case["wh"])))
def test_grids_equal_the_recorded_ones(case: dict[str, Any], limit: int) -> None:
    expected = case[str(limit)]
    config = ImageProcessorConfig(in_token_limit=limit)
    assert not expected["error"]
    width, height = case["wh"]
    grid = plan_grid(width, height, config)
    assert [grid.h, grid.w] == expected["grid_hw"]
    assert grid.tokens == expected["tokens"]
