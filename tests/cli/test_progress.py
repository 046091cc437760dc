"""A long wait is shown at a terminal, and nowhere else."""

from __future__ import annotations

import io
import sys
import time

import pytest

from kimi_vl.cli import progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_wait_is_shown_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.waiting("loading nano"):
        time.sleep(0.2)
    with progress.counting_bytes("writing new", total=100) as bar:
        time.sleep(0.02)
        bar(50)
        time.sleep(0.2)
    assert "loading nano" in screen.getvalue()
    assert "50/100 bytes" in screen.getvalue()


@pytest.mark.parametrize("screen", [Screen(), io.StringIO()], ids=["short wait", "no terminal"])
def test_otherwise_nothing_is_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.waiting("loading nano"), progress.counting_bytes("writing new", total=100) as bar:
        bar(100)
    assert screen.getvalue() == ""
