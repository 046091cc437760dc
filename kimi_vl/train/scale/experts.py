"""Expert parallelism: every process of a group has some of a layer's experts, and tokens travel to theirs.

    places, expert by expert ─ all to all ─→ places of the experts here, process by process
                                                └ sorted by expert → experts → sorted back
    places, expert by expert ←─ all to all ──────┘

Put into a model from outside. The experts that are elsewhere leave nothing but their number in the list, so that names
stay. Source: DeepSeek-V3 (arXiv 2412.19437), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kimi_vl.model.moe import Experts, MoE
from kimi_vl.train.parallel import exchanged


class Elsewhere(nn.Module):
    """An expert that another process has."""


def spread_experts(moe: MoE, group: dist.ProcessGroup) -> None:
    """Keeps this process's share of the experts, which must be as many for each."""
    each = len(moe.experts) // dist.get_world_size(group)
    first = dist.get_rank(group) * each
    for i in range(len(moe.experts)):
        if not first <= i < first + each:
            moe.experts[i] = Elsewhere()
    moe.experts.forward = partial(_across, moe.experts, group, first, each)  # type: ignore[method-assign]


def _across(
    experts: Experts, group: dist.ProcessGroup, first: int, each: int, x: Tensor, loads: Sequence[int]
) -> Tensor:
    """Places [P, D] that lie expert by expert → [P, D]; experts ``first`` and following, ``each``, are here."""
    processes = dist.get_world_size(group)
    given = torch.tensor(list(loads), device=x.device)
    taken = torch.empty_like(given)
    dist.all_to_all_single(taken, given, group=group)
    out_sizes = [sum(loads[i * each : (i + 1) * each]) for i in range(processes)]
    of_sender = taken.view(processes, each)
    in_sizes = of_sender.sum(1).tolist()
    arrived = exchanged(x, out_sizes, in_sizes, group)
    # By sender and expert they lie; by expert they are wanted.
    numbers = torch.arange(each, device=x.device).repeat(processes).repeat_interleave(taken)
    by_expert = numbers.argsort(stable=True)
    parts = arrived.index_select(0, by_expert).split(of_sender.sum(0).tolist())
    here = [experts[first + i](part) for i, part in enumerate(parts)]
    made = torch.cat(here).index_select(0, by_expert.argsort())
    return exchanged(made, in_sizes, out_sizes, group)
