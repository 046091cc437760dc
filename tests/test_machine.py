"""What a machine says of itself, in control groups of both versions and in none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kimi_vl.machine import this_machine

GB = 2**30


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GB, of which 12 are free, and 8 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(tmp_path, proc__meminfo=f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {12 * 2**20} kB\n")
    return tmp_path


def test_without_limits_the_machine_is_all_there_is(root: Path) -> None:
    machine = this_machine(root)
    assert (machine.memory, machine.available, machine.cores) == (16 * GB, 12 * GB, 8)


def test_a_container_of_version_2(root: Path) -> None:
    """Its own group has no limit, the one around it has; files that nobody needs are as good as free."""
    write(root, proc__self__cgroup="0::/box/inner\n")
    write(
        root, **{"sys__fs__cgroup__box__inner__memory.max": "max\n", "sys__fs__cgroup__box__memory.max": f"{4 * GB}\n"}
    )
    write(
        root,
        **{"sys__fs__cgroup__box__memory.current": f"{3 * GB}\n", "sys__fs__cgroup__box__cpu.max": "250000 100000\n"},
    )
    write(root, **{"sys__fs__cgroup__box__memory.stat": f"anon {GB}\ninactive_file {2 * GB}\n"})
    machine = this_machine(root)
    assert (machine.memory, machine.available, machine.cores) == (4 * GB, 3 * GB, 2)


def test_a_container_of_version_1_whose_path_is_that_of_the_world_outside(root: Path) -> None:
    write(root, proc__self__cgroup="4:memory:/docker/0a\n3:cpu,cpuacct:/docker/0a\n2:pids:/\n")
    write(root, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": str(2 * GB)})
    write(root, **{"sys__fs__cgroup__memory__memory.usage_in_bytes": str(5 * GB)})
    write(
        root, **{"sys__fs__cgroup__cpu__cpu.cfs_quota_us": "50000", "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000"}
    )
    machine = this_machine(root)
    assert (machine.memory, machine.available, machine.cores) == (2 * GB, 0, 1)


def test_no_limit_of_version_1_is_a_large_number(root: Path) -> None:
    write(root, proc__self__cgroup="4:memory:/\n3:cpu:/\n")
    write(root, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712"})
    write(
        root,
        **{
            "sys__fs__cgroup__memory__memory.usage_in_bytes": str(24 * GB),
            "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1",
        },
    )
    machine = this_machine(root)
    assert (machine.memory, machine.available, machine.cores) == (16 * GB, 12 * GB, 8)


def test_another_system_says_how_much_memory_it_has_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = this_machine(tmp_path)
    assert machine.memory is not None and machine.memory == machine.available and machine.memory > GB
    assert machine.cores >= 1 and machine.holds(GB) and not machine.holds(2**60)
    monkeypatch.delattr(os, "sysconf")
    machine = this_machine(tmp_path)
    assert machine.memory is machine.available is None and machine.holds(2**60)
