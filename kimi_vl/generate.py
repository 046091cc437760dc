"""Token by token: a prompt's tensors → the ids of its answer, one sequence at a time.

Simple and exact: the measure that any faster engine is held against. Knows nothing of files or words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_vl.model.attention import LatentCache
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration

# A long prompt passes the decoder in pieces, so that memory for attention grows with its length only.
PREFILL_CHUNK = 1024


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is drawn. ``temperature`` 0 takes the likeliest token; ``seed`` makes a draw repeatable."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, not {self.seed}")


def sampling_probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """Logits [V] → probabilities [V] float32 after temperature and top-p.

    Top-p keeps the likeliest tokens until their mass reaches ``top_p``, the one that crosses it included (Holtzman
    et al., arXiv 1904.09751). Temperature must be above 0.
    """
    logits = logits.double()  # a temperature just above 0 makes no overflow of what remains
    probabilities = ((logits - logits.max()) / params.temperature).softmax(-1).float()
    if params.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= params.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return probabilities / probabilities.sum()


def sample(logits: Tensor, params: SamplingParams, generator: torch.Generator) -> int:
    """Draws one id from logits [V]."""
    if params.temperature == 0.0:
        return int(logits.argmax())
    probabilities = sampling_probabilities(logits, params).cpu()
    return int(torch.multinomial(probabilities, 1, generator=generator))


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
    states = model.hidden(model.embed(ids), places, cache).states
    return model.language_model.lm_head(states[-1])


def generate(
    model: KimiVLForConditionalGeneration,
    input_ids: Tensor,
    *,
    pixel_values: Tensor | None,
    image_grid_hws: Tensor,
    end_ids: Sequence[int],
    params: SamplingParams,
) -> Iterator[int]:
    """Yields the answer's ids as they come; the last is one of ``end_ids`` if the model stopped by itself.

    Args:
        input_ids: [T] the prompt, with placeholders.
        pixel_values: [L, 3, patch, patch] float, all pictures in order, or None.
        image_grid_hws: [N, 2] the pictures' patches down and across.
    """
    cache = LatentCache(model.config.text_config, dtype=model.dtype, device=model.device)
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    logits = prefill(model, input_ids, cache, pixel_values=pixel_values, image_grid_hws=image_grid_hws)
    for count in range(1, params.max_new_tokens + 1):
        token = sample(logits, params, generator)
        yield token
        if token in end_ids or count == params.max_new_tokens:
            return
        logits = decode_step(model, token, cache)
