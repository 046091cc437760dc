"""What one step learns from: a batch through the model to one loss, and the figures worth logging.

    total = text_weight · cross entropy of the answers + reading_weight · CTC of the lines + α · balance

In: :class:`Batch`. Out: :class:`Learned`. A stage chooses the weights and which parts may move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import Routing
from kimi_vl.train.balance import busiest_share, sequence_balance_loss
from kimi_vl.train.packing import IGNORE, Batch
from kimi_vl.train.reading import ReadingHead


@dataclass(frozen=True)
class Learned:
    loss: Tensor  # scalar float32, to be minimised
    routings: list[Routing]
    figures: dict[str, float]  # name → value, for the log


class Learner(nn.Module):
    """The model with the heads that only training needs.

    A ``text_weight`` of 0 leaves the decoder out altogether, a ``reading_weight`` of 0 the reading head.
    """

    def __init__(self, model: KimiVLForConditionalGeneration, *, text_weight: float, reading_weight: float) -> None:
        super().__init__()
        self.model = model
        self.reader = ReadingHead(model.config.vision_config).to(model.dtype)
        self.text_weight, self.reading_weight = text_weight, reading_weight

    def forward(self, batch: Batch) -> Learned:
        merged: list[Tensor] = []
        if batch.pixel_values is not None:
            merged = self.model.vision_tower(batch.pixel_values.to(self.model.dtype), batch.image_grid_hws)
        loss = torch.zeros((), device=self.model.device)
        figures: dict[str, float] = {}
        routings: list[Routing] = []
        if self.reading_weight:
            reading = self.reading_loss(batch, merged)
            loss = loss + self.reading_weight * reading
            figures["reading"] = float(reading.detach())
        if self.text_weight:
            text, routings = self.text_loss(batch, merged)
            balance = sequence_balance_loss(routings, batch.lengths)
            loss = loss + self.text_weight * text + self.model.config.text_config.aux_loss_alpha * balance
            figures |= {
                "text": float(text.detach()),
                "balance": float(balance.detach()),
                "busiest": busiest_share(routings),
            }
        return Learned(loss, routings, figures)

    def reading_loss(self, batch: Batch, merged: list[Tensor]) -> Tensor:
        grids = [(int(h), int(w)) for h, w in batch.image_grid_hws.tolist()]
        lines = [(m, g, t) for m, g, t in zip(merged, grids, batch.written, strict=True) if t is not None]
        if not lines:
            return torch.zeros((), device=self.model.device)
        pictures, line_grids, texts = zip(*lines, strict=True)
        loss: Tensor = self.reader.loss(pictures, line_grids, texts)
        return loss

    def text_loss(self, batch: Batch, merged: list[Tensor]) -> tuple[Tensor, list[Routing]]:
        """Mean cross entropy over the answers' tokens. Only their rows go through the head."""
        features = self.model.multi_modal_projector(torch.cat(merged)) if merged else None
        positions = torch.cat([torch.arange(n, device=self.model.device) for n in batch.lengths])
        embeds = self.model.embed(batch.input_ids, features)
        hidden = self.model.hidden(embeds, positions, batch.lengths)
        seen = batch.targets != IGNORE
        logits = self.model.language_model.lm_head(hidden.states[seen])
        return F.cross_entropy(logits.float(), batch.targets[seen]), hidden.routings
