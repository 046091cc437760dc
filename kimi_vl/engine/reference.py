"""What the native functions do, in plain torch: their measure in tests, and the way where there is no library.

The same rounding at the same places (8-bit activations, bfloat16 latents), so that answers differ in the last bits
of sums only. Functions and shapes are those of :mod:`kimi_vl.engine.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_vl.engine import int4
from kimi_vl.engine.int4 import BLOCK_COLUMNS, BLOCK_ROWS, Int4Matrix, Loss, by_turns, likeliest
from kimi_vl.engine.latents import read_rows, write_rows
from kimi_vl.engine.opened import Opened, by_torch
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.weights import (
    DecoderWeights,
    FeedForwardWeights,
    LatentAttentionWeights,
    RoutedWeights,
    Segment,
    SwiGLUWeights,
)
from kimi_vl.model.rotary import rotate_pairs
from kimi_vl.model.segments import segment_attention


def int8_rows(x: Tensor) -> Tensor:
    """x [T, D] after a round trip through 8 bits, each 128 columns with a scale of their own."""
    groups = F.pad(x, (0, -x.shape[1] % BLOCK_COLUMNS)).unflatten(1, (-1, BLOCK_COLUMNS))
    most = groups.abs().amax(-1, keepdim=True)
    q = (groups * torch.where(most > 0, 127 / most, 0)).round()
    return (q * (most / 127)).flatten(1)[:, : x.shape[1]]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


class Reference:
    """Stands in for :class:`kimi_vl.engine.kernels.Kernels`."""

    kind = "torch"

    def __init__(self, threads: int) -> None:
        self.threads = self.torch_threads = self.picture_torch_threads = threads

    def encode(self, weights: Tensor) -> tuple[Int4Matrix, Loss]:
        return int4.encode(weights)

    def linear(self, x: Tensor, matrix: Int4Matrix, *, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
        return times(x if norm is None else rms_norm(x, norm, eps), matrix)

    def vocabulary(self, x: Tensor, matrix: Int4Matrix, *, norm: Tensor, eps: float, exact: int) -> Tensor:
        assert matrix.rest is not None
        halves = (replace(matrix, rest=None), matrix.rest)
        both = [self.linear(x, half, norm=norm, eps=eps) for half in halves]
        first, rest = (F.pad(y, (0, -y.shape[1] % BLOCK_ROWS)) for y in both)
        _, places = likeliest(first, exact)
        return first.scatter_add_(1, places, rest.gather(1, places))[:, : matrix.rows]

    def opened(self, matrix: Int4Matrix, bias: Tensor, *, gelu: bool = False) -> Opened:
        return by_torch(int4.decode(matrix), bias, gelu=gelu)

    def numbers(self, matrix: Int4Matrix) -> Tensor:
        return int4.decode(matrix)

    def feed_forward(self, x: Tensor, weights: FeedForwardWeights) -> Tensor | None:
        normed = rms_norm(x, weights.norm, weights.eps)
        total = swiglu(normed, weights.shared)
        if weights.routed is None:
            x += total
            return None
        chosen, weight = route(normed, weights.routed)
        for e in chosen.unique().tolist():
            token, place = (chosen == e).nonzero(as_tuple=True)
            part = swiglu(normed[token], one_of(weights.routed.experts, e))
            total[token] += weight[token, place].unsqueeze(1) * part
        x += total
        return chosen.to(torch.int32)

    def latent_attention(
        self, x: Tensor, weights: LatentAttentionWeights, segments: Sequence[Segment], cache: Tensor
    ) -> None:
        w = weights
        normed = rms_norm(x, w.norm, w.eps)
        positions = torch.cat([torch.arange(s.start, s.start + s.tokens) for s in segments])
        q = times(normed, w.q).unflatten(1, (w.heads, -1))
        q_rope = turn(q[..., w.nope :], positions[:, None], w.frequency)
        latent, k_rope = times(normed, w.latent).split((w.rank, w.rope), dim=1)
        latent = rms_norm(latent, w.latent_norm, w.latent_eps)
        rows = torch.cat((latent, turn(k_rope, positions, w.frequency)), dim=1)
        attended = torch.empty(len(x), w.heads, w.value)
        first = 0
        for s in segments:
            here = slice(first, first + s.tokens)
            first += s.tokens
            places = torch.arange(s.start + s.tokens)
            at = torch.tensor(s.pages)[places // PAGE] * PAGE + places % PAGE
            write_rows(cache, at[s.start :], rows[here], w.rank)
            known = read_rows(cache, at, w.rank, w.rope)
            hidden = torch.arange(len(known)) > positions[here, None]
            form = plain if s.is_prompt else absorbed
            attended[here] = form(q[here, :, : w.nope], q_rope[here], known, hidden, w)
        x += times(attended.flatten(1), w.o)

    def layers(self, x: Tensor, decoder: DecoderWeights, segments: Sequence[Segment], cache: Tensor) -> Tensor | None:
        chosen = []
        for of_layer, (attention, feed_forward) in zip(cache, decoder.layers, strict=True):
            self.latent_attention(x, attention, segments, of_layer)
            chosen.append(self.feed_forward(x, feed_forward))
        routed = [c for c in chosen if c is not None]
        return torch.stack(routed) if routed else None

    def picture_attention(self, qkv: Tensor, angles: Tensor) -> Tensor:
        q, k, v = qkv.unbind(1)
        q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
        return segment_attention(q, k, v, [len(q)], scale=q.shape[-1] ** -0.5, causal=False)


def times(x: Tensor, matrix: Int4Matrix) -> Tensor:
    """8-bit x [T, columns] times a matrix: [T, rows]."""
    return int8_rows(x) @ int4.decode(matrix).T


def one_of(stacked: SwiGLUWeights, index: int) -> SwiGLUWeights:
    return SwiGLUWeights(stacked.gate_up[index], stacked.down[index])


def swiglu(x: Tensor, w: SwiGLUWeights) -> Tensor:
    gate, up = by_turns(times(x, w.gate_up), w.down.columns)
    return times(F.silu(gate) * up, w.down)


def route(x: Tensor, w: RoutedWeights) -> tuple[Tensor, Tensor]:
    """x [T, D] → whom each token chose [T, k], ascending, and their weights [T, k]."""
    scores = (x @ w.router.T).sigmoid()
    choice = scores + w.bias
    if w.groups > 1:
        grouped = choice.unflatten(1, (w.groups, -1))
        best_two = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
        kept = best_two.topk(w.kept_groups, dim=-1).indices
        dropped = torch.ones_like(best_two, dtype=torch.bool).scatter(1, kept, False)
        choice = grouped.masked_fill(dropped.unsqueeze(-1), float("-inf")).flatten(1)
    chosen = choice.topk(w.chosen, dim=-1).indices.sort(-1).values
    weight = scores.gather(1, chosen)
    if w.normalize:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
    return chosen, weight * w.scale


def turn(x: Tensor, positions: Tensor, frequency: Tensor) -> Tensor:
    """Turns adjacent pairs of x [..., rope] (arXiv 2104.09864)."""
    angles = positions[..., None].float() * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def plain(q_nope: Tensor, q_rope: Tensor, known: Tensor, hidden: Tensor, w: LatentAttentionWeights) -> Tensor:
    """q_nope [T, H, nope], q_rope [T, H, rope], known [S, rank + rope], hidden [T, S] → [T, H, value]."""
    latent, k_rope = known.split((w.rank, w.rope), dim=1)
    key = torch.stack([times(latent, w.upright[h]) for h in range(w.heads)])  # [H, S, nope]
    value = torch.stack([times(latent, w.mix[h]) for h in range(w.heads)])
    scores = torch.einsum("thn,hsn->hts", q_nope, key) + torch.einsum("thr,sr->hts", q_rope, k_rope)
    return torch.einsum("hts,hsv->thv", weights_of(scores, hidden, w), value)


def absorbed(q_nope: Tensor, q_rope: Tensor, known: Tensor, hidden: Tensor, w: LatentAttentionWeights) -> Tensor:
    """The same without expanding a latent."""
    query = torch.stack([times(q_nope[:, h], w.key[h]) for h in range(w.heads)])  # [H, T, rank]
    query = torch.cat((query, q_rope.transpose(0, 1)), dim=-1)
    mixed = weights_of(query @ known.T, hidden, w) @ known[:, : w.rank]  # [H, T, rank]
    return torch.stack([times(mixed[h], w.mix[h]) for h in range(w.heads)], dim=1)


def weights_of(scores: Tensor, hidden: Tensor, w: LatentAttentionWeights) -> Tensor:
    scale = (w.nope + w.rope) ** -0.5
    return (scores * scale).masked_fill(hidden, float("-inf")).softmax(-1)
