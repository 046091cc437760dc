"""The losses as pure functions: features, scores and targets in, one scalar float32 out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Logits at a time. One number of them takes 12 bytes at the worst: itself in float32, its logarithm and its gradient.
MOST_LOGITS = 2**29
# With more, so many are made at a time, and once more in the backward pass.
LOGITS_OF_A_PIECE = 2**28


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Of ``targets`` [n] under ``logits`` [n, V]: [n] float32."""
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def head_logprobs(head: nn.Linear, states: Tensor, targets: Tensor) -> Tensor:
    """:func:`token_logprobs` of what ``head`` makes of ``states`` [n, D], in bounded memory however many there are."""
    if len(states) * head.out_features <= MOST_LOGITS:
        return token_logprobs(head(states), targets)
    rows = max(1, LOGITS_OF_A_PIECE // head.out_features)
    pieces = zip(states.split(rows), targets.split(rows), strict=True)
    return torch.cat([_recomputed(head, *piece) for piece in pieces])


def head_loss(head: nn.Linear, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the cross entropies against ``targets`` [n], weights [n] float32; see :func:`head_logprobs`."""
    return -(weights * head_logprobs(head, states, targets)).sum()


def _recomputed(head: nn.Linear, states: Tensor, targets: Tensor) -> Tensor:
    def logprobs(states: Tensor) -> Tensor:
        return token_logprobs(head(states), targets)

    made: Tensor = checkpoint(logprobs, states, use_reentrant=False, preserve_rng_state=False)
    return made


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
