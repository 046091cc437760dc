"""A linear map whose weights are as large as thousands of rows are multiplied by fastest, for as long as it is kept."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Opened = Callable[[Tensor], Tensor]
"""x [T, D] float32 → [T, rows] float32."""


def by_torch(weights: Tensor, bias: Tensor, *, gelu: bool) -> Opened:
    """weights [rows, D] and bias [rows]; GELU by tanh comes after the map if it is wanted."""
    bias = bias.to(weights.dtype)

    def times(x: Tensor) -> Tensor:
        y = F.linear(x.to(weights.dtype), weights, bias).float()
        return F.gelu(y, approximate="tanh") if gelu else y

    return times
