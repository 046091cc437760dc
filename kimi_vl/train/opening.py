"""What every run begins and ends with: weights in, a pupil that is laid out where it computes, a model folder out."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kimi_vl.checkpoint import TensorSpec, read_config, stored_dtype, write_checkpoint
from kimi_vl.config import KimiVLConfig
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train import parallel
from kimi_vl.train.fused import fuse_experts, fuse_norms
from kimi_vl.train.learning.balance import moe_layers
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.recipe import RunRecipe
from kimi_vl.train.recompute import recompute_layers
from kimi_vl.train.scale.layout import Layout
from kimi_vl.train.state import StoredModel, load_weights, stored_in


def config_of(recipe: RunRecipe, new: str | None = None) -> KimiVLConfig:
    """That of the run if it has begun, of what it starts from, or of ``new`` weights."""
    if stored_in(Path(recipe.run)) is not None:
        return read_config(Path(recipe.run))
    if recipe.start is not None:
        return read_config(resolve(recipe.start, CONFIG_FILES))
    if new is None:
        raise ValueError("give start (a run, a model folder or an alias), or config for new weights")
    path = Path(new)
    if not path.is_file():
        raise ValueError(f"config: there is no file {path}")
    return KimiVLConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))


def write_config(recipe: RunRecipe, config: KimiVLConfig) -> None:
    """For whoever opens the run; the first process does."""
    if not parallel.rank():
        folder = Path(recipe.run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def open_pupil(
    recipe: RunRecipe,
    config: KimiVLConfig,
    make: Callable[[KimiVLForConditionalGeneration], Pupil],
    moves: Sequence[str],
    layout: Layout,
    device: torch.device,
    dtype: torch.dtype,
) -> Pupil:
    """What ``make`` makes of a model of that config, with the weights that it starts from, or goes on from.

    Of its weights those move whose names begin as one of ``moves``.
    """
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(config)
        pupil = make(model)
    _hold_still(pupil, moves, recipe.still)
    recompute_layers(pupil, recipe.recompute)
    if layout.processes > 1:
        from kimi_vl.train.scale.sharding import lay_out

        lay_out(pupil, layout, device, dtype)
    else:
        pupil.to(dtype)
        for moe in moe_layers(model):
            # Its steps are finer than a bfloat16 can hold.
            moe.gate.e_score_correction_bias = moe.gate.e_score_correction_bias.float()
    pupil.to_empty(device=device)
    absent = set(pupil.state_dict())
    if recipe.start is not None and stored_in(Path(recipe.run)) is None:
        stored = stored_in(Path(recipe.start)) or StoredModel(resolve(recipe.start, (*CONFIG_FILES, *WEIGHT_FILES)))
        absent = load_weights(stored, pupil)
    pupil.begin(recipe.seed, absent)
    if device.type == "cuda":
        fuse_norms(model)
        if layout.expert_parallel == 1:
            fuse_experts(model)
    return pupil


def _hold_still(pupil: Pupil, moves: Sequence[str], still: Sequence[str]) -> None:
    """Lets move what the stage moves, but for what is to stay."""
    parameters = dict(pupil.named_parameters())
    for beginning in still:
        if not any(name.startswith(beginning) for name in parameters):
            parts = sorted({".".join(name.split(".")[:2]) + "." for name in parameters})
            raise ValueError(f"still: no weight's name begins with {beginning!r}; there are {', '.join(parts)}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name.startswith(tuple(moves)) and not name.startswith(tuple(still)))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"still: {', '.join(still)} is all that this stage moves")


def export(run: Path, config: KimiVLConfig, processor: KimiVLProcessor) -> Path:
    """The last state as a model in bfloat16. The folder appears when all of it is written."""
    stored, folder = stored_in(run), run / "model"
    assert stored is not None
    if parallel.rank():
        return folder
    with torch.device("meta"):
        wanted = KimiVLForConditionalGeneration(config).state_dict()
    specs = {name: TensorSpec(tuple(t.shape), stored_dtype(name, torch.bfloat16)) for name, t in wanted.items()}

    def tensor_of(name: str) -> Tensor:
        tensor = torch.empty(specs[name].shape, dtype=specs[name].dtype)
        stored.read({f"model/model.{name}": tensor})
        return tensor

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write_checkpoint(replace(config, torch_dtype="bfloat16"), part, specs, tensor_of)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def settle(device: torch.device) -> None:
    """Memory and threads as suit a process that trains."""
    keep_memory()
    cores = os.cpu_count() or 1
    # Beside a GPU the processors draw samples, and whoever leads the GPU must not wait for them.
    torch.set_num_threads(1 if device.type == "cuda" else max(1, cores // parallel.world_size()))


def keep_memory() -> None:
    """Lets glibc keep freed memory: else every large tensor is paged in anew, which doubles the time of a step."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)
        # More than this is refused without a word.
        libc.mallopt(mmap_threshold, 2**25)
