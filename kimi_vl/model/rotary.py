"""Rotary position embedding on adjacent pairs, shared by MoonViT (2-D) and the decoder (1-D).

In: queries or keys and one angle per pair. Out: the same, turned. Knows nothing of where angles come from.
Source: RoFormer, section 3.2.2 (arXiv 2104.09864), in its original interleaved layout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Turns each pair (x[2j], x[2j+1]) by ``angles[j]``.

    Args:
        x: [tokens, heads, dim], any float dtype.
        angles: [tokens, dim / 2], float32, in radians.

    Returns: [tokens, heads, dim] in the dtype of ``x``; the turning itself is done in float32.
    """
    turn = torch.complex(angles.cos(), angles.sin()).unsqueeze(1)  # [T, 1, dim/2] complex
    pairs = torch.view_as_complex(x.float().contiguous().unflatten(-1, (-1, 2)))  # [T, H, dim/2]
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
