"""Trains nano from random weights, in two stages, on one or two CPU cores.

    torchrun --nproc-per-node 2 -m recipes.nano.train reading      MoonViT alone learns to spell lines (CTC)
    torchrun --nproc-per-node 2 -m recipes.nano.train answering    the whole model learns to answer
    python -m recipes.nano.train export [FOLDER]                   its weights, in bfloat16, into the package

Before it: recipes.nano.fetch (data) and recipes.nano.bpe (tokenizer). Runs are kept under ``.runs/nano/STAGE``, go on
where they stopped, and give the same steps as an unbroken run.
"""

import argparse
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

from kimi_vl import KimiVL
from kimi_vl.config import nano
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train import parallel
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.state import load_state
from recipes.nano.samples import line_answering, line_reading, plain_text, processor, scene_answering
from recipes.nano.scenes import clipart_sample, colour_sample, counting_sample, emoji_sample, side_sample

RUNS = Path(".runs/nano")
SEED = 20261125


def reading(steps: int) -> None:
    model = new_model()
    model.language_model.requires_grad_(False)
    model.multi_modal_projector.requires_grad_(False)
    data = Mixture([Source("line", 1.0, line_reading)], seed=SEED, batch_size=192)
    schedule = Schedule(steps=steps, peak=3e-3, warmup=100, decay=0.3, save_every=100)
    train(Learner(model, text_weight=0.0, reading_weight=1.0), data, schedule, RUNS / "reading")


def answering(steps: int) -> None:
    learner = Learner(new_model(), text_weight=1.0, reading_weight=0.3)
    if not (RUNS / "answering" / "state.safetensors").exists():
        load_state(RUNS / "reading" / "state.safetensors", learner, None)
    sources = [
        Source("line", 0.54, line_answering),
        Source("emoji", 0.28, scene_answering(emoji_sample)),
        Source("clipart", 0.04, scene_answering(clipart_sample)),
        Source("counting", 0.04, scene_answering(counting_sample)),
        Source("colour", 0.02, scene_answering(colour_sample)),
        Source("side", 0.02, scene_answering(side_sample)),
        Source("text", 0.06, plain_text),
    ]
    # Another seed than the first stage's: its lines have been seen.
    data = Mixture(sources, seed=SEED + 1, batch_size=128)
    schedule = Schedule(steps=steps, peak=3e-3, warmup=100, decay=0.35, save_every=100)
    train(learner, data, schedule, RUNS / "answering")


def export(folder: Path) -> None:
    """Writes the answering stage's weights and the files that the processor needs."""
    learner = Learner(new_model(), text_weight=1.0, reading_weight=0.0)
    load_state(RUNS / "answering" / "state.safetensors", learner, None)
    processor().save_pretrained(folder)
    KimiVL(learner.model).save_pretrained(folder)


def new_model() -> KimiVLForConditionalGeneration:
    model = KimiVLForConditionalGeneration(nano())
    model.init_weights(SEED)
    return model.bfloat16()


def keep_memory() -> None:
    """Lets glibc keep freed memory: else every large tensor is paged in anew, which doubles the time of a step."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)
        # More than this is refused without a word.
        libc.mallopt(mmap_threshold, 2**25)


STAGES: dict[str, Callable[[int], None]] = {"reading": reading, "answering": answering}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for stage in STAGES:
        commands.add_parser(stage).add_argument("--steps", type=int, required=True)
    commands.add_parser("export").add_argument("folder", type=Path, nargs="?", default=NANO)
    args = parser.parse_args()
    if args.command == "export":
        export(args.folder)
        return
    keep_memory()
    parallel.join()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // parallel.world_size()))
    STAGES[args.command](args.steps)


if __name__ == "__main__":
    main()
