"""The projector: merged patches of MoonViT → the decoder's width.

In: [tokens, 4, D_vision]. Out: [tokens, D_text]. Knows nothing of pictures or text.
Source: Kimi-VL report (arXiv 2504.07491), section 2.1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import KimiVLConfig


class KimiVLMultiModalProjector(nn.Module):
    def __init__(self, config: KimiVLConfig) -> None:
        super().__init__()
        vision, merged = config.vision_config, config.vision_config.merged_size
        self.pre_norm = nn.LayerNorm(vision.hidden_size)
        self.linear_1 = nn.Linear(merged, merged)
        self.linear_2 = nn.Linear(merged, config.text_config.hidden_size)

    def forward(self, merged: Tensor) -> Tensor:
        """[tokens, kh*kw, D_vision] → [tokens, D_text]. The norm sees each patch before they are joined."""
        x = self.pre_norm(merged).flatten(1)
        return self.linear_2(F.gelu(self.linear_1(x)))
