"""What the tests of training share: samples, and a model as small as it may be that still has every part."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.multiprocessing.spawn import ProcessContext, start_processes

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.train import parallel
from kimi_vl.train.data.packing import Batch, Sample, pack
from kimi_vl.train.learning.image_text import ImageTextLearner, TextSize
from kimi_vl.train.learning.learned import Learned, Pupil
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.optim import muon
from kimi_vl.train.scale import owners, sharding
from kimi_vl.train.scale.layout import Layout
from tests.conftest import SMALL_CONFIG

PLACEHOLDER = SMALL_CONFIG.media_placeholder_token_id
NO_PICTURES = torch.empty(0, 2, dtype=torch.int64)

TINY = KimiVLConfig(
    text_config=replace(
        SMALL_CONFIG.text_config,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        num_attention_heads=2,
    ),
    vision_config=replace(SMALL_CONFIG.vision_config, hidden_size=24, intermediate_size=32, num_hidden_layers=1),
    media_placeholder_token_id=PLACEHOLDER,
    torch_dtype="float32",
)


def words(count: int, seed: int, answers: int) -> Sample:
    """A text whose last ``answers`` tokens are to be learnt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (count,), generator=generator)
    return Sample(ids, torch.arange(count) >= count - answers, None, NO_PICTURES)


def with_picture(seed: int, grid: tuple[int, int] = (2, 4), written: str | None = None, *, patch: int = 14) -> Sample:
    h, w = grid
    text = words(6, seed, 3)
    run = torch.full((h * w // 4,), PLACEHOLDER)
    ids, mask = torch.cat((run, text.input_ids)), torch.cat((run < 0, text.answer_mask))
    return Sample(ids, mask, noise(seed, h * w, patch), torch.tensor([grid]), written)


def captioned(
    seed: int, grid: tuple[int, int], caption: list[int], written: str | None = None, *, patch: int = 14
) -> Sample:
    """A picture of noise, and its caption after a first token."""
    ids, pixels = torch.tensor([0, *caption]), noise(seed, grid[0] * grid[1], patch)
    return Sample(ids, torch.arange(len(ids)) > 0, pixels, torch.tensor([grid]), written)


def noise(seed: int, patches: int, patch: int = 14) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (patches, 3, patch, patch), dtype=torch.uint8, generator=generator)


IMAGES = ImageProcessorConfig()


def pupil_of(model: Model, *, reading: float = 0.0, placing: float = 0.0) -> Learner:
    return Learner(model, IMAGES, reading=reading, placing=placing)


def image_text_pupil_of(model: Model, *, reading: float = 1.0) -> ImageTextLearner:
    size = TextSize(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    return ImageTextLearner(model, size, IMAGES, reading=reading)


def learn(pupil: Pupil, *samples: Sample) -> Learned:
    """What a pupil learns from samples in one batch."""
    batch = pack(samples)
    learned: Learned = pupil(batch, batch.totals)
    return learned


_CLOCK = (
    *("seconds", "seconds_left", "gigabytes"),
    *("samples_per_second", "tokens_per_second", "patches_per_second"),
)


def logged(folder: Path) -> list[dict[str, Any]]:
    """What a run told so far, but for how long it took."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in _CLOCK} for line in lines]


# ---- several processes ----

ALONE = Layout()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def start(
    function: Callable[..., None], args: tuple[Any, ...], processes: int, *, join: bool = True
) -> ProcessContext | None:
    """Processes that get their rank and ``args``, forked off one that has imported torch, which takes each seconds."""
    get_context("forkserver").set_forkserver_preload(["tests.training"])
    return start_processes(function, args, processes, join=join, start_method="forkserver")


@contextmanager
def entered(rank: int, processes: int, port: int) -> Iterator[None]:
    """This process is one of several, as torchrun would have it, until what is to be done is done."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= place | {"RANK": str(rank), "WORLD_SIZE": str(processes)}
    torch.set_num_threads(1)
    parallel.join()
    yield
    parallel.leave()


def laid_out(pupil: Pupil, layout: Layout) -> Callable[[Batch], Batch] | None:
    """Lays a pupil out, if there are several processes, with the weights that it has."""
    if layout.processes == 1:
        return None
    before = {name: tensor.clone() for name, tensor in pupil.state_dict().items()}
    sharding.lay_out(pupil.to("meta"), layout, torch.device("cpu"), torch.float32)
    pupil.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in pupil.state_dict().items():
            parallel.part(tensor).copy_(before[name][parallel.rows_here(tensor)])
    return sharding.cut_for(layout, parallel.rank(), pupil.model.config)


@contextmanager
def exactly() -> Iterator[None]:
    """Muon's rounds in float32: in bfloat16 the last bit of a matrix decides on the third digit of its step."""

    def exact(device: torch.device) -> torch.dtype:
        return torch.float32

    with patch.object(muon, "fast_dtype", exact), patch.object(owners, "fast_dtype", exact):
        yield
