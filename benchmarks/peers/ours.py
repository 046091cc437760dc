"""Our side of a comparison: the 4-bit folder, its experts' load, and ``kimi-vl bench`` in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from peers.figures import Figure
from safetensors import safe_open
from safetensors.torch import save_file

from kimi_vl.engine.backend import backend
from kimi_vl.engine.layout import EMBEDDINGS
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.weights import Segment

_KIMI_VL = (sys.executable, "-m", "kimi_vl.cli")
_SPREAD = 500.0  # random_gguf.py draws embeddings as much larger than other weights


def make(work: Path) -> Path:
    """Random weights of the full size, quantised; 33 GB are needed for a while, 10 GB stay."""
    source, target = work / "a3b", work / "a3b-4bit"
    if not target.exists():
        if not source.exists():
            subprocess.run([*_KIMI_VL, "init", source, "--preset", "a3b"], check=True)
        subprocess.run([*_KIMI_VL, "quantize", source, target], check=True)
    return target


def spread(folder: Path, target: Path) -> Path:
    """The same folder with larger embeddings, so that tokens stay apart and experts' load is even.

    With embeddings no larger than other random weights, what attention adds, which is nearly the same for all tokens,
    soon routes them alike, and few experts are ever read.
    """
    if target.exists():
        shutil.rmtree(target)  # of another folder, perhaps
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name != EMBEDDINGS:
            (target / file.name).symlink_to(file.resolve())
    with safe_open(folder / EMBEDDINGS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        metadata = file.metadata()
    for name in tensors:
        if name.endswith("row_scale"):
            tensors[name] *= _SPREAD
    save_file(tensors, target / EMBEDDINGS, metadata)
    return target


def bench(folder: Path, arguments: Sequence[str]) -> list[Figure]:
    command = [*_KIMI_VL, "bench", str(folder), *arguments, "--json"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return [Figure(row["name"], row["at"], row["unit"], row["values"], row["others"]) for row in found["figures"]]


def busiest_experts(folder: Path, threads: int) -> list[float]:
    """The most of 512 random tokens that an expert of a layer is given, over the mean; a number for each layer."""
    model = EngineModel.from_folder(folder, backend(threads))
    ids = torch.randint(model.config.text_config.bos_token_id, (512,), generator=torch.Generator().manual_seed(0))
    segments = [Segment(tuple(range(8)), 0, 512, is_prompt=True)]
    chosen = model.backend.layers(model.embed(ids).clone(), model.decoder, segments, model.new_cache(8))
    assert chosen is not None
    counts = [
        torch.bincount(of_layer.flatten(), minlength=model.config.text_config.n_routed_experts) for of_layer in chosen
    ]
    return [float(count.max() / count.float().mean()) for count in counts]
