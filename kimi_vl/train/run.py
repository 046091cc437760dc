"""Runs a stage that learns from samples by its recipe: weights and data in, a run folder out.

RUN/config.json         the architecture
RUN/state.safetensors   what the run goes on from, or RUN/state-STEP/ where several processes wrote it
RUN/log.jsonl           what it told
RUN/model/              when it is done: a model folder, with its processor, that everything else here opens
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kimi_vl.config import KimiVLConfig
from kimi_vl.precision import fast_dtype
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train import parallel
from kimi_vl.train.data.mixture import Mixture
from kimi_vl.train.data.packing import Batch
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.opening import config_of, export, open_pupil, settle, write_config
from kimi_vl.train.recipe import Recipe
from kimi_vl.train.scale.layout import Layout
from kimi_vl.train.sources import exams_of, mixture_of
from kimi_vl.train.stages import STAGES
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
    config = stage.config(config_of(recipe, recipe.config))
    processor.check(config)
    device = parallel.join()
    layout = Layout(parallel.world_size(), recipe.context_parallel, recipe.expert_parallel)
    share = layout.share_of_samples(parallel.rank())
    data = mixture_of(recipe, stage, processor, share=share, cut=_cut(config, layout))
    images = processor.image_config
    pupil = open_pupil(
        recipe,
        config,
        lambda model: stage.pupil(model, images, recipe.reading, recipe.placing),
        stage.moves,
        layout,
        device,
        fast_dtype(device),
    )
    write_config(recipe, config)
    settle(device)
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
    workers = max(1, (os.cpu_count() or 1) // parallel.world_size() - 1) if workers is None else workers
    show = _show(recipe, data, pupil, processor)
    train(pupil, data, schedule, folder, workers=workers, listener=listener, show=show)
    return export(folder, config, processor)


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
