"""Floating point operations of a step.

A product of [n, a] and [a, b] is 2 · n · a · b; the backward pass takes two of the kind for every one. Attention is two
products of every query with the keys that it sees, and five backwards. Everything else counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig, TextConfig
from kimi_vl.train.plan.piece import Piece
from kimi_vl.train.plan.units import Unit, Units

# As kimi_vl.train.learning.losses has them.
MOST_LOGITS = 2**29
LOGITS_OF_A_PIECE = 2**28


@dataclass(frozen=True)
class Work:
    products: float
    tower_attention: float
    decoder_attention: float

    @property
    def total(self) -> float:
        return self.products + self.tower_attention + self.decoder_attention


def work(config: KimiVLConfig, piece: Piece, recompute: str) -> Work:
    """Of one process, for a piece, forward and backward. Experts have as much to do as one another.

    ``recompute`` is one of :data:`kimi_vl.train.recompute.RECOMPUTE`; a layer that is done again is left when its last
    product would come, since nothing needs that.
    """
    text, vision = config.text_config, config.vision_config
    again = 1 if recompute == "layers" else 0
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    sparse = text.num_hidden_layers - dense
    width, inner = vision.hidden_size, vision.intermediate_size
    tower_last = piece.patches * inner * width
    tower = piece.patches * (4 * width * width + inner * width) + tower_last
    attention = _attention(text, piece)
    dense_last = piece.tokens * text.intermediate_size * text.hidden_size
    shared = piece.tokens * text.n_shared_experts * text.moe_intermediate_size * text.hidden_size
    routed = piece.tokens * text.num_experts_per_tok * text.moe_intermediate_size * text.hidden_size
    router = piece.tokens * text.n_routed_experts * text.hidden_size
    layers = (
        vision.num_hidden_layers * ((3 + again) * tower - again * tower_last)
        + dense * ((3 + again) * (attention + 3 * dense_last) - again * dense_last)
        + sparse * ((3 + again) * (attention + router + 3 * (routed + shared)) - again * shared)
    )
    pixels = 3 * vision.patch_size**2 * width * piece.patches
    merged = piece.patches // math.prod(vision.merge_kernel_size)
    projector = merged * vision.merged_size * (vision.merged_size + text.hidden_size)
    head = piece.seen * text.hidden_size * text.vocab_size
    heads = 4 if piece.seen * text.vocab_size > MOST_LOGITS else 3
    passes = 2 * (2 + 5 + 2 * again)
    return Work(
        products=2.0 * (layers + 2 * pixels + 3 * projector + heads * head),
        tower_attention=passes * vision.num_hidden_layers * width * piece.patch_pairs,
        # Values are filled up to the width of keys.
        decoder_attention=passes * text.num_hidden_layers * text.num_attention_heads * text.qk_head_dim * piece.pairs,
    )


def _attention(text: TextConfig, piece: Piece) -> int:
    """Multiplications of the projections. Everybody expands the latents of the whole row."""
    heads, width, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    here = width * (heads * text.qk_head_dim + rank + text.qk_rope_head_dim + heads * text.v_head_dim)
    return piece.tokens * here + piece.row * rank * heads * (text.qk_nope_head_dim + text.v_head_dim)


def muon_work(units: Units) -> float:
    """Of one process that makes its share of all matrices orthogonal, or a single one that is more than a share.

    Five rounds, each of two products on the short side and one between squares.
    """
    most = 0.0
    for of_group in ((units.root, *units.layers), units.experts):
        costs = list(_costs(of_group))
        if costs:
            processes = of_group[0].group.processes
            most += max(sum(times * cost for times, cost in costs) / processes, max(cost for _, cost in costs))
    return most


def _costs(units: Iterable[Unit]) -> Iterator[tuple[int, float]]:
    for unit in units:
        for weight in unit.weights:
            if weight.muon:
                short, long = sorted(weight.shape)
                yield unit.times * weight.count, 5 * 2.0 * short * short * (2 * long + short)
