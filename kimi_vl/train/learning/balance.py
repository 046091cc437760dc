"""Keeping the experts evenly busy: a sequence-wise loss, and the correction bias moved outside the gradient.

In: the :class:`Routing` of each MoE layer. Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import MoE, Routing
from kimi_vl.model.segments import sent, within


def sequence_balance_loss(routings: Sequence[Routing], lengths: Sequence[int]) -> Tensor:
    """Sum over sequences, mean over layers, of sum_e f_e · P_e: 1 for each whose experts are all used alike.

    f_e is the share of a sequence's places that expert e got, times E; P_e its mean normalised score. The
    sequences lie end to end, ``lengths`` tokens each.
    """
    tokens = sum(lengths)
    device = routings[0].scores.device
    counts = sent(list(lengths), device)
    of_sequence, _ = within(lengths, device)

    def mean(x: Tensor) -> Tensor:
        """[T, E] → [sequences, E]."""
        return x.new_zeros(len(lengths), x.shape[1]).index_add(0, of_sequence, x) / counts[:, None]

    losses = []
    for routing in routings:
        experts = routing.scores.shape[1]
        chosen = F.one_hot(routing.topk_idx, experts).sum(1).float()  # [T, E]
        share = mean(chosen) * experts / routing.topk_idx.shape[1]
        probability = mean(routing.scores / (routing.scores.sum(-1, keepdim=True) + 1e-20))
        losses.append((share * probability).sum())
    assert routings[0].scores.shape[0] == tokens
    return torch.stack(losses).mean()


def loads_of(routings: Sequence[Routing]) -> Tensor:
    """How many places each expert got: [layers, E] int64."""
    return torch.stack([routing.load for routing in routings])


@torch.no_grad()
def update_correction_bias(model: KimiVLForConditionalGeneration, loads: Tensor, rate: float) -> None:
    """Moves each layer's bias by ``rate`` towards the experts that got less than their share of loads [layers, E].

    A router that is held still keeps its bias too.
    """
    for moe, load in zip(moe_layers(model), loads.float(), strict=True):
        if not moe.gate.weight.requires_grad:
            continue
        moe.gate.e_score_correction_bias += rate * torch.sign(load.mean() - load)


def moe_layers(model: KimiVLForConditionalGeneration) -> list[MoE]:
    layers = (layer.mlp for layer in model.language_model.model.layers)
    return [mlp for mlp in layers if isinstance(mlp, MoE)]


def busiest_share(loads: Tensor) -> Tensor:
    """The largest load of any expert over the mean of its layer, worst layer of [layers, E]: 1 when even."""
    return (loads.max(1).values / loads.float().mean(1)).max()


def idlest_share(loads: Tensor) -> Tensor:
    """The smallest load over the mean, worst layer: 0 where an expert is dead."""
    return (loads.min(1).values / loads.float().mean(1)).min()
