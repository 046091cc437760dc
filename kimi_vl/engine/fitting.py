"""What would fit, where what was asked for does not.

Memory grows with everything that can be asked for, so the most that fits is found by halving.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.plan import Demand, Limits, Weights, plan_limits
from kimi_vl.footprint import in_bytes
from kimi_vl.machine import Machine
from kimi_vl.patches import ImageProcessorConfig


def check_start(
    name: str | Path,
    config: KimiVLConfig,
    weights: Weights,
    limits: Limits,
    settings: ImageProcessorConfig,
    machine: Machine,
) -> None:
    """What an engine may come to hold against the memory that is free, before it takes any.

    Raises: ``ValueError`` with the numbers, and what would fit, if there is not enough.
    """
    # the program is in memory already
    needed = plan_limits(config, weights, limits, settings)
    total = needed.peak - needed.program
    if machine.available is None or machine.holds(total):
        return

    def fits(context: int) -> bool:
        other = plan_limits(config, weights, replace(limits, context=context), settings)
        return machine.holds(other.peak - other.program)

    shorter = _largest(PAGE, limits.context - 1, PAGE, fits)
    way_out = "free some memory" if shorter is None else f"a context of {shorter:,} would fit"
    raise ValueError(
        f"{name} needs {in_bytes(total)} of memory ({in_bytes(needed.weights + needed.picture_weights)} for weights, "
        f"{in_bytes(needed.cache)} for a context of {limits.context:,} tokens, and room to work), but "
        f"{in_bytes(machine.available)} are free: {way_out}; kimi-vl plan says more"
    )


def smaller(demand: Demand, fits: Callable[[Demand], bool]) -> list[Demand]:
    """What could be asked for instead: as much of one thing as fits, for each thing of which less is enough.

    If less of one thing is not enough, one request with fewer pictures and a shorter context; nothing if that is too
    much as well.
    """
    alone = [
        _with_largest(1, demand.batch - 1, 1, lambda n: replace(demand, batch=n), fits),
        _shorter(demand, fits),
        _with_largest(0, demand.pictures - 1, 1, lambda n: replace(demand, pictures=n), fits),
        _smaller_pictures(demand, fits),
    ]
    found = [other for other in alone if other is not None]
    for pictures in dict.fromkeys((demand.pictures, min(demand.pictures, 1), 0)):
        together = None if found else _shorter(replace(demand, batch=1, pictures=pictures), fits)
        if together is not None:
            found.append(together)
    return found


def _shorter(demand: Demand, fits: Callable[[Demand], bool]) -> Demand | None:
    least = math.ceil((demand.pictures * demand.grid.tokens + 1) / PAGE) * PAGE
    return _with_largest(least, demand.context - 1, PAGE, lambda n: replace(demand, context=n), fits)


def _smaller_pictures(demand: Demand, fits: Callable[[Demand], bool]) -> Demand | None:
    """The same shape, as many whole tokens wide as fit."""
    if not demand.pictures:
        return None
    side = demand.settings.patch_size * demand.settings.merge_kernel_size[1]
    width, height = demand.grid.resized_size

    def scaled(wide: int) -> Demand:
        return replace(demand, size=(wide, max(height * wide // width, 1)))

    return _with_largest(side, width - 1, side, scaled, fits)


def _with_largest(
    first: int, last: int, step: int, make: Callable[[int], Demand], fits: Callable[[Demand], bool]
) -> Demand | None:
    number = _largest(first, last, step, lambda n: fits(make(n)))
    return None if number is None else make(number)


def _largest(first: int, last: int, step: int, fits: Callable[[int], bool]) -> int | None:
    """The largest of first, first + step, … up to last that fits, as all smaller ones then do."""
    low, high = -1, (last - first) // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(first + middle * step) else (low, middle - 1)
    return None if low < 0 else first + low * step
