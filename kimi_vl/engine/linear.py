"""A linear map of quantised weights, in the place of one of torch's in MoonViT and the projector."""

from __future__ import annotations

from torch import Tensor, nn

from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix


class QuantizedLinear(nn.Module):
    """x [..., in] float32 → [..., out]."""

    def __init__(self, matrix: Int4Matrix, bias: Tensor, backend: Backend) -> None:
        super().__init__()
        self.matrix, self.bias, self.backend = matrix, bias, backend

    def forward(self, x: Tensor) -> Tensor:
        (y,) = self.backend.linear(x.flatten(0, -2).contiguous(), [self.matrix])
        return y.add_(self.bias).unflatten(0, x.shape[:-1])
