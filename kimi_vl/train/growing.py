"""A trained model → the same with more layers of the decoder, or smaller patches, from where training goes on.

Copies of the last layers add nothing at first, for their output matrices are zero (depth growth as in Net2Net, Chen et
al., ICLR 2016). Smaller patches see of a picture what those before saw of it enlarged: resizing a patch is linear, so
its transpose carries the kernel over (FlexiViT, Beyer et al., CVPR 2023, section 3.4).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_vl.checkpoint import load_model, place, replacing_folder, save_model
from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor

_LAYER = "language_model.model.layers."
_ADDING = ("o_proj.weight", "down_proj.weight")  # the last matrices of attention, and of an MLP or an expert
_KERNEL = "vision_tower.patch_embed.proj.weight"


def grow(source: Path, target: Path, *, layers: int | None = None, patch_size: int | None = None) -> KimiVLConfig:
    """Writes a grown model and its processor. Returns the config.

    Args:
        layers: of the decoder, no fewer than there are, and no more than its layers of experts allow to copy.
        patch_size: in pixels, no more than now. The processor's limit goes on allowing pictures of as many pixels.

    Raises: ``ValueError`` for a size that cannot be, or a folder that cannot be read or written.
    """
    model, processor = load_model(source), KimiVLProcessor.from_pretrained(source)
    before = model.config
    layers = before.text_config.num_hidden_layers if layers is None else layers
    patch_size = before.vision_config.patch_size if patch_size is None else patch_size
    _check(before, layers, patch_size)
    config = replace(
        before,
        text_config=replace(before.text_config, num_hidden_layers=layers),
        vision_config=replace(before.vision_config, patch_size=patch_size),
    )
    images = processor.image_config
    limit = round(images.in_token_limit * (images.patch_size / patch_size) ** 2)
    processor = replace(processor, image_config=replace(images, patch_size=patch_size, in_token_limit=limit))
    with torch.device("meta"):
        grown = KimiVLForConditionalGeneration(config)
    for name, tensor in _weights(model, layers, patch_size).items():
        place(grown, name, tensor)
    with replacing_folder(target) as whole:
        save_model(grown, whole)
        processor.save_pretrained(whole)
    return config


def _check(config: KimiVLConfig, layers: int, patch_size: int) -> None:
    text = config.text_config
    most = 2 * text.num_hidden_layers - text.first_k_dense_replace
    if not text.num_hidden_layers <= layers <= most:
        raise ValueError(
            f"layers: from {text.num_hidden_layers}, as now, to {most}, when every layer of experts is there twice; "
            f"not {layers}"
        )
    if not 1 <= patch_size <= config.vision_config.patch_size:
        raise ValueError(f"patch_size: from 1 to {config.vision_config.patch_size}, as now, not {patch_size}")


def _weights(model: KimiVLForConditionalGeneration, layers: int, patch_size: int) -> dict[str, Tensor]:
    """Everything that the grown model has."""
    weights = model.state_dict()
    there = model.config.text_config.num_hidden_layers
    for copied in range(2 * there - layers, there):
        before, after = f"{_LAYER}{copied}.", f"{_LAYER}{copied + layers - there}."
        for name in [name for name in weights if name.startswith(before)]:
            copy = weights[name].clone()
            weights[after + name.removeprefix(before)] = copy.zero_() if name.endswith(_ADDING) else copy
    weights[_KERNEL] = _resized(weights[_KERNEL], patch_size)
    return weights


def _resized(kernel: Tensor, side: int) -> Tensor:
    """[D, 3, P, P] → [D, 3, side, side]: to a small patch what ``kernel`` is to the same one enlarged."""
    if kernel.shape[-1] == side:
        return kernel
    every = torch.eye(side * side).view(-1, 1, side, side)
    enlarged = F.interpolate(every, size=kernel.shape[-2:], mode="bicubic", align_corners=False).flatten(1)
    return (kernel.float().flatten(2) @ enlarged.T).unflatten(2, (side, side)).to(kernel.dtype)
