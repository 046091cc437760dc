"""What the tests of training share: samples, and a model as small as it may be that still has every part."""

from __future__ import annotations

from dataclasses import replace

import torch

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.train.learner import Learner
from kimi_vl.train.packing import Sample
from tests.conftest import SMALL_CONFIG, random_pixels

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


def with_picture(
    seed: int, grid: tuple[int, int] = (2, 4), written: str | None = None, named: str | None = None
) -> Sample:
    pixels, hws = random_pixels([grid], seed)
    text = words(6, seed, 3)
    run = torch.full((grid[0] * grid[1] // 4,), PLACEHOLDER)
    ids, mask = torch.cat((run, text.input_ids)), torch.cat((run < 0, text.answer_mask))
    return Sample(ids, mask, pixels, hws, written, named)


NAMEABLE = {"cat": [1, 2], "black cat": [3, 1, 2], "tulip": [4]}


def pupil_of(model: Model, *, text: float = 0.0, reading: float = 0.0, naming: float = 0.0) -> Learner:
    return Learner(model, NAMEABLE, text_weight=text, reading_weight=reading, naming_weight=naming)
