"""Runs a stage by its recipe: weights and data in, a run folder out.

RUN/config.json         the architecture
RUN/state.safetensors   what the run goes on from
RUN/log.jsonl           what it told
RUN/model/              when it is done: a model folder, with its processor, that everything else here opens
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from pathlib import Path

import torch

from kimi_vl.checkpoint import load_model, read_config, save_model
from kimi_vl.config import KimiVLConfig
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.precision import fast_dtype
from kimi_vl.processor import KimiVLProcessor, check_vocabulary
from kimi_vl.train import parallel
from kimi_vl.train.balance import moe_layers
from kimi_vl.train.fused_experts import fuse_experts
from kimi_vl.train.learned import Pupil
from kimi_vl.train.log import Listener
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.recipe import Recipe
from kimi_vl.train.sources import mixture_of
from kimi_vl.train.stages import STAGES
from kimi_vl.train.state import load_weights

_STATE = "state.safetensors"


def run(recipe: Recipe, *, workers: int | None = None, listener: Listener | None = None) -> Path:
    """Trains to the recipe's last step and returns the model's folder. Called again, it goes on where it was.

    ``workers`` processes draw samples, by default as many as there are processors beside this one; ``listener`` hears
    what the log is told. Raises: ``ValueError`` for anything in recipe or data that cannot be, before the first sample
    is drawn.
    """
    if recipe.stage not in STAGES:
        raise ValueError(f"there is no stage {recipe.stage!r}; there are {', '.join(STAGES)}")
    stage, folder = STAGES[recipe.stage], Path(recipe.run)
    processor = KimiVLProcessor.from_pretrained(recipe.processor)
    config = stage.config(_config(recipe))
    check_vocabulary(processor.tokenizer.vocab_size, config)
    parallel.join()
    data = mixture_of(recipe, stage, processor)
    pupil = _pupil(recipe, config, processor)
    for name, parameter in pupil.named_parameters():
        parameter.requires_grad_(name.startswith(stage.moves))
    if not parallel.rank():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    keep_memory()
    processes = parallel.world_size()
    cores = os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // processes))
    schedule = Schedule(
        steps=recipe.steps,
        peak=recipe.peak,
        warmup=recipe.warmup,
        decay=recipe.decay,
        save_every=recipe.save_every,
        log_every=recipe.log_every,
    )
    workers = max(1, cores // processes - 1) if workers is None else workers
    train(pupil, data, schedule, folder, workers=workers, listener=listener)
    if not parallel.rank():
        _export(pupil.model, processor, folder / "model")
    return folder / "model"


def _config(recipe: Recipe) -> KimiVLConfig:
    """That of the run if it has begun, of what it starts from, or of new weights."""
    if (Path(recipe.run) / _STATE).exists():
        return read_config(Path(recipe.run))
    if recipe.start is not None:
        return read_config(resolve(recipe.start, CONFIG_FILES))
    if recipe.config is None:
        raise ValueError("give start (a run, a model folder or an alias), or config for new weights")
    path = Path(recipe.config)
    if not path.is_file():
        raise ValueError(f"config: there is no file {path}")
    return KimiVLConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _pupil(recipe: Recipe, config: KimiVLConfig, processor: KimiVLProcessor) -> Pupil:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = KimiVLForConditionalGeneration(config)
    model.init_weights(recipe.seed)
    torch.manual_seed(recipe.seed)
    pupil = STAGES[recipe.stage].pupil(model, processor.image_config, recipe.reading)
    if recipe.start is not None and not (Path(recipe.run) / _STATE).exists():
        start = Path(recipe.start)
        if (start / _STATE).exists():
            load_weights(start / _STATE, pupil)
        else:
            loaded = load_model(resolve(recipe.start, (*CONFIG_FILES, *WEIGHT_FILES)), dtype=torch.float32)
            model.load_state_dict(loaded.state_dict())
    pupil.to(fast_dtype(device)).to(device)
    for moe in moe_layers(model):
        # Its steps are finer than a bfloat16 can hold.
        moe.gate.e_score_correction_bias = moe.gate.e_score_correction_bias.float()
    if device.type == "cuda":
        fuse_experts(model)
    return pupil


def _export(model: KimiVLForConditionalGeneration, processor: KimiVLProcessor, folder: Path) -> None:
    """In bfloat16. The folder appears when all of it is written."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    stored = KimiVLForConditionalGeneration(model.config).to(torch.bfloat16)
    stored.load_state_dict(model.state_dict())
    save_model(stored, part)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def keep_memory() -> None:
    """Lets glibc keep freed memory: else every large tensor is paged in anew, which doubles the time of a step."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)
        # More than this is refused without a word.
        libc.mallopt(mmap_threshold, 2**25)
