"""What makes a stage: which part of the model moves, what turns batches into a loss, how the model is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.learner import Learner


def answering(
    model: KimiVLForConditionalGeneration, images: ImageProcessorConfig, reading: float, placing: float
) -> Pupil:
    """The pupil of all stages but the first of the tower: it learns to say what the data says."""
    return Learner(model, images, reading=reading, placing=placing)


def unchanged(config: KimiVLConfig) -> KimiVLConfig:
    return config


@dataclass(frozen=True)
class Stage:
    """``moves`` are beginnings of the pupil's parameter names; ``pupil`` gets the weights of the reading and
    placing losses too.

    Samples of ``captions`` are pictures with a caption each, of any size; all others are conversations.
    """

    moves: tuple[str, ...]
    pupil: Callable[[KimiVLForConditionalGeneration, ImageProcessorConfig, float, float], Pupil] = answering
    config: Callable[[KimiVLConfig], KimiVLConfig] = unchanged
    captions: bool = False
