"""Vision pretraining: MoonViT alone learns from pictures and captions; see :mod:`kimi_vl.train.learning.image_text`.

    kimi-vl train run recipes/nano/vision.toml

The report spends 2.0 T tokens on it, from the weights of SigLIP SO-400M, with L = L_siglip + 2 · L_caption and a
resolution that grows. Source: Kimi-VL report (arXiv 2504.07491), section 2.3.
"""

from __future__ import annotations

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.train.learning.image_text import ImageTextLearner, TextSize
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.stage import Stage


def pupil(model: KimiVLForConditionalGeneration, images: ImageProcessorConfig, reading: float, placing: float) -> Pupil:
    """Beside the tower two small text models of its own width and head size.

    Raises: ``ValueError`` for a weight of the placing loss, which is a loss of the projector's features.
    """
    if placing:
        raise ValueError(f"placing: the vision stage has no projector to learn places by; leave it at 0, not {placing}")
    vision = model.config.vision_config
    size = TextSize(
        vocab_size=model.config.text_config.vocab_size,
        hidden_size=vision.hidden_size,
        num_hidden_layers=3,
        num_attention_heads=vision.num_attention_heads,
    )
    return ImageTextLearner(model, size, images, reading=reading)


STAGE = Stage(
    moves=("model.vision_tower.", "reader.", "seen.", "embed_tokens.", "text_", "head.", "log_scale", "bias"),
    pupil=pupil,
    captions=True,
)
