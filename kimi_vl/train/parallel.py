"""What the processes of a run tell each other. A process that is alone has nobody to tell, and nothing here is done.

Every process holds a part of every weight (:mod:`kimi_vl.train.scale`), so that sums over all of them are sums over
the whole model. Start several with ``torchrun --nproc-per-node N -m kimi_vl.cli train run RECIPE``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_T = TypeVar("_T")


def join() -> torch.device:
    """Enters the group of processes that torchrun started, if it did. Returns where this one computes."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def leave() -> None:
    """Leaves the group that :func:`join` entered, once all have come so far.

    A process that ends while the group's threads still run may be aborted by them, its work done or not.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


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


def of_all(mine: Sequence[_T]) -> list[_T]:
    """What every process has, in the order of ranks."""
    together: list[Sequence[_T]] = [mine]
    if world_size() > 1:
        together = [[] for _ in range(world_size())]
        dist.all_gather_object(together, mine)
    return [one for some in together for one in some]


def wait() -> None:
    """Until all processes have come so far."""
    if world_size() > 1:
        dist.barrier()


def everyones(names: Iterable[str]) -> frozenset[str]:
    """The names that any process has."""
    return frozenset(of_all(list(names)))


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, sizes: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        # The longest decides how much is sent: all must send alike.
        padded = mine.new_zeros(max(sizes), *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        everyones = grads[0].contiguous()
        dist.all_reduce(everyones, group=ctx.group)
        return everyones.split(list(ctx.sizes))[dist.get_rank(ctx.group)], None, None


def gathered(mine: Tensor, sizes: Sequence[int] | None = None, group: dist.ProcessGroup | None = None) -> Tensor:
    """[N, …] of every process of ``group`` (all, if not given), end to end, in the order of ranks.

    ``sizes`` are the N of each, if they differ. Gradients find their way back.
    """
    if world_size() == 1:
        return mine
    if sizes is None:
        sizes = [len(mine)] * dist.get_world_size(group)
    together: Tensor = _Gathered.apply(mine, sizes, group)
    return together


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, out_sizes: Sequence[int], in_sizes: Sequence[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.out_sizes, ctx.in_sizes, ctx.group = out_sizes, in_sizes, group
        return _swapped(given, out_sizes, in_sizes, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _swapped(grads[0], ctx.in_sizes, ctx.out_sizes, ctx.group), None, None, None


def _swapped(given: Tensor, out_sizes: Sequence[int], in_sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    arrived = given.new_empty(sum(in_sizes), *given.shape[1:])
    dist.all_to_all_single(arrived, given.contiguous(), list(in_sizes), list(out_sizes), group=group)
    return arrived


def exchanged(given: Tensor, out_sizes: Sequence[int], in_sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """Sends ``out_sizes`` rows to each process of a group, and gets ``in_sizes`` of each. Gradients go back."""
    arrived: Tensor = _Exchanged.apply(given, out_sizes, in_sizes, group)
    return arrived


@contextlib.contextmanager
def ready(model: nn.Module) -> Iterator[None]:
    """While this is entered, parts of a model may be called as well as all of it, by all processes alike."""
    if world_size() == 1:
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(model, FSDPModule)
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """While this is entered, every weight is there in all processes, and each may call any part as often as it likes.

    All of the model must have been called before, for what is called first is taken for all of it.
    """
    if world_size() == 1:
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for each in parts:
        each.set_reshard_after_forward(False, recurse=False)
        each.unshard()
    try:
        yield
    finally:
        for each in parts:
            # As it was laid out: the outermost part stays together between its passes.
            each.set_reshard_after_forward(each is not model, recurse=False)
            each.reshard()


# ---- weights, of which every process holds some rows ----


def part(tensor: Tensor) -> Tensor:
    """What of a tensor lies here: all of it, or the rows that are this process's, as a view."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def rows_of(count: int, processes: int) -> list[range]:
    """How ``count`` rows are shared out: as torch cuts them, which leaves the last with fewer or none."""
    each = -(-count // processes)
    return [range(min(count, i * each), min(count, (i + 1) * each)) for i in range(processes)]


def rows_here(tensor: Tensor) -> slice:
    """Which rows :func:`part` has."""
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return slice(None)
    mine = rows_of(tensor.shape[0], mesh.size())[mesh.get_local_rank()]
    return slice(mine.start, mine.stop)


def as_part_of(whole: Tensor, here: Tensor) -> Tensor:
    """A tensor in the shape of ``whole``, of which ``here`` is what lies here. Other shapes are everybody's."""
    if not hasattr(whole, "to_local") or here.shape != part(whole).shape:
        return here
    from torch.distributed.tensor import DTensor

    assert isinstance(whole, DTensor)
    shared: Tensor = DTensor.from_local(
        here, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
    return shared


def lengths_of(grads: Mapping[str, Tensor]) -> tuple[dict[str, float], float]:
    """How long each gradient is, and all of them together. Every process gives the rows that it has."""
    if not grads:
        return {}, 0.0
    lengths_here = torch._foreach_norm([part(grad) for grad in grads.values()], 2, dtype=torch.float32)
    squares = torch.stack(list(lengths_here)).double().square()
    together = total(squares.sum())
    of_mesh: dict[Any, list[int]] = {}
    for i, grad in enumerate(grads.values()):
        of_mesh.setdefault(getattr(grad, "device_mesh", None), []).append(i)
    for mesh, places in of_mesh.items():
        if mesh is not None:
            of_these = squares[places]
            dist.all_reduce(of_these, group=mesh.get_group())
            squares[places] = of_these
    *lengths, length = torch.cat((squares, together[None])).sqrt().tolist()
    return dict(zip(grads, lengths, strict=True)), length
