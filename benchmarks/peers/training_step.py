"""What every side of ``training.py`` shares: the samples in a file, and a step that is timed.

In: samples, which the asking process draws; a step, which a side brings. Out: :class:`Measured`, as a line of JSON.
Knows nothing of models. Needs torch and safetensors, and of ours what a sample is and what waits for a quiet moment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kimi_vl.engine.quiet import quietly
from kimi_vl.train.data.packing import Sample

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Measured:
    seconds: list[float]  # of each step
    others: list[float]  # the share of all cores that other processes used meanwhile
    loss: float  # before anything has moved
    parameters: int
    places: int  # tokens and patches that a step computes, padding among them
    peak: int  # bytes of this process at its worst moment


def save_samples(samples: Sequence[Sample], path: Path) -> None:
    """End to end in one file. What is written on a picture stays behind: only reading heads learn from it."""
    grids = [sample.image_grid_hws for sample in samples]
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    if not pixels:
        raise ValueError(f"none of {len(samples)} samples has a picture: take more of them")
    tensors = {
        "input_ids": torch.cat([sample.input_ids for sample in samples]),
        "answer_mask": torch.cat([sample.answer_mask for sample in samples]),
        "lengths": torch.tensor([len(sample.input_ids) for sample in samples]),
        "pixels": torch.cat(pixels),
        "grids": torch.cat(grids),
        "pictures": torch.tensor([len(grid) for grid in grids]),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_samples(path: Path) -> list[Sample]:
    held = load_file(path)
    lengths, pictures = held["lengths"].tolist(), held["pictures"].tolist()
    grids = held["grids"].split(pictures)
    pixels = held["pixels"].split([int(of_sample.prod(1).sum()) for of_sample in grids])
    rows = zip(held["input_ids"].split(lengths), held["answer_mask"].split(lengths), pixels, grids, strict=True)
    return [Sample(ids, mask, seen if len(seen) else None, grid) for ids, mask, seen, grid in rows]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("config", type=json.loads, help="a config.json, its text")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--patience", type=float, required=True)
    return parser


def measure(step: Callable[[], Tensor], model: nn.Module, places: int, options: argparse.Namespace) -> None:
    """Prints what ``options.steps`` steps took after one that warms up. ``step`` gives its loss."""
    loss = float(step())

    def timed() -> float:
        begun = time.perf_counter()
        step()
        return time.perf_counter() - begun

    seconds, others = zip(*(quietly(timed, options.patience) for _ in range(options.steps)), strict=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps(asdict(Measured(list(seconds), list(others), loss, parameters, places, _peak()))))


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
