"""The most memory that MoonViT of Kimi-VL-A3B takes beside its weights and inputs, on one picture and on four.

    python benchmarks/vision_memory.py                  896x896 pixels, all 27 layers, bfloat16: some minutes
    python benchmarks/vision_memory.py --layers 2       the same figures, since layers run one after the other

Each count is measured in a process of its own, as the peak of its resident memory during the forward. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from kimi_vl.config import a3b
from kimi_vl.model.vision import MoonViT


def peak_extra_bytes(pictures: int, layers: int, side: int) -> int:
    """What one forward adds to this process at its worst moment."""
    config = replace(a3b().vision_config, num_hidden_layers=layers)
    with torch.inference_mode():
        tower = MoonViT(config).to(torch.bfloat16)
        for parameter in tower.parameters():
            parameter.normal_(0.0, 0.02)
        pixels = torch.randn(pictures * side * side, 3, config.patch_size, config.patch_size, dtype=torch.bfloat16)
        tower(pixels[:4], torch.tensor([(2, 2)]))  # what the libraries allocate once
        _forget_peak()
        before = _status("VmRSS")
        tower(pixels, torch.tensor([(side, side)] * pictures))
        return _status("VmHWM") - before


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--side", type=int, default=64, help="patches of 14 pixels across and down")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    if len(options.pictures) == 1:
        began = time.perf_counter()
        extra = peak_extra_bytes(options.pictures[0], options.layers, options.side)
        print(f"{options.pictures[0]} pictures: {extra} bytes, {time.perf_counter() - began:.0f} s", flush=True)
        return
    # Every large tensor comes from the system and goes back to it, so resident memory is what is alive.
    settled = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    for count in options.pictures:
        command = [sys.executable, __file__, "--layers", str(options.layers)]
        command += ["--side", str(options.side), "--pictures", str(count)]
        subprocess.run(command, env=settled, check=True)


if __name__ == "__main__":
    main()
