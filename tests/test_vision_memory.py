"""Pictures do not pile up in memory: the real tower takes hardly more for four than for one.

Tensors without data pass the real tower, all 27 layers in a second, and every storage is counted while it lives. What
a kernel takes inside is left out; ``benchmarks/vision_memory.py`` measures the process itself.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kimi_vl.config import a3b
from kimi_vl.model import vision
from kimi_vl.model.vision import MoonViT
from tests.memory import LivingStorage

GRID = (64, 64)  # 896 x 896 pixels
CONFIG = a3b().vision_config
PATCHES = GRID[0] * GRID[1]
BFLOAT16 = 2  # bytes
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "vision_memory.py"


def tower_in_bfloat16() -> MoonViT:
    torch.set_default_dtype(torch.bfloat16)
    try:
        return MoonViT(CONFIG)
    finally:
        torch.set_default_dtype(torch.float32)


def peak_extra_bytes(pictures: int, patch: pytest.MonkeyPatch) -> int:
    # Grids are read as numbers, which tensors without data do not have.
    patch.setattr(MoonViT, "check_grids", lambda *_: [GRID] * pictures)
    # Nor are they to be found by others in what is kept for the next picture of this size.
    patch.setattr(vision, "_taps", lru_cache(vision._taps.__wrapped__))
    with FakeTensorMode(), torch.inference_mode():
        tower = tower_in_bfloat16()
        pixels = torch.empty(pictures * PATCHES, 3, 14, 14, dtype=torch.bfloat16)
        vision._taps(64, 64)
        with LivingStorage([*tower.parameters(), pixels]) as living:
            merged = tower(pixels, torch.empty(pictures, 2))
            kept = merged.untyped_storage().nbytes()
            assert kept == pictures * PATCHES * CONFIG.hidden_size * BFLOAT16
            assert living.now - kept < 100_000
        return living.peak


def test_four_pictures_peak_hardly_above_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one, four = peak_extra_bytes(1, monkeypatch), peak_extra_bytes(4, monkeypatch)
    # Inside an MLP one picture has the hidden states before and after GELU.
    assert one > 2 * PATCHES * CONFIG.intermediate_size * BFLOAT16
    assert four <= 1.25 * one


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_benchmark_runs() -> None:
    command = [sys.executable, str(BENCHMARK), "--layers", "1", "--side", "4", "--pictures", "1", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in run.stdout.splitlines()[:2]] == ["1 pictures", "2 pictures"]
