"""Muon where every process has some rows of a matrix: all send theirs to one owner, who makes it orthogonal.

    rows of some matrices ─ all to all ─→ whole matrices, each with one process
    rows of their updates ←─ all to all ─ whole updates      and so on, until all are done

In: directions as they lie here. Out: updates as they lie here, the same that one process would find. The matrices are
shared out so that all processes have about as much to multiply. Source: Muon is Scalable for LLM Training (arXiv
2502.16982), section 2.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from kimi_vl.precision import fast_dtype
from kimi_vl.train.optim.muon import Rows, updates_of
from kimi_vl.train.parallel import exchanged, rows_of

# Numbers that a process has of the matrices that go together: it needs 20 bytes for each while they do.
AT_A_TIME = 2**27


class Owners:
    """``sharded`` says of which whole each part is, by the part's ``id``."""

    def __init__(self, sharded: Mapping[int, Tensor]) -> None:
        self.sharded = {key: whole for key, whole in sharded.items() if isinstance(whole, DTensor)}

    def __call__(self, masters: Sequence[Tensor], directions: Sequence[Tensor], rows: Sequence[Rows]) -> list[Tensor]:
        updates = [directions[0]] * len(directions)
        of_mesh: dict[DeviceMesh, list[int]] = {}
        for i, master in enumerate(masters):
            of_mesh.setdefault(self.sharded[id(master)].device_mesh, []).append(i)
        for mesh, places in _in_portions(of_mesh, [self.sharded[id(master)] for master in masters]):
            shapes = [self.sharded[id(masters[i])].shape for i in places]
            made = _exchanged(mesh, shapes, [directions[i] for i in places], [rows[i] for i in places])
            for i, update in zip(places, made, strict=True):
                updates[i] = update
        return updates


def _in_portions(
    of_mesh: Mapping[DeviceMesh, Sequence[int]], sharded: Sequence[Tensor]
) -> Iterator[tuple[DeviceMesh, list[int]]]:
    """The same matrices together in every process, whatever it has of them."""
    for mesh, places in of_mesh.items():
        some: list[int] = []
        size = 0
        for i in places:
            numbers = sharded[i].numel()
            if some and size + numbers > AT_A_TIME * mesh.size():
                yield mesh, some
                some, size = [], 0
            some.append(i)
            size += numbers
        yield mesh, some


def _exchanged(
    mesh: DeviceMesh, shapes: Sequence[torch.Size], directions: Sequence[Tensor], rows: Sequence[Rows]
) -> list[Tensor]:
    """The updates of some matrices that are all cut over one mesh."""
    processes, here = mesh.size(), mesh.get_local_rank()
    owner_of = owners(shapes, processes)
    owned = [[i for i, owner in enumerate(owner_of) if owner == process] for process in range(processes)]
    of_process = [[len(rows_of(shape[0], processes)[p]) * shape[1] for shape in shapes] for p in range(processes)]
    # What the rounds begin with is rounded to this in any case.
    dtype = fast_dtype(directions[0].device)
    given = [directions[i].flatten().to(dtype) for of_one in owned for i in of_one]
    out_sizes = [sum(of_process[here][i] for i in of_one) for of_one in owned]
    in_sizes = [sum(of_process[process][i] for i in owned[here]) for process in range(processes)]
    arrived = exchanged(torch.cat(given), out_sizes, in_sizes, mesh.get_group())
    pieces = [
        part.split([of_process[process][i] for i in owned[here]])
        for process, part in enumerate(arrived.split(in_sizes))
    ]
    wholes = [torch.cat([part[k] for part in pieces]).view(shapes[i]).float() for k, i in enumerate(owned[here])]
    made = updates_of(wholes, [rows[i] for i in owned[here]])
    back = [
        made[k].flatten().split([of_process[process][i] for process in range(processes)])
        for k, i in enumerate(owned[here])
    ]
    returned = [back[k][process] for process in range(processes) for k in range(len(made))]
    flat = torch.cat(returned) if returned else directions[0].new_zeros(0)
    mine = exchanged(flat, in_sizes, out_sizes, mesh.get_group())
    in_order = [i for of_one in owned for i in of_one]
    updates = dict(zip(in_order, mine.split([of_process[here][i] for i in in_order]), strict=True))
    return [updates[i].view_as(direction) for i, direction in enumerate(directions)]


def owners(shapes: Sequence[torch.Size], processes: int) -> list[int]:
    """Who makes each orthogonal: the costliest go first, each to who has least to do."""
    loads = [0] * processes
    owner_of = [0] * len(shapes)
    for i in sorted(range(len(shapes)), key=lambda i: (-_cost(shapes[i]), i)):
        owner_of[i] = loads.index(min(loads))
        loads[owner_of[i]] += _cost(shapes[i])
    return owner_of


def _cost(shape: torch.Size) -> int:
    """Multiplications of one round: two products on the short side, one between squares."""
    short, long = sorted(shape)
    return short * short * (2 * long + short)
