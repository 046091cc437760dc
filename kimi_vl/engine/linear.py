"""A linear map of 8.5-bit weights, in the place of one of torch's in MoonViT and the projector."""

from __future__ import annotations

from torch import Tensor, nn

from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix


class PairLinear(nn.Module):
    """x [..., in] float32 → [..., out]: the sum of two 4-bit matrices, the second for what the first left."""

    def __init__(self, pair: tuple[Int4Matrix, Int4Matrix], bias: Tensor, backend: Backend) -> None:
        super().__init__()
        self.pair, self.bias, self.backend = pair, bias, backend

    def forward(self, x: Tensor) -> Tensor:
        y = self.backend.linear_pair(x.flatten(0, -2).contiguous(), self.pair)
        return y.add_(self.bias).unflatten(0, x.shape[:-1])
