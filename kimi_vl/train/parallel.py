"""Data parallel over processes, applied from outside the model: each takes a share of every batch.

On CPU, processes of one thread each beat one process of as many threads, since small matrices leave threads waiting
for each other. Start with ``torchrun --nproc-per-node N -m …``; without it every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join() -> None:
    """Enters the group of processes that torchrun started, if it did."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def begin_alike(model: nn.Module) -> None:
    """Gives every process the first one's weights and buffers, so that averaged steps keep them equal."""
    if world_size() == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        shared = tensor.float()
        dist.broadcast(shared, 0)
        tensor.copy_(shared)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process the sum of all processes' gradients, in one message of float32.

    A process whose share of the batch did not touch a parameter counts as zero there (H3); what nobody touched stays
    without a gradient.
    """
    if world_size() == 1:
        return
    every = list(parameters)
    grads = [torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float() for p in every]
    touched = torch.tensor([float(p.grad is not None) for p in every], device=grads[0].device)
    together = total(torch.cat([touched, *(grad.flatten() for grad in grads)]))
    anyone, *sums = together.split([len(every), *(p.numel() for p in every)])
    for p, touches, grad in zip(every, anyone.tolist(), sums, strict=True):
        p.grad = grad.view_as(p).to(p.dtype) if touches else None


def total(counts: Tensor) -> Tensor:
    """The sum of ``counts`` over all processes."""
    if world_size() == 1:
        return counts
    counts = counts.clone()
    dist.all_reduce(counts)
    return counts


def total_by_name(figures: Mapping[str, float]) -> dict[str, float]:
    """The sums of figures over all processes, some of which may not have all of them."""
    everyones: list[Mapping[str, float]] = [figures]
    if world_size() > 1:
        everyones = [{} for _ in range(world_size())]
        dist.all_gather_object(everyones, figures)
    sums: dict[str, float] = {}
    for ones in everyones:
        for name, value in ones.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        parts = [torch.empty_like(mine) for _ in range(world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return total(grads[0]).chunk(world_size())[rank()]


def gathered(mine: Tensor) -> Tensor:
    """[N, …] of every process, end to end, in the order of ranks. Gradients find their way back; shapes must agree."""
    return mine if world_size() == 1 else _Gathered.apply(mine)
