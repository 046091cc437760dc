"""A linear map of quantised weights, in the place of one of torch's in MoonViT and the projector."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix


class QuantizedLinear(nn.Module):
    """x [..., in] float32 → [..., out] float32.

    A picture has so many patches that their products cost far more than the reading of weights. So these become
    floats first, and torch, whose large products are fast, has the rest.
    """

    def __init__(self, matrix: Int4Matrix, bias: Tensor, backend: Backend) -> None:
        super().__init__()
        self.matrix, self.bias, self.backend = matrix, bias, backend

    def opened(self) -> Callable[[Tensor], Tensor]:
        """The map with its weights as floats, which are there for as long as it is kept."""
        weights = self.backend.numbers(self.matrix)
        bias = self.bias.to(weights.dtype)
        return lambda x: F.linear(x.to(weights.dtype), weights, bias).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.opened()(x)
