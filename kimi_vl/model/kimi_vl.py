"""The whole model: where pictures meet text.

    pixel_values [L, 3, 14, 14] ─ vision_tower ─ multi_modal_projector ─→ features [image tokens, D]
    input_ids [T] ─ embed_tokens ─→ [T, D] ─ rows of the placeholder replaced by features, in order
                                        └─ language_model.model → hidden [T, D] ─ lm_head → logits [T, V]

Single device; imports torch and the architecture only. Source: Kimi-VL report (arXiv 2504.07491), section 2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.decoder import Context, Hidden, LanguageModel
from kimi_vl.model.moe import Routing
from kimi_vl.model.projector import KimiVLMultiModalProjector
from kimi_vl.model.vision import MoonViT


@dataclass(frozen=True)
class ModelOutput:
    logits: Tensor  # [T, V]
    routings: list[Routing]  # one per MoE layer


class KimiVLForConditionalGeneration(nn.Module):
    """A Kimi-VL. Parameter names are those of the official checkpoint."""

    def __init__(self, config: KimiVLConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = MoonViT(config.vision_config)
        self.multi_modal_projector = KimiVLMultiModalProjector(config)
        self.language_model = LanguageModel(config.text_config)

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.language_model.lm_head.weight.device

    def image_features(self, pixel_values: Tensor, image_grid_hws: Tensor) -> Tensor:
        """[L, 3, patch, patch] and [N, 2] → [image tokens, D], pictures end to end."""
        merged = self.vision_tower(pixel_values.to(self.dtype), image_grid_hws)
        features: Tensor = self.multi_modal_projector(merged)
        return features

    def placeholders(self, input_ids: Tensor) -> Tensor:
        """Where features go among ids [T]: [image tokens] int64."""
        return (input_ids == self.config.media_placeholder_token_id).nonzero().squeeze(1)

    def embed(self, input_ids: Tensor, features: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Embeds ids [T] and puts features [image tokens, D] at the placeholders, in order: [T, D].

        ``at`` are the :meth:`placeholders`, where they are known already.
        Raises: ``ValueError`` if there are not as many features as placeholders.
        """
        embeds = self.language_model.model.embed_tokens(input_ids)
        at = self.placeholders(input_ids) if at is None else at
        given = 0 if features is None else features.shape[0]
        if len(at) != given:
            raise ValueError(f"the text has {len(at)} image placeholders, the pictures give {given} features")
        if features is None:
            return embeds
        return embeds.index_copy(0, at, features.to(embeds.dtype))

    def hidden(self, embeds: Tensor, positions: Tensor, context: Context) -> Hidden:
        """Embedded tokens [T, D] → the decoder's last states; see :meth:`Decoder.forward`."""
        return self.language_model.model(embeds, positions, context)

    def forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        *,
        pixel_values: Tensor | None = None,
        image_grid_hws: Tensor | None = None,
    ) -> ModelOutput:
        """Whole sequences, packed end to end, to logits.

        Args:
            input_ids: [T] integers, sequences end to end, placeholders where picture features go.
            lengths: tokens of each sequence; they sum to T.
            pixel_values, image_grid_hws: all pictures in the order of their placeholders, or neither.
        """
        features = None
        if pixel_values is not None and image_grid_hws is not None and len(image_grid_hws):
            features = self.image_features(pixel_values, image_grid_hws)
        positions = torch.cat([torch.arange(n, device=input_ids.device) for n in lengths])
        hidden = self.hidden(self.embed(input_ids, features), positions, lengths)
        return ModelOutput(self.language_model.lm_head(hidden.states), hidden.routings)

    def init_weights(self, seed: int) -> None:
        """Draws every weight anew; see :func:`draw_weight`."""
        for name, tensor in self.state_dict().items():
            draw_weight(name, tensor, std=self.config.text_config.initializer_range, seed=seed)


@torch.no_grad()
def draw_weight(name: str, tensor: Tensor, *, std: float, seed: int) -> Tensor:
    """Fills one tensor of a new model in place: matrices N(0, std²), norms 1, biases 0.

    The numbers depend on the seed and the name alone, so a tensor is the same whatever is drawn before it.
    """
    if not name.endswith(".weight"):
        return tensor.zero_()
    if tensor.ndim == 1:
        return tensor.fill_(1.0)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return tensor.normal_(0.0, std, generator=generator)
