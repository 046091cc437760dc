"""Softmax attention inside each segment of a packed row: pictures in MoonViT, samples in the decoder.

In: queries, keys and values of all segments, end to end, and the segments' lengths. Out: the attended values.
Segments never see each other and nothing is padded, so memory grows linearly with their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def sent(numbers: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """What the host knows, on the device, without waiting for all that the device has still to do."""
    return torch.as_tensor(numbers).to(device, non_blocking=True)


def within(lengths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of segments that lie end to end: which one each token is in, and its place there, both [tokens] int64."""
    tokens, counts = sum(lengths), sent(list(lengths), device)
    which = torch.arange(len(lengths), device=device).repeat_interleave(counts, output_size=tokens)
    first = (counts.cumsum(0) - counts).index_select(0, which)
    return which, torch.arange(tokens, device=device) - first


def places_from(firsts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Tensor:
    """The places in a row of segments that begin at ``firsts``, in their order: [sum of lengths] int64."""
    which, nth = within(lengths, device)
    return sent(list(firsts), device).index_select(0, which) + nth


@dataclass(frozen=True)
class Fork:
    """Tokens of a beginning, and of each of several ways to go on from it, which do not see one another."""

    stem: int
    branches: tuple[int, ...]

    @property
    def sizes(self) -> list[int]:
        return [self.stem, *self.branches]


@dataclass(frozen=True)
class Forks:
    """That lie end to end, each its stem and then its branches: read so, a beginning is read once."""

    each: tuple[Fork, ...]


def segment_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, scale: float, causal: bool) -> Tensor:
    """Attention of every segment to itself.

    Args:
        q, k: [tokens, heads, dim], segments end to end.
        v: [tokens, heads, v_dim] with v_dim <= dim.
        lengths: tokens of each segment; they sum to ``tokens``.

    Returns: [tokens, heads, v_dim].
    """
    v_dim = v.shape[-1]
    if v_dim != q.shape[-1]:
        # The fused kernel wants one width; with different ones torch would write out all the scores.
        v = F.pad(v, (0, q.shape[-1] - v_dim))
    dtype = v.dtype
    if q.requires_grad and q.device.type == "cpu" and dtype == torch.bfloat16:
        # The CPU kernel's backward pass is several times slower in bfloat16 than in float32.
        q, k, v = q.float(), k.float(), v.float()
    assert sum(lengths) == q.shape[0], f"segments cover {sum(lengths)} of {q.shape[0]} tokens"
    if q.device.type == "cuda" and dtype != torch.float32:
        # One kernel for all segments, which torch has for GPUs only. To import it costs 70 MB.
        from torch.nn.attention.varlen import varlen_attn

        ends = sent([0, *itertools.accumulate(lengths)], q.device).int()
        window, longest = (-1, 0 if causal else -1), max(lengths)
        attended = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=window)
        assert isinstance(attended, Tensor)
        return attended[..., :v_dim]
    segments = list(zip(*(x.split(list(lengths)) for x in (q, k, v)), strict=True))
    of_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        of_length.setdefault(length, []).append(index)

    outs: list[Tensor] = [q] * len(segments)
    for indices in of_length.values():
        n_q, n_k, n_v = (
            torch.stack([segments[i][part] for i in indices]).transpose(1, 2)  # [n, H, L, dim]
            for part in range(3)
        )
        out = F.scaled_dot_product_attention(n_q, n_k, n_v, is_causal=causal, scale=scale).transpose(1, 2)
        for i, segment in zip(indices, out.unbind(0), strict=True):
            outs[i] = segment
    return torch.cat(outs)[..., :v_dim].to(dtype)


def forked_attention(q: Tensor, k: Tensor, v: Tensor, forks: Forks, *, scale: float) -> Tensor:
    """Causal attention of every stem to itself, and of every branch to its stem and itself.

    Args: as of :func:`segment_attention`. Returns: [tokens, heads, v_dim].
    """
    v_dim = v.shape[-1]
    v = F.pad(v, (0, q.shape[-1] - v_dim))
    outs: list[Tensor] = []
    lengths = [sum(fork.sizes) for fork in forks.each]
    for fork, *parts in zip(forks.each, *(x.split(lengths) for x in (q, k, v)), strict=True):
        (stem_q, *queries), (stem_k, *keys), (stem_v, *values) = (part.split(fork.sizes) for part in parts)
        outs += _attended((stem_q[None], stem_k[None], stem_v[None]), None, scale)
        if not any(fork.branches):
            continue
        # Branches are filled up to the longest at their ends, which none of their own tokens sees.
        filled = pad_sequence(queries, batch_first=True)  # [branches, longest, H, dim]
        n, longest = filled.shape[:2]
        both = (
            torch.cat((stem.expand(n, *stem.shape), pad_sequence(of_all, batch_first=True)), dim=1)
            for stem, of_all in ((stem_k, keys), (stem_v, values))
        )
        mask = torch.ones(longest, fork.stem + longest, dtype=torch.bool, device=q.device).tril(fork.stem)
        attended = _attended((filled, *both), mask, scale)
        outs += [out[:size] for out, size in zip(attended, fork.branches, strict=True)]
    return torch.cat(outs)[..., :v_dim]


def _attended(qkv: tuple[Tensor, ...], mask: Tensor | None, scale: float) -> tuple[Tensor, ...]:
    """[n, L, H, dim] each → n of [L, H, dim]; causal if there is no mask."""
    q, k, v = (x.transpose(1, 2) for x in qkv)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    return out.transpose(1, 2).unbind(0)
