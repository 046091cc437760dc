"""Muon: momentum whose every matrix is made orthogonal before it moves the weights.

In: matrices with gradients. Out: the same matrices moved by one step. Experts that lie in one tensor each are
matrices of their own, and so are those that lie in one fused matrix, row by row or block by block.
Source: Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kimi_vl.precision import fast_dtype

# The quintic whose five rounds take singular values in (0, 1] near to 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5

# How many rows of each part follow each other, over and over until the matrix ends; () if nothing is fused in it.
Rows = tuple[int, ...]


def check_matrix(shape: Sequence[int], rows: Rows) -> None:
    """Raises ``ValueError`` for what is no matrix of these parts."""
    if len(shape) != 2 or (rows and shape[0] % sum(rows)):
        fused = f" of parts of {rows} rows" if rows else ""
        raise ValueError(f"{tuple(shape)} is not one matrix{fused}")


def updates_of(directions: Sequence[Tensor], rows: Sequence[Rows]) -> list[Tensor]:
    """Whole matrices, and what is fused in each → 0.2 · √max(rows, columns) · O of every part, in its place."""
    updates = [torch.empty_like(direction) for direction in directions]
    alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    for direction, update, fused in zip(directions, updates, rows, strict=True):
        for given, wanted in zip(_parts(direction, fused), _parts(update, fused), strict=True):
            alike.setdefault(given.flatten(0, 1).shape, []).append((given.flatten(0, 1), wanted))
    for shape, pairs in alike.items():
        orthogonal = newton_schulz(torch.stack([given for given, _ in pairs])) * (0.2 * math.sqrt(max(shape)))
        places = [place for _, place in pairs]
        made = [one.view_as(place) for one, place in zip(orthogonal.unbind(), places, strict=True)]
        torch._foreach_copy_(places, made)
    return updates


# From the parameters, their directions and what is fused in each to their updates.
Orthogonal = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Rows]], list[Tensor]]


def _alone(_: Sequence[Tensor], directions: Sequence[Tensor], rows: Sequence[Rows]) -> list[Tensor]:
    return updates_of(directions, rows)


class Muon(torch.optim.Optimizer):
    """W ← W − lr · (0.2 · √max(rows, columns) · O + λ · W), O the orthogonal part of Nesterov's momentum.

    The factor gives the update the usual size of AdamW's, so that both take the same rate. A group of parameters may
    say what is fused in each: (64, 64, 64) ``rows`` are queries, keys and values, (32, 16) the keys and values of one
    head after the other. All groups take one rate. ``orthogonal`` does the work of :func:`updates_of` where no process
    has a whole matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        orthogonal: Orthogonal = _alone,
    ) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum, "rows": ()})
        self.orthogonal = orthogonal
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; a parameter without a gradient stays."""
        moving: list[Tensor] = []
        directions: list[Tensor] = []
        rows: list[Rows] = []
        for group in self.param_groups:
            learned = [p for p in group["params"] if p.grad is not None]
            if not learned:
                continue
            grads = [p.grad for p in learned]
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in learned]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            directions += torch._foreach_add(grads, buffers, alpha=group["momentum"])
            moving += learned
            rows += [group["rows"]] * len(learned)
            torch._foreach_mul_(learned, 1 - group["lr"] * group["weight_decay"])
        if moving:
            torch._foreach_add_(moving, self.orthogonal(moving, directions, rows), alpha=-self.param_groups[0]["lr"])


def _parts(matrix: Tensor, rows: Rows) -> Sequence[Tensor]:
    """What is fused in a matrix, as views [blocks, rows of a block, columns]."""
    if not rows:
        return [matrix.unsqueeze(0)]
    return matrix.unflatten(0, (-1, sum(rows))).split(list(rows), dim=1)


def newton_schulz(matrices: Tensor) -> Tensor:
    """[matrices, rows, columns] → the same with singular values near 1, by five rounds of a quintic: float32."""
    x = matrices.to(fast_dtype(matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).float()
