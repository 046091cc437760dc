"""The losses as pure functions: features, scores and targets in, one scalar float32 out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def token_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the cross entropies of ``logits`` [n, V] against ``targets`` [n], weights [n] float32."""
    return (weights * F.cross_entropy(logits.float(), targets, reduction="none")).sum()


def siglip_loss(pictures: Tensor, texts: Tensor, same: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Every picture beside every text, each pair a yes or no of its own: the sum over all pairs.

    Args:
        pictures: [N, D], of length 1.
        texts: [M, D], of length 1.
        same: [N, M] bool, whether picture i is described by text j. Two pictures of one caption are no mistake.
        log_scale, bias: scalars to be learned.

    Source: Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343), algorithm 1.
    """
    logits = log_scale.float().exp() * pictures.float() @ texts.float().T + bias.float()
    signs = torch.where(same, 1.0, -1.0)
    return -F.logsigmoid(signs * logits).sum()
