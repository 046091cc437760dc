"""What one step learns from: a batch through the model to one loss, and the figures worth logging.

    total = text_weight · cross entropy of the answers + α · balance
          + reading_weight · CTC of the lines + naming_weight · cross entropy of the names

In: :class:`Batch`. Out: :class:`Learned`. A stage chooses the weights and which parts may move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import Routing
from kimi_vl.train.balance import busiest_share, sequence_balance_loss
from kimi_vl.train.naming import NamingHead
from kimi_vl.train.packing import IGNORE, Batch
from kimi_vl.train.reading import ReadingHead


@dataclass(frozen=True)
class Learned:
    loss: Tensor  # scalar float32, to be minimised
    routings: list[Routing]
    figures: dict[str, float]  # name → value, for the log


class Learner(nn.Module):
    """The model with the heads that only training needs.

    A ``text_weight`` of 0 leaves the decoder out, but for its head's rows, in which pictures are named. ``names``
    (name → token ids) are what a picture can be named among. A batch without a picture, line or answer that a loss
    could see adds nothing to it.
    """

    def __init__(
        self,
        model: KimiVLForConditionalGeneration,
        names: Mapping[str, Sequence[int]],
        *,
        text_weight: float,
        reading_weight: float,
        naming_weight: float,
    ) -> None:
        super().__init__()
        self.model = model
        self.reader = ReadingHead(model.config.vision_config).to(model.dtype)
        self.namer = NamingHead(names)
        self.text_weight, self.reading_weight, self.naming_weight = text_weight, reading_weight, naming_weight

    def forward(self, batch: Batch) -> Learned:
        merged: list[Tensor] = []
        if batch.pixel_values is not None:
            merged = self.model.vision_tower(batch.pixel_values.to(self.model.dtype), batch.image_grid_hws)
        loss = torch.zeros((), device=self.model.device)
        figures: dict[str, float] = {}
        routings: list[Routing] = []
        lines = [i for i, text in enumerate(batch.written) if text is not None]
        if self.reading_weight and lines:
            grids = [(int(h), int(w)) for h, w in batch.image_grid_hws[lines].tolist()]
            texts = [text for text in batch.written if text is not None]
            reading = self.reader.loss([merged[i] for i in lines], grids, texts)
            loss = loss + self.reading_weight * reading
            figures["reading"] = float(reading.detach())
        features: Tensor | None = None
        if merged and (self.naming_weight or self.text_weight):
            features = self.model.multi_modal_projector(torch.cat(merged))
        things = [i for i, name in enumerate(batch.named) if name is not None]
        if self.naming_weight and things:
            assert features is not None
            of_picture = features.split([len(picture) for picture in merged])
            names = [name for name in batch.named if name is not None]
            lm_head = self.model.language_model.lm_head.weight
            naming = self.namer.loss([of_picture[i] for i in things], lm_head, names)
            loss = loss + self.naming_weight * naming
            figures["naming"] = float(naming.detach())
        if self.text_weight and bool((batch.targets != IGNORE).any()):
            text, routings = self.text_loss(batch, features)
            balance = sequence_balance_loss(routings, batch.lengths)
            loss = loss + self.text_weight * text + self.model.config.text_config.aux_loss_alpha * balance
            figures |= {"text": float(text.detach()), "balance": float(balance.detach())}
            figures["busiest"] = busiest_share(routings)
        return Learned(loss, routings, figures)

    def text_loss(self, batch: Batch, features: Tensor | None) -> tuple[Tensor, list[Routing]]:
        """Mean cross entropy over the answers' tokens. Only their rows go through the head.

        Each answer weighs the same, whatever its length: else a line's twenty tokens drown a thing's two.
        """
        positions = torch.cat([torch.arange(n, device=self.model.device) for n in batch.lengths])
        embeds = self.model.embed(batch.input_ids, features)
        hidden = self.model.hidden(embeds, positions, batch.lengths)
        seen = batch.targets != IGNORE
        logits = self.model.language_model.lm_head(hidden.states[seen])
        counts = torch.stack([part.sum() for part in seen.split(batch.lengths)])
        weights = counts.clamp(min=1).reciprocal().repeat_interleave(counts)
        losses = F.cross_entropy(logits.float(), batch.targets[seen], reduction="none")
        return (weights * losses).sum() / weights.sum(), hidden.routings
