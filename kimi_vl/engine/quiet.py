"""Measuring while nobody else uses the cores, by the kernel's own count of their time.

A thread that waits for another at every layer loses far more than the share that a stranger takes. Only Linux tells;
elsewhere every moment counts as quiet. Imports nothing of ours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

QUIET = 0.05  # share of all cores that others may use
_GLANCE = 0.5  # seconds


def quietly(measure: Callable[[], float], patience: float) -> tuple[float, float]:
    """What ``measure`` returns, and the share of all cores (0 … 1) that others used meanwhile.

    For up to ``patience`` seconds it waits for a quiet moment, and measures again what was disturbed.
    """
    deadline = time.monotonic() + patience
    while True:
        while time.monotonic() < deadline and _watched(_glance)[1] > QUIET:
            pass
        value, share = _watched(measure)
        if share <= QUIET or time.monotonic() >= deadline:
            return value, share


def _glance() -> float:
    time.sleep(_GLANCE)
    return _GLANCE


def _watched(measure: Callable[[], float]) -> tuple[float, float]:
    before, begun = _seconds_of_others(), time.monotonic()
    value = measure()
    used = _seconds_of_others() - before
    return value, min(1.0, max(0.0, used / (time.monotonic() - begun) / (os.cpu_count() or 1)))


def _seconds_of_others() -> float:
    """Of all cores, since the machine began; what another guest of the same host took counts too."""
    try:
        user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return 0.0
    ticks = sum(map(int, (user, nice, system, irq, softirq, steal)))
    own = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system
