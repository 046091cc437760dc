"""When a value counts as disturbed, and what is done about it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kimi_vl.engine import quiet
from kimi_vl.engine.quiet import QUIET, quietly


class Stranger:
    """Uses all cores while it is told to, by the kernel's count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(quiet, "_seconds_of_others", lambda: self.seconds)
        monkeypatch.setattr(quiet, "_GLANCE", 0.001)

    def works(self, seconds: float) -> None:
        self.seconds += seconds * (os.cpu_count() or 1)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Stranger:
    return Stranger(monkeypatch)


def test_what_was_disturbed_is_measured_again(stranger: Stranger) -> None:
    calls = []

    def measure() -> float:
        calls.append(1)
        time.sleep(0.01)
        if len(calls) < 3:
            stranger.works(0.01)
        return float(len(calls))

    value, share = quietly(measure, patience=60)
    assert (value, len(calls), share) == (3.0, 3, 0.0)


def test_without_patience_it_is_measured_once_and_told(stranger: Stranger) -> None:
    def measure() -> float:
        begun = time.monotonic()
        time.sleep(0.05)
        stranger.works((time.monotonic() - begun) / 2)
        return 7.0

    value, share = quietly(measure, patience=0)
    assert value == 7.0
    assert QUIET < share <= 0.5


def test_it_waits_until_the_cores_are_left_alone(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    glances = []

    def sleep(seconds: float) -> None:
        glances.append(seconds)
        if len(glances) < 4:
            stranger.works(1.0)

    monkeypatch.setattr(time, "sleep", sleep)
    value, share = quietly(lambda: 1.0, patience=60)
    assert (value, share, len(glances)) == (1.0, 0.0, 4)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux counts")
def test_own_work_is_not_anothers() -> None:
    def measure() -> float:
        begun = time.process_time()
        while time.process_time() - begun < 0.2:
            pass
        return 1.0

    before = quiet._seconds_of_others()
    begun = time.monotonic()
    measure()
    # this thread's own time is one core's; whatever others took is at most what the rest of the cores can give
    elapsed = time.monotonic() - begun
    assert quiet._seconds_of_others() - before <= elapsed * (os.cpu_count() or 1) - 0.2 + 0.05
