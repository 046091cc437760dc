"""What this machine has to give: memory that is free, and cores.

In: what Linux tells in /proc and /sys, a container's limits included; elsewhere what the standard library knows. Out:
:class:`Machine`. Imports no library.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    memory: int | None  # bytes that this process could ever have; None where the system does not say
    available: int | None  # bytes that it can still get without anybody being swapped out or killed
    cores: int

    def holds(self, count: int) -> bool:
        """Whether so many bytes are available, or may be for all that is known."""
        return self.available is None or count <= self.available


def this_machine(root: Path = Path("/")) -> Machine:
    """``root`` is where /proc and /sys are looked for."""
    memory, available = _meminfo(root)
    for limit, used in _memory_limits(root):
        memory = limit if memory is None else min(memory, limit)
        left = max(limit - used, 0)
        available = left if available is None else min(available, left)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in _core_limits(root):
        cores = min(cores, max(math.floor(quota), 1))
    return Machine(memory, available, cores)


def _meminfo(root: Path) -> tuple[int | None, int | None]:
    """All memory and what is available of it."""
    numbers = {name: int(rest.split()[0]) for name, rest in _pairs(root / "proc/meminfo", ":")}
    if "MemTotal" in numbers and "MemAvailable" in numbers:
        return 1024 * numbers["MemTotal"], 1024 * numbers["MemAvailable"]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None, None
    return total, total


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group that this process is in and that has a limit."""
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
            if limit.isdigit() and used.isdigit():
                # pages of files that nobody needs go before anything else does
                idle = dict(_pairs(folder / "memory.stat", None)).get(cache_name, "0")
                yield int(limit), max(int(used) - int(idle), 0)


def _core_limits(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group of this process may use, where it is limited."""
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _text(folder / "cpu.cfs_quota_us").strip()
            period = _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those around it, in version 2 and version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        # Inside a container the path may be that of the world outside; its top is always there.
        inner = Path(path.strip("/"))
        yield from (top / part for part in (inner, *inner.parents) if (top / part).is_dir())


def _pairs(path: Path, separator: str | None) -> Iterator[tuple[str, str]]:
    for line in _text(path).splitlines():
        name, *rest = line.split(separator, 1)
        if rest:
            yield name, rest[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
