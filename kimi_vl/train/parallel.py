"""Data parallel over processes, applied from outside the model: each takes a share of every batch.

On CPU, processes of one thread each beat one process of as many threads, since small matrices leave threads waiting
for each other. Start with ``torchrun --nproc-per-node N -m …``; without it every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

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
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process the mean of all processes' gradients, in one message of float32.

    A process whose share of the batch did not touch a parameter counts as zero there.
    """
    if world_size() == 1:
        return
    touched = list(parameters)
    flat = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().float() for p in touched])
    dist.all_reduce(flat)
    flat /= world_size()
    for p, mean in zip(touched, flat.split([p.numel() for p in touched]), strict=True):
        p.grad = mean.view_as(p).to(p.dtype)


def total(counts: Tensor) -> Tensor:
    """The sum of ``counts`` over all processes."""
    if world_size() == 1:
        return counts
    counts = counts.clone()
    dist.all_reduce(counts)
    return counts
