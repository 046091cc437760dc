"""What the loop knows of a stage: a module that holds the model and turns a batch into a loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration, draw_weight
from kimi_vl.model.moe import Routing
from kimi_vl.train import parallel


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
    # What of its own does not begin as :func:`draw_weight` has it: name → value.
    begins_at: ClassVar[Mapping[str, float]] = {}

    @torch.no_grad()
    def begin(self, seed: int, names: Collection[str]) -> None:
        """Draws the named weights anew, one whole tensor at a time, of which each process keeps its rows."""
        std = self.model.config.text_config.initializer_range
        for name, tensor in self.state_dict().items():
            if name not in names:
                continue
            whole = torch.empty(tensor.shape)
            draw_weight(name.removeprefix("model."), whole, std=std, seed=seed)
            if name in self.begins_at:
                whole.fill_(self.begins_at[name])
            parallel.part(tensor).copy_(whole[parallel.rows_here(tensor)])
