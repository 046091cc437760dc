"""Teaching the tower to name: one pooled vector of a picture against the vectors of all names.

    merged patches [h*w/4, 4, D] ─ mean ─ linear ─→ picture [W]          names, as bags of token vectors [names, W]
                                                 └── cosine · e^scale ──→ softmax over all names

A contrastive image-text loss whose texts are short and known beforehand, so that every picture meets all of them and
not only its batch's. The head is thrown away after training. Source: after CLIP (arXiv 2103.00020), section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import MoonViTConfig

WIDTH = 256


class NamingHead(nn.Module):
    """``names`` maps each name to its token ids, all below ``vocab_size``."""

    def __init__(self, config: MoonViTConfig, names: dict[str, list[int]], vocab_size: int) -> None:
        super().__init__()
        self.place = {name: i for i, name in enumerate(names)}
        self.proj = nn.Linear(config.hidden_size, WIDTH)
        self.words = nn.EmbeddingBag(vocab_size, WIDTH, mode="mean")
        self.scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        nn.init.normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)
        nn.init.normal_(self.words.weight, std=0.02)
        lengths = torch.tensor([len(ids) for ids in names.values()])
        self.tokens = torch.tensor([i for ids in names.values() for i in ids])
        self.offsets = lengths.cumsum(0) - lengths

    def loss(self, merged: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        """Cross entropy of each picture's name among all names: scalar float32."""
        pooled = torch.stack([picture.mean((0, 1)) for picture in merged])
        pictures = F.normalize(self.proj(pooled).float(), dim=-1)  # [N, W]
        texts = F.normalize(self.words(self.tokens, self.offsets).float(), dim=-1)  # [names, W]
        logits = self.scale.float().exp() * pictures @ texts.T
        return F.cross_entropy(logits, torch.tensor([self.place[name] for name in names]))
