"""Token by token: a prompt's tensors → the ids of its answer, one sequence at a time.

Simple and exact: the measure that any faster engine is held against. Knows nothing of files or words.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from kimi_vl.model.attention import LatentCache
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.sampling import Drawn, Sampler

# A long prompt passes the decoder in pieces, so that memory for attention grows with its length only.
PREFILL_CHUNK = 1024


@torch.inference_mode()
def prefill(
    model: KimiVLForConditionalGeneration,
    input_ids: Tensor,
    cache: LatentCache,
    *,
    pixel_values: Tensor | None,
    image_grid_hws: Tensor,
    chunk: int = PREFILL_CHUNK,
) -> Tensor:
    """Puts a prompt [T] into an empty ``cache``. Returns the logits [V] of the token after it."""
    features = None
    if pixel_values is not None:
        features = model.image_features(pixel_values.to(model.device), image_grid_hws)
    embeds = model.embed(input_ids.to(model.device), features)
    positions = torch.arange(len(embeds), device=model.device)
    states = embeds
    for piece, places in zip(embeds.split(chunk), positions.split(chunk), strict=True):
        states = model.hidden(piece, places, cache).states
    return model.language_model.lm_head(states[-1])


@torch.inference_mode()
def decode_step(model: KimiVLForConditionalGeneration, token: int, cache: LatentCache) -> Tensor:
    """Adds one id to the sequence in ``cache``. Returns the logits [V] of the token after it."""
    ids = torch.tensor([token], device=model.device)
    places = torch.tensor([cache.length], device=model.device)
    # Not by model.embed: a model may say the placeholder too, and means no picture by it.
    embeds = model.language_model.model.embed_tokens(ids)
    return model.language_model.lm_head(model.hidden(embeds, places, cache).states[-1])


def generate(
    model: KimiVLForConditionalGeneration,
    input_ids: Tensor,
    *,
    pixel_values: Tensor | None,
    image_grid_hws: Tensor,
    sampler: Sampler,
) -> Generator[Drawn]:
    """Yields the answer's tokens as they come; the last has a ``finish``.

    Args:
        input_ids: [T] the prompt, with placeholders.
        pixel_values: [L, 3, patch, patch] float, all pictures in order, or None.
        image_grid_hws: [N, 2] the pictures' patches down and across.
    """
    cache = LatentCache(model.config.text_config, dtype=model.dtype, device=model.device)
    logits = prefill(model, input_ids, cache, pixel_values=pixel_values, image_grid_hws=image_grid_hws)
    while True:
        token = sampler.draw(logits.float().cpu())
        yield token
        if token.finish is not None:
            return
        logits = decode_step(model, token.id, cache)
