"""Softmax attention inside each segment of a packed row: pictures in MoonViT, samples in the decoder.

In: queries, keys and values of all segments, end to end, and the segments' lengths. Out: the attended values.
Segments never see each other and nothing is padded, so memory grows linearly with their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, scale: float, causal: bool
) -> Tensor:
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
    starts_of: dict[int, list[int]] = {}
    start = 0
    for length in lengths:
        starts_of.setdefault(length, []).append(start)
        start += length
    assert start == q.shape[0], f"segments cover {start} of {q.shape[0]} tokens"

    pieces: dict[int, Tensor] = {}
    for length, starts in starts_of.items():
        batch = [
            torch.stack([x[s : s + length] for s in starts]).transpose(1, 2)  # [n, H, L, dim]
            for x in (q, k, v)
        ]
        out = F.scaled_dot_product_attention(*batch, is_causal=causal, scale=scale).transpose(1, 2)
        pieces.update(zip(starts, out.unbind(0), strict=True))
    return torch.cat([pieces[s] for s in sorted(pieces)])[..., :v_dim]
