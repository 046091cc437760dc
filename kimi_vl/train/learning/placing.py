"""Teaching MoonViT's tokens where they lie: which hundredth of the picture's height and width each one is in.

A point is answered in shares of the picture's sides, but of a token the decoder knows only how many came before it.
What it can say of its place must be found in the token itself, and nothing else asks the tower to keep it there. The
head is thrown away after training, as the reading head is (reading.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.model.segments import sent
from kimi_vl.model.vision import places_of

SHARES = 100  # of a side, that are told apart: what the first two digits of an answer tell


class PlacingHead(nn.Module):
    def __init__(self, width: int, merge_kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.merge_kernel_size = merge_kernel_size
        self.proj = nn.Linear(width, 2 * SHARES)

    def forward(self, features: Tensor) -> Tensor:
        """Features [tokens, D] → logits [tokens, 2, SHARES] of the share of the height and of the width."""
        guesses: Tensor = self.proj(features)
        return guesses.unflatten(-1, (2, SHARES))

    def targets(self, grids: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Where the middle of each token lies: [tokens, 2] int64, of all pictures in order."""
        kh, kw = self.merge_kernel_size
        merged = [(h // kh, w // kw) for h, w in grids]
        places = places_of(merged, device)
        sides = torch.stack([sent(list(side), device) for side in zip(*merged, strict=True)], 1)
        middles = torch.stack((places.row, places.column), 1) + 0.5
        return (middles / sides.index_select(0, places.picture) * SHARES).long()

    def loss(self, features: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Cross entropy of both, summed over all tokens: scalar float32."""
        guesses = self(features).flatten(0, 1).float()
        return F.cross_entropy(guesses, self.targets(grids, features.device).flatten(), reduction="sum")
