"""Teaching tower and projector to name, in the decoder's own words.

    image features [tokens, D] ─ mean ─→ picture [D]        names [names, D]: mean of their tokens' rows of lm_head
                                            └── cosine · e^scale ──→ softmax over all names

A contrastive image-text loss whose texts are short and known beforehand, so that every picture meets all of them and
not only its batch's. Since names are written in the head's rows, what the projector gives already votes for the right
tokens, and the decoder only has to pass it on. Source: after CLIP (arXiv 2103.00020), section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NamingHead(nn.Module):
    """``names`` maps each name to its token ids."""

    def __init__(self, names: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.place = {name: i for i, name in enumerate(names)}
        self.scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        lengths = torch.tensor([len(ids) for ids in names.values()])
        self.tokens = torch.tensor([i for ids in names.values() for i in ids])
        self.offsets = lengths.cumsum(0) - lengths

    def logits(self, features: Sequence[Tensor], lm_head: Tensor) -> Tensor:
        """Features [tokens, D] of each picture and the head's rows [V, D] → [pictures, names] float32."""
        pictures = F.normalize(torch.stack([picture.mean(0) for picture in features]).float(), dim=-1)
        texts = F.embedding_bag(self.tokens, lm_head.float(), self.offsets, mode="mean")
        return self.scale.float().exp() * pictures @ F.normalize(texts, dim=-1).T

    def loss(self, features: Sequence[Tensor], lm_head: Tensor, names: Sequence[str]) -> Tensor:
        """Cross entropy of each picture's name among all names: scalar float32."""
        wanted = torch.tensor([self.place[name] for name in names])
        return F.cross_entropy(self.logits(features, lm_head), wanted)
