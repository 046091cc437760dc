"""Runs a stage by its recipe: weights and data in, a run folder out.

RUN/config.json         the architecture
RUN/state.safetensors   what the run goes on from, or RUN/state-STEP/ where several processes wrote it
RUN/log.jsonl           what it told
RUN/model/              when it is done: a model folder, with its processor, that everything else here opens
"""

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
from kimi_vl.precision import fast_dtype
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train import parallel
from kimi_vl.train.data.mixture import Mixture
from kimi_vl.train.data.packing import Batch
from kimi_vl.train.fused import fuse_experts, fuse_norms
from kimi_vl.train.learning.balance import moe_layers
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.recipe import Recipe
from kimi_vl.train.recompute import recompute_layers
from kimi_vl.train.scale.layout import Layout
from kimi_vl.train.sources import exams_of, mixture_of
from kimi_vl.train.stages import STAGES
from kimi_vl.train.state import StoredModel, load_weights, stored_in
from kimi_vl.train.watching.log import Listener
from kimi_vl.train.watching.showing import Showing


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
    processor.check(config)
    device = parallel.join()
    layout = Layout(parallel.world_size(), recipe.context_parallel, recipe.expert_parallel)
    share = layout.share_of_samples(parallel.rank())
    data = mixture_of(recipe, stage, processor, share=share, cut=_cut(config, layout))
    pupil = _pupil(recipe, config, processor, layout, device)
    if not parallel.rank():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    keep_memory()
    processes = parallel.world_size()
    cores = os.cpu_count() or 1
    # Beside a GPU the processors draw samples, and whoever leads the GPU must not wait for them.
    torch.set_num_threads(1 if device.type == "cuda" else max(1, cores // processes))
    schedule = Schedule(
        steps=recipe.steps,
        peak=recipe.peak,
        warmup=recipe.warmup,
        shape=recipe.shape,
        decay=recipe.decay,
        floor=recipe.floor,
        save_every=recipe.save_every,
        log_every=recipe.log_every,
    )
    workers = max(1, cores // processes - 1) if workers is None else workers
    show = _show(recipe, data, pupil, processor)
    train(pupil, data, schedule, folder, workers=workers, listener=listener, show=show)
    if not parallel.rank():
        _export(folder, config, processor)
    return folder / "model"


def _config(recipe: Recipe) -> KimiVLConfig:
    """That of the run if it has begun, of what it starts from, or of new weights."""
    if stored_in(Path(recipe.run)) is not None:
        return read_config(Path(recipe.run))
    if recipe.start is not None:
        return read_config(resolve(recipe.start, CONFIG_FILES))
    if recipe.config is None:
        raise ValueError("give start (a run, a model folder or an alias), or config for new weights")
    path = Path(recipe.config)
    if not path.is_file():
        raise ValueError(f"config: there is no file {path}")
    return KimiVLConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _pupil(
    recipe: Recipe, config: KimiVLConfig, processor: KimiVLProcessor, layout: Layout, device: torch.device
) -> Pupil:
    """The stage's pupil with the weights that it starts from, or goes on from."""
    stage, dtype = STAGES[recipe.stage], fast_dtype(device)
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(config)
        pupil = stage.pupil(model, processor.image_config, recipe.reading, recipe.placing)
    _hold_still(pupil, stage.moves, recipe.still)
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


def _hold_still(pupil: Pupil, moves: tuple[str, ...], still: Sequence[str]) -> None:
    """Lets move what the stage moves, but for what is to stay."""
    parameters = dict(pupil.named_parameters())
    for beginning in still:
        if not any(name.startswith(beginning) for name in parameters):
            parts = sorted({".".join(name.split(".")[:2]) + "." for name in parameters})
            raise ValueError(f"still: no weight's name begins with {beginning!r}; there are {', '.join(parts)}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name.startswith(moves) and not name.startswith(tuple(still)))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"still: {', '.join(still)} is all that this stage moves")


def _cut(config: KimiVLConfig, layout: Layout) -> Callable[[Batch], Batch] | None:
    if layout.processes == 1:
        return None
    from kimi_vl.train.scale.sharding import cut_for

    return cut_for(layout, parallel.rank(), config)


def _show(recipe: Recipe, data: Mixture, pupil: Pupil, processor: KimiVLProcessor) -> Showing | None:
    """Exams, and samples of a seed of their own.

    Several processes sit exams together, but do not answer token by token, nor share out rows of questions.
    """
    if not isinstance(pupil, Learner) or recipe.context_parallel > 1:
        return None
    sources = [replace(source, weight_end=None) for source in data.sources]
    drawn = Mixture(sources, seed=recipe.seed + 1, batch_size=1)
    samples = [drawn.sample(index) for index in range(recipe.show if parallel.world_size() == 1 else 0)]
    placeholder = pupil.model.config.media_placeholder_token_id
    return Showing(Path(recipe.run), samples, processor.tokenizer, placeholder, exams_of(recipe))


def _export(run: Path, config: KimiVLConfig, processor: KimiVLProcessor) -> None:
    """The last state as a model in bfloat16. The folder appears when all of it is written."""
    stored, folder = stored_in(run), run / "model"
    assert stored is not None
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


def keep_memory() -> None:
    """Lets glibc keep freed memory: else every large tensor is paged in anew, which doubles the time of a step."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)
        # More than this is refused without a word.
        libc.mallopt(mmap_threshold, 2**25)
