"""What the loop knows of a stage: a module that holds the model and turns a batch into a loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import Routing


@dataclass(frozen=True)
class Learned:
    loss: Tensor  # scalar float32, this batch's share of what is to be minimised
    routings: list[Routing]  # of each MoE layer, where the decoder took part
    figures: dict[str, Tensor]  # name → scalar, its share of what the log tells


class Pupil(nn.Module):
    """The model with the heads that only training needs.

    ``forward(batch, totals)`` gives :class:`Learned`, whose sums over a step's batches and processes are the step's.
    """

    model: KimiVLForConditionalGeneration
