"""What one step learns from: a batch through the model to one loss, and the figures worth logging.

    total = cross entropy of the answers + α · balance + reading_weight · CTC of the lines
                + placing_weight · cross entropy of where each of a picture's tokens lies

In: :class:`Batch`. Out: :class:`Learned`. A stage chooses what of the model may move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_vl.model.decoder import Hidden
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import Routing
from kimi_vl.patches import ImageProcessorConfig, normalised
from kimi_vl.train.data.packing import Batch, Totals
from kimi_vl.train.learning.balance import sequence_balance_loss
from kimi_vl.train.learning.learned import Learned, Pupil
from kimi_vl.train.learning.losses import head_loss
from kimi_vl.train.learning.placing import PlacingHead
from kimi_vl.train.learning.reading import ReadingHead


class Learner(Pupil):
    """The model, and two heads: at weights above 0 its tower goes on to spell, and its tokens know where they lie."""

    def __init__(
        self,
        model: KimiVLForConditionalGeneration,
        images: ImageProcessorConfig,
        *,
        reading: float = 0.0,
        placing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.images, self.reading_weight, self.placing_weight = model, images, reading, placing
        vision = model.config.vision_config
        self.reader = ReadingHead(vision).to(model.dtype)
        self.placer = PlacingHead(model.config.text_config.hidden_size, vision.merge_kernel_size).to(model.dtype)

    def forward(self, batch: Batch, totals: Totals) -> Learned:
        """A step without a picture, line or answer that a loss could see learns nothing."""
        loss = torch.zeros((), device=self.model.device)
        figures: dict[str, Tensor] = {}
        features: Tensor | None = None
        # Before the tower, for the host has to wait for them.
        at = self.model.placeholders(batch.input_ids)
        if batch.pixels is not None:
            pixels = normalised(batch.pixels, self.images).to(self.model.dtype)
            merged = self.model.vision_tower(pixels, batch.image_grid_hws)
            features = self.model.multi_modal_projector(merged)
            if self.reading_weight and any(batch.written):
                reading = self.reader.loss(merged, batch.grids, batch.written) / totals.characters
                loss = loss + self.reading_weight * reading
                figures["reading"] = reading.detach()
            if self.placing_weight and batch.grids:
                placing = self.placer.loss(features, batch.grids) * merged.shape[1] / totals.patches
                loss = loss + self.placing_weight * placing
                figures["placing"] = placing.detach()
        routings: list[Routing] = []
        # Of several processes all go on, or none: what one of them has to learn does not decide it.
        if totals.weight:
            hidden = self.decode(batch, features, at)
            text = self.text_loss(batch, hidden.states) / totals.weight
            balance = sequence_balance_loss(hidden.routings, batch.lengths) / totals.samples
            loss = loss + text + self.model.config.text_config.aux_loss_alpha * balance
            figures |= {"text": text.detach(), "balance": balance.detach()}
            routings = hidden.routings
        return Learned(loss, routings, figures)

    def decode(self, batch: Batch, features: Tensor | None, at: Tensor | None = None) -> Hidden:
        """The pictures' features [image tokens, D] among the tokens, ``at`` their places, through the decoder."""
        embeds = self.model.embed(batch.input_ids, features, at)
        return self.model.hidden(embeds, batch.positions, batch.lengths)

    def text_loss(self, batch: Batch, states: Tensor) -> Tensor:
        """Weighted cross entropy of the targets that are seen. Only their rows go through the head."""
        head, seen = self.model.language_model.lm_head, batch.seen
        return head_loss(head, states.index_select(0, seen), batch.targets.index_select(0, seen), batch.weights)
