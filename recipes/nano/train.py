"""Trains nano from random weights, stage by stage, on two CPU cores or on a GPU where there is one.

    torchrun --nproc-per-node 2 -m recipes.nano.train text      --steps N   the decoder from books
    torchrun --nproc-per-node 2 -m recipes.nano.train vision    --steps N   MoonViT from pictures and captions
    torchrun --nproc-per-node 2 -m recipes.nano.train alignment --steps N   tower and projector against the decoder
    torchrun --nproc-per-node 2 -m recipes.nano.train joint     --steps N   all of it, from all there is
    torchrun --nproc-per-node 2 -m recipes.nano.train cooldown  --steps N   the same at a falling rate
    python -m recipes.nano.train export [FOLDER]                            its weights, in bfloat16, into the package

Before all: recipes.nano.fetch (data) and recipes.nano.bpe (tokenizer). A stage starts from the one before it, or from
the state given with --weights. Runs are kept under ``.runs/nano/STAGE``, go on where they stopped, and give the same
steps as an unbroken run.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kimi_vl import KimiVL, KimiVLProcessor
from kimi_vl.config import KimiVLConfig, MoonViTConfig, nano
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.precision import fast_dtype
from kimi_vl.train import parallel
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.fused_experts import fuse_experts
from kimi_vl.train.image_text import ImageTextLearner, TextSize
from kimi_vl.train.learned import Pupil
from kimi_vl.train.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.state import load_weights
from recipes.nano import chats, paragraphs, samples, scenes, several
from recipes.nano.captioned import caption_sample
from recipes.nano.figures import charts, receipts, tables
from recipes.nano.samples import PICTURES, captioning, conversing, line_asked, line_captioned, plain_text, read_aloud
from recipes.nano.screens import sources

RUNS = Path(".runs/nano")
SEED = 20261126


def config() -> KimiVLConfig:
    """17 million parameters."""
    old = nano()
    return replace(
        old,
        text_config=replace(old.text_config, num_hidden_layers=6, num_attention_heads=8),
        vision_config=MoonViTConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=4,
            init_pos_emb_height=32,
            init_pos_emb_width=48,
        ),
    )


@dataclass(frozen=True)
class Stage:
    """What a stage learns from, what of it moves (by the beginning of names), and how fast."""

    before: str | None
    pupil: Callable[[KimiVLForConditionalGeneration], Pupil]
    moves: tuple[str, ...]
    sources: tuple[Source, ...]
    batch_size: int
    schedule: Schedule  # its number of steps is given on the command line


def image_text(model: KimiVLForConditionalGeneration) -> Pupil:
    size = TextSize(model.config.text_config.vocab_size, 256, num_hidden_layers=3, num_attention_heads=4)
    return ImageTextLearner(model, size, PICTURES, reading=1.0)


def answering(reading: float) -> Callable[[KimiVLForConditionalGeneration], Pupil]:
    return lambda model: Learner(model, PICTURES, reading=reading)


def conversations() -> tuple[Source, ...]:
    """Every kind of question with its share."""
    kinds = {
        "emoji": (0.11, scenes.emoji_conversation),
        "counting": (0.06, scenes.counting_conversation),
        "comparing": (0.04, scenes.comparing_conversation),
        "colour": (0.02, scenes.colour_conversation),
        "side": (0.02, scenes.side_conversation),
        "several": (0.05, several.several_sample),
        "paragraph": (0.07, paragraphs.paragraph_drawn),
        "grounding": (0.07, sources.grounding_sample),
        "element": (0.02, sources.element_sample),
        "screen line": (0.10, sources.paragraph_sample),
        "screen": (0.04, sources.screen_reading_sample),
        "screen question": (0.02, sources.screen_question_sample),
        "chart": (0.08, charts.chart_sample),
        "table": (0.04, tables.table_sample),
        "receipt": (0.02, receipts.receipt_sample),
        "chat": (0.02, chats.chat_sample),
    }
    return (
        Source("line", 0.22, line_asked),
        *(Source(name, weight, conversing(draw)) for name, (weight, draw) in kinds.items()),
        Source("text", 0.05, plain_text),
    )


STAGES = {
    "text": Stage(
        before=None,
        pupil=answering(0.0),
        moves=("model.language_model",),
        sources=(Source("text", 1.0, plain_text),),
        batch_size=256,
        schedule=Schedule(steps=0, peak=3e-3, warmup=50, decay=0.3, save_every=500, log_every=10),
    ),
    "vision": Stage(
        before="text",
        pupil=image_text,
        moves=("model.vision_tower", "reader", "seen", "embed_tokens", "text_", "head", "log_scale", "bias"),
        sources=(
            Source("line", 0.4, line_captioned),
            Source("caption", 0.45, captioning(caption_sample)),
            Source("lines", 0.15, read_aloud(sources.paragraph_sample)),
        ),
        batch_size=1024,
        schedule=Schedule(steps=0, peak=3e-3, warmup=100, decay=0.3, save_every=500, log_every=10),
    ),
    "alignment": Stage(
        before="vision",
        pupil=answering(0.3),
        moves=("model.vision_tower", "model.multi_modal_projector", "reader"),
        sources=conversations(),
        batch_size=512,
        schedule=Schedule(steps=0, peak=1e-3, warmup=20, decay=0.2, save_every=500, log_every=10),
    ),
    "joint": Stage(
        before="alignment",
        pupil=answering(0.3),
        moves=("",),
        sources=conversations(),
        batch_size=512,
        schedule=Schedule(steps=0, peak=2e-3, warmup=50, decay=0.5, save_every=200, log_every=10),
    ),
}
STAGES["cooldown"] = replace(
    STAGES["joint"],
    before="joint",
    schedule=Schedule(steps=0, peak=8e-4, warmup=20, decay=0.8, save_every=100, log_every=10),
)


def run(name: str, steps: int, start: Path | None, passes: int) -> None:
    stage = STAGES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = new_pupil(stage, fast_dtype(device)).to(device)
    if device.type == "cuda":
        fuse_experts(learner.model)
    for parameter_name, parameter in learner.named_parameters():
        parameter.requires_grad_(parameter_name.startswith(stage.moves))
    if start is None and stage.before is not None:
        start = state_of(stage.before)
    if start is not None and not state_of(name).exists():
        load_weights(start, learner)
    # Each stage draws samples that no other has seen.
    data = Mixture(stage.sources, seed=SEED + list(STAGES).index(name), batch_size=stage.batch_size, passes=passes)
    workers = max(1, (os.cpu_count() or 1) // parallel.world_size() - 1)
    train(learner, data, replace(stage.schedule, steps=steps), RUNS / name, workers=workers)


def state_of(name: str) -> Path:
    return RUNS / name / "state.safetensors"


def new_pupil(stage: Stage, dtype: torch.dtype) -> Pupil:
    model = KimiVLForConditionalGeneration(config())
    model.init_weights(SEED)
    torch.manual_seed(SEED)
    return stage.pupil(model.to(dtype))


def export(folder: Path, stage: str) -> None:
    """Writes a stage's weights and the files that the processor needs."""
    learner = new_pupil(STAGES[stage], torch.bfloat16)
    load_weights(state_of(stage), learner)
    KimiVLProcessor(samples.tokenizer(), PICTURES).save_pretrained(folder)
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
        command.add_argument("--weights", type=Path, help="the state that the stage starts from")
        command.add_argument("--passes", type=int, default=1, help="how often each batch is seen")
    exporting = commands.add_parser("export")
    exporting.add_argument("folder", type=Path, nargs="?", default=NANO)
    exporting.add_argument("--stage", choices=list(STAGES), default="cooldown")
    args = parser.parse_args()
    if args.command == "export":
        export(args.folder, args.stage)
        return
    keep_memory()
    parallel.join()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // parallel.world_size()))
    run(args.command, args.steps, args.weights, args.passes)


if __name__ == "__main__":
    main()
