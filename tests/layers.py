"""Random layers of any size for the engine's tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kimi_vl.engine.int4 import Int4Matrix, decode, encode, in_turn, stack
from kimi_vl.engine.weights import FeedForwardWeights, LatentAttentionWeights, RoutedWeights, SwiGLUWeights


@dataclass(frozen=True)
class Sizes:
    hidden: int = 256
    heads: int = 4
    rank: int = 64
    nope: int = 32
    rope: int = 16
    value: int = 48
    inner: int = 96
    experts: int = 8
    chosen: int = 3


def matrix(rows: int, columns: int, *, twice: bool = False) -> Int4Matrix:
    """Random weights that keep the size of what they are multiplied with."""
    weights = torch.randn(rows, columns) / columns**0.5
    return encode_twice(weights) if twice else encode(weights)[0]


def encode_twice(weights: Tensor) -> Int4Matrix:
    """As files have them: 16 rows of the rest behind the same 16 of the first."""
    first, _ = encode(weights)
    rest, _ = encode(weights - decode(first))
    both = torch.stack((first.blocks, rest.blocks), dim=-3)
    return replace(first, blocks=both.select(-3, 0), rest=replace(rest, blocks=both.select(-3, 1)))


def attention_weights(s: Sizes) -> LatentAttentionWeights:
    upright = [torch.randn(s.nope, s.rank) / s.nope**0.5 for _ in range(s.heads)]
    return LatentAttentionWeights(
        norm=torch.rand(s.hidden) + 0.5,
        latent_norm=torch.rand(s.rank) + 0.5,
        frequency=torch.rand(s.rope // 2),
        q=matrix(s.heads * (s.nope + s.rope), s.hidden),
        latent=matrix(s.rank + s.rope, s.hidden, twice=True),
        o=matrix(s.hidden, s.heads * s.value, twice=True),
        mix=stack([matrix(s.value, s.rank, twice=True) for _ in range(s.heads)]),
        key=stack([encode_twice(head.T) for head in upright]),
        upright=stack([encode_twice(head) for head in upright]),
        eps=1e-5,
        latent_eps=1e-6,
    )


def swiglu_weights(s: Sizes, inner: int) -> SwiGLUWeights:
    return SwiGLUWeights(in_turn(matrix(inner, s.hidden), matrix(inner, s.hidden)), matrix(s.hidden, inner))


def feed_forward_weights(s: Sizes, *, groups: int = 1, kept_groups: int = 1) -> FeedForwardWeights:
    """With experts if there are any to choose."""
    routed = None
    if s.experts:
        each = [swiglu_weights(s, s.inner) for _ in range(s.experts)]
        routed = RoutedWeights(
            router=torch.randn(s.experts, s.hidden) / s.hidden**0.5,
            bias=torch.randn(s.experts) / 10,
            experts=SwiGLUWeights(stack([e.gate_up for e in each]), stack([e.down for e in each])),
            chosen=s.chosen,
            groups=groups,
            kept_groups=kept_groups,
            normalize=True,
            scale=2.446,
        )
    return FeedForwardWeights(torch.rand(s.hidden) + 0.5, 1e-5, swiglu_weights(s, 2 * s.inner), routed)
