"""Trains nano from random weights, in six stages, on two CPU cores.

    torchrun --nproc-per-node 2 -m recipes.nano.train reading    --steps N   MoonViT learns to spell lines (CTC)
    torchrun --nproc-per-node 2 -m recipes.nano.train naming     --steps N   and to name what a picture shows
    torchrun --nproc-per-node 2 -m recipes.nano.train aligning   --steps N   the decoder learns to use what they see
    torchrun --nproc-per-node 2 -m recipes.nano.train answering  --steps N   the whole model learns to answer
    torchrun --nproc-per-node 2 -m recipes.nano.train spelling   --steps N   the decoder, to spell what the tower reads
    torchrun --nproc-per-node 2 -m recipes.nano.train cooldown   --steps N   and settles, with more lines
    python -m recipes.nano.train export [FOLDER]                             its weights, in bfloat16, into the package

A model folder lacks the reading head, and a new one would spoil a tower that reads: to train on from one, begin with

    torchrun --nproc-per-node 2 -m recipes.nano.train head       --steps N --weights FOLDER

and go on from its state. Before all: recipes.nano.fetch (data) and recipes.nano.bpe (tokenizer). A stage starts from
the one before it, or from the state or model folder given with --weights. Runs are kept under ``.runs/nano/STAGE``, go
on where they stopped, and give the same steps as an unbroken run.
"""

import argparse
import ctypes
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kimi_vl import KimiVL
from kimi_vl.config import nano
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.precision import fast_dtype
from kimi_vl.train import parallel
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.state import load_weights
from recipes.nano.samples import (
    line_answering,
    line_reading,
    names,
    plain_text,
    processor,
    scene_answering,
    scene_naming,
)
from recipes.nano.scenes import (
    clipart_sample,
    colour_sample,
    counting_sample,
    emoji_sample,
    shape_sample,
    side_sample,
)

RUNS = Path(".runs/nano")
SEED = 20261125


@dataclass(frozen=True)
class Stage:
    """What a stage learns from, what of the learner moves (by the beginning of names), by which losses, how fast."""

    before: str | None
    moves: tuple[str, ...]
    sources: tuple[Source, ...]
    text_weight: float
    reading_weight: float
    naming_weight: float
    batch_size: int
    schedule: Schedule  # its number of steps is given on the command line


def questions(*, line: float, emoji: float) -> tuple[Source, ...]:
    """Every kind of question, with the shares of the two that are measured."""
    return (
        Source("line", line, line_answering),
        Source("emoji", emoji, scene_answering(emoji_sample)),
        Source("clipart", 0.03, scene_answering(clipart_sample)),
        Source("counting", 0.03, scene_answering(counting_sample)),
        Source("colour", 0.02, scene_answering(colour_sample)),
        Source("shape", 0.01, scene_answering(shape_sample)),
        Source("side", 0.02, scene_answering(side_sample)),
        Source("text", 0.05, plain_text),
    )


