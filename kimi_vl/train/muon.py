"""Muon: momentum whose every matrix is made orthogonal before it moves the weights.

In: matrices with gradients. Out: the same matrices moved by one step. Experts that lie in one tensor each are
matrices of their own, and so are those that lie in one fused matrix, row by row or block by block. Several processes
share the work.
Source: Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kimi_vl.precision import fast_dtype
from kimi_vl.train import parallel

# The quintic whose five rounds take singular values in (0, 1] near to 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """W ← W − lr · (0.2 · √max(rows, columns) · O + λ · W), O the orthogonal part of Nesterov's momentum.

    The factor gives the update the usual size of AdamW's, so that both take the same rate. A group of parameters may
    say what is fused in each: ``rows`` are how many rows of each part follow each other, over and over until the
    matrix ends; (64, 64, 64) are queries, keys and values, (32, 16) the keys and values of one head after the other.
    Raises ``ValueError`` for what is no such matrix.
    """

    def __init__(self, params: Iterable[Any], *, weight_decay: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum, "rows": ()})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2 or (group["rows"] and len(parameter) % sum(group["rows"])):
                    fused = f" of parts of {group['rows']} rows" if group["rows"] else ""
                    raise ValueError(f"{tuple(parameter.shape)} is not one matrix{fused}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; a parameter without a gradient stays."""
        matrices: list[Tensor] = []
        directions: list[Tensor] = []
        keeps: list[float] = []
        rates: list[float] = []
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if not moving:
                continue
            grads = [p.grad for p in moving]
            for parameter in moving:
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in moving]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            ahead = torch._foreach_add(grads, buffers, alpha=group["momentum"])
            directions += [part.flatten(0, 1) for matrix in ahead for part in _parts(matrix, group["rows"])]
            parts = [part for matrix in moving for part in _parts(matrix, group["rows"])]
            matrices += parts
            keeps += [1 - group["lr"] * group["weight_decay"]] * len(parts)
            rates += [-group["lr"] * 0.2 * math.sqrt(max(part.flatten(0, 1).shape)) for part in parts]
        if matrices:
            updates = [o.view_as(part) for o, part in zip(_shared_out(directions), matrices, strict=True)]
            torch._foreach_mul_(matrices, keeps)
            torch._foreach_add_(matrices, torch._foreach_mul(updates, rates))


def _parts(matrix: Tensor, rows: Sequence[int]) -> Sequence[Tensor]:
    """What is fused in a matrix, as views [blocks, rows of a block, columns]."""
    if not rows:
        return [matrix.unsqueeze(0)]
    return matrix.unflatten(0, (-1, sum(rows))).split(list(rows), dim=1)


def _shared_out(matrices: Sequence[Tensor]) -> list[Tensor]:
    """All of them made orthogonal, each by one of the processes: float32."""
    loads = [0] * parallel.world_size()
    mine: dict[torch.Size, list[int]] = {}
    costliest_first = sorted(range(len(matrices)), key=lambda i: (-_cost(matrices[i]), i))
    for i in costliest_first:
        owner = loads.index(min(loads))
        loads[owner] += _cost(matrices[i])
        if owner == parallel.rank():
            mine.setdefault(matrices[i].shape, []).append(i)
    made: dict[int, Tensor] = {}
    for places in mine.values():
        orthogonal = newton_schulz(torch.stack([matrices[i] for i in places])).to(matrices[0].dtype)
        made |= dict(zip(places, orthogonal.unbind(), strict=True))
    if parallel.world_size() == 1:
        return [made[i] for i in range(len(matrices))]
    flat = [made[i].flatten() if i in made else matrix.new_zeros(matrix.numel()) for i, matrix in enumerate(matrices)]
    pieces = parallel.total(torch.cat(flat)).split([matrix.numel() for matrix in matrices])
    return [piece.view_as(matrix) for piece, matrix in zip(pieces, matrices, strict=True)]


def _cost(matrix: Tensor) -> int:
    """Multiplications of one round: two products on the short side, one between squares."""
    short, long = sorted(matrix.shape)
    return short * short * (2 * long + short)


def newton_schulz(matrices: Tensor) -> Tensor:
    """[matrices, rows, columns] → the same with singular values near 1, by five rounds of a quintic."""
    x = matrices.to(fast_dtype(matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x
