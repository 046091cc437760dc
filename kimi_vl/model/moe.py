"""The feed-forward half of a decoder layer: SwiGLU, and the sparse mixture of SwiGLU experts.

    x [T, D] ─ gate ──→ sigmoid scores → top-k by score + correction bias → weights from the scores alone
             ├ experts ─→ each token's k experts, weighted
             └ shared_experts → every token
                 sum → [T, D]

T tokens, D width, E routed experts, k experts a token. The forward changes nothing: what balancing needs comes out
as a :class:`Routing`. Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import TextConfig


@dataclass(frozen=True)
class Routing:
    """One MoE layer's choice for T tokens, still in the autograd graph."""

    scores: Tensor  # [T, E] float32, sigmoid, without the bias
    topk_idx: Tensor  # [T, k] int64
    topk_weight: Tensor  # [T, k] float32

    @property
    def load(self) -> Tensor:
        """How many of the T·k places each expert got: [E] int64."""
        chosen = self.topk_idx.flatten()
        return chosen.new_zeros(self.scores.shape[1]).scatter_add(0, chosen, torch.ones_like(chosen))


def route(logits: Tensor, bias: Tensor, config: TextConfig) -> Routing:
    """Chooses experts from router logits [T, E] float32 and the correction bias [E].

    The bias decides who is chosen but not how much they count. With groups, only the ``topk_group`` groups with
    the largest sum of their two best choices stay.
    """
    scores = logits.sigmoid()
    choice = scores.detach() + bias.float()
    if config.n_group > 1:
        grouped = choice.unflatten(1, (config.n_group, -1))  # [T, groups, E / groups]
        best_two = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
        kept = best_two.topk(config.topk_group, dim=-1, sorted=False).indices
        dropped = torch.ones_like(best_two, dtype=torch.bool).scatter(1, kept, False)
        choice = grouped.masked_fill(dropped.unsqueeze(-1), float("-inf")).flatten(1)
    topk_idx = choice.topk(config.num_experts_per_tok, dim=-1, sorted=False).indices
    weight = scores.gather(1, topk_idx)
    if config.norm_topk_prob:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
    return Routing(scores, topk_idx, weight * config.routed_scaling_factor)


class SwiGLU(nn.Module):
    def __init__(self, dim: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, intermediate_size, bias=False)
        self.up_proj = nn.Linear(dim, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        # Moved by the trainer from the load of past steps, never by a gradient.
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))
        self.e_score_correction_bias: Tensor

    def forward(self, x: Tensor) -> Routing:
        return route(F.linear(x.float(), self.weight.float()), self.e_score_correction_bias, self.config)


class Experts(nn.ModuleList):
    """All routed experts of a layer. Each sees its places in one matrix product."""

    def forward(self, x: Tensor, loads: Sequence[int]) -> Tensor:
        """Places [P, D] that lie expert by expert, ``loads`` of each → [P, D]."""
        parts = x.split(list(loads))
        outs = [expert(part) for expert, part in zip(self, parts, strict=True) if len(part)]
        return torch.cat(outs) if outs else x


class MoE(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        dim, inner = config.hidden_size, config.moe_intermediate_size
        self.gate = Router(config)
        self.experts = Experts(SwiGLU(dim, inner) for _ in range(config.n_routed_experts))
        self.shared_experts = SwiGLU(dim, inner * config.n_shared_experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """[T, D] → [T, D] and who was chosen."""
        routing = self.gate(x)
        return self.routed(x, routing) + self.shared_experts(x), routing

    def routed(self, x: Tensor, routing: Routing) -> Tensor:
        """Places are sorted by expert, then put back."""
        k = routing.topk_idx.shape[1]
        order = routing.topk_idx.flatten().argsort(stable=True)  # places [T * k], expert by expert
        outs = self.experts(x.index_select(0, order // k), routing.load.tolist())
        places = outs.index_select(0, order.argsort()).unflatten(0, (len(x), k))  # [T, k, D]
        return (places.float() * routing.topk_weight.unsqueeze(-1)).sum(1).to(x.dtype)