STAGES = {
    "head": Stage(
        before=None,
        moves=("reader",),
        sources=(Source("line", 1.0, line_reading),),
        text_weight=0.0,
        reading_weight=1.0,
        naming_weight=0.0,
        batch_size=192,
        schedule=Schedule(steps=0, peak=1e-2, warmup=10, decay=0.5, save_every=100),
    ),
    "reading": Stage(
        before=None,
        moves=("model.vision_tower", "reader"),
        sources=(Source("line", 1.0, line_reading),),
        text_weight=0.0,
        reading_weight=1.0,
        naming_weight=0.0,
        batch_size=192,
        schedule=Schedule(steps=0, peak=3e-3, warmup=100, decay=0.3, save_every=100),
    ),
    "naming": Stage(
        before="reading",
        moves=("model.vision_tower", "model.multi_modal_projector", "model.language_model.lm_head", "reader", "namer"),
        sources=(
            Source("line", 0.35, line_reading),
            Source("emoji", 0.45, scene_naming(emoji_sample)),
            Source("clipart", 0.12, scene_naming(clipart_sample)),
            Source("shape", 0.08, scene_naming(shape_sample)),
        ),
        text_weight=0.0,
        reading_weight=1.0,
        naming_weight=0.5,
        batch_size=192,
        schedule=Schedule(steps=0, peak=3e-3, warmup=50, decay=0.3, save_every=100),
    ),
    "aligning": Stage(
        before="naming",
        moves=("model.language_model",),
        sources=questions(line=0.42, emoji=0.42),
        text_weight=1.0,
        reading_weight=0.0,
        naming_weight=0.0,
        batch_size=128,
        schedule=Schedule(steps=0, peak=2e-3, warmup=50, decay=0.3, save_every=100),
    ),
    "answering": Stage(
        before="aligning",
        moves=("",),
        sources=questions(line=0.5, emoji=0.34),
        text_weight=1.0,
        reading_weight=0.3,
        naming_weight=0.3,
        batch_size=128,
        schedule=Schedule(steps=0, peak=1.5e-3, warmup=50, decay=0.6, save_every=100),
    ),
}
STAGES["spelling"] = replace(
    STAGES["aligning"],
    before="answering",
    moves=("model.multi_modal_projector", "model.language_model"),
    sources=questions(line=0.72, emoji=0.12),
    schedule=Schedule(steps=0, peak=1.5e-3, warmup=50, decay=0.5, save_every=100),
)
STAGES["cooldown"] = replace(
    STAGES["answering"],
    before="spelling",
    sources=questions(line=0.62, emoji=0.22),
    schedule=Schedule(steps=0, peak=8e-4, warmup=20, decay=0.8, save_every=100),
)


def run(name: str, steps: int, start: Path | None) -> None:
    stage = STAGES[name]
    learner = new_learner(stage, fast_dtype(torch.device("cpu")))
    for parameter_name, parameter in learner.named_parameters():
        parameter.requires_grad_(parameter_name.startswith(stage.moves))
    if start is None and stage.before is not None:
        start = state_of(stage.before)
    if start is not None and not state_of(name).exists():
        if start.is_dir():
            learner.model.load_state_dict(KimiVL.from_pretrained(str(start)).model.state_dict())
        else:
            load_weights(start, learner)
    # Each stage draws samples that no other has seen.
    data = Mixture(stage.sources, seed=SEED + list(STAGES).index(name), batch_size=stage.batch_size)
    train(learner, data, replace(stage.schedule, steps=steps), RUNS / name)


def state_of(name: str) -> Path:
    return RUNS / name / "state.safetensors"


def new_learner(stage: Stage, dtype: torch.dtype) -> Learner:
    model = KimiVLForConditionalGeneration(nano())
    model.init_weights(SEED)
    torch.manual_seed(SEED)
    return Learner(
        model.to(dtype),
        names(),
        text_weight=stage.text_weight,
        reading_weight=stage.reading_weight,
        naming_weight=stage.naming_weight,
    )


def export(folder: Path) -> None:
    """Writes the last stage's weights and the files that the processor needs."""
    learner = new_learner(STAGES["cooldown"], torch.bfloat16)
    load_weights(state_of("cooldown"), learner)
    processor().save_pretrained(folder)
    KimiVL(learner.model).save_pretrained(folder)


def keep_memory() -> None:
    """Lets glibc keep freed memory: else every large tensor is paged in anew, which doubles the time of a step."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)
        # More than this is refused without a word.
        libc.mallopt(mmap_threshold, 2**25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for stage in STAGES:
        command = commands.add_parser(stage)
        command.add_argument("--steps", type=int, required=True)
        command.add_argument("--weights", type=Path, help="the state or model folder that the stage starts from")
    commands.add_parser("export").add_argument("folder", type=Path, nargs="?", default=NANO)
    args = parser.parse_args()
    if args.command == "export":
        export(args.folder)
        return
    keep_memory()
    parallel.join()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // parallel.world_size()))
    run(args.command, args.steps, args.weights)


if __name__ == "__main__":
    main()
