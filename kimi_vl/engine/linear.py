"""A linear map of quantised weights, in the place of one of torch's in MoonViT and the projector."""

from __future__ import annotations

from torch import Tensor, nn

from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix
from kimi_vl.engine.opened import Opened


class QuantizedLinear(nn.Module):
    """x [..., in] float32 → [..., out] float32.

    A picture has so many patches that their products cost far more than the reading of weights, so these are made
    larger first.
    """

    def __init__(self, matrix: Int4Matrix, bias: Tensor, backend: Backend) -> None:
        super().__init__()
        self.matrix, self.bias, self.backend = matrix, bias, backend

    def opened(self, *, gelu: bool = False) -> Opened:
        """The map of rows, after GELU if that is wanted."""
        return self.backend.opened(self.matrix, self.bias, gelu=gelu)

    def forward(self, x: Tensor) -> Tensor:
        return self.opened()(x.flatten(0, -2).contiguous()).unflatten(0, x.shape[:-1])
