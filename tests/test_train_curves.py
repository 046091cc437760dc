"""The curves of a run's page, to the pixel: axes, ticks, smoothing, thinning."""

from __future__ import annotations

import math
import re
import time

import pytest

from kimi_vl.train.watching.curves import BOTTOM, LEFT, RIGHT, TOP, Curve, axis_of, chart, readable, smoothed, thinned


def test_a_known_curve_lies_at_known_pixels() -> None:
    drawn = chart("it", [Curve("it", [(0, 0.0), (50, 10.0), (100, 5.0)])], logarithmic=None)
    middle = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    corners = [(LEFT, BOTTOM), (middle[0], TOP), (RIGHT, middle[1])]
    assert f'd="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in corners)}"' in drawn
    line = "".join(f"{pen}{x:.1f} {y:.1f}" for pen, (x, y) in zip("MLL", corners, strict=True))
    assert f'class="line c0" d="{line}"' in drawn
    assert re.findall(r'class="y"[^>]*>([^<]*)<', drawn) == ["0", "5", "10"]
    assert re.findall(r'class="x" x="([^"]*)"[^>]*>([^<]*)<', drawn) == [
        (f"{LEFT}.0", "0"), (f"{middle[0]:.1f}", "50"), (f"{RIGHT}.0", "100"),
    ]  # fmt: skip


def test_a_wide_range_has_a_logarithmic_axis() -> None:
    drawn = chart("it", [Curve("it", [(1, 0.01), (2, 1.0), (3, 100.0)])], logarithmic=None)
    assert "logarithmic" in drawn
    assert f"M{(LEFT + RIGHT) / 2:.1f} {(TOP + BOTTOM) / 2:.1f}h0" in drawn
    assert re.findall(r'class="y"[^>]*>([^<]*)<', drawn) == ["0.01", "0.1", "1", "10", "100"]
    for values in ([1.0, 19.0], [0.0, 100.0], [-1.0, 100.0]):
        assert not axis_of(values, 0, 1, logarithmic=None).logarithmic


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (2.24, 7.86), (0, 8.07), (1.09, 1.61), (1e-15, 3e-15), (3, 3), (0, 0), (-5, 7), (10, 123_456)],
)
def test_ticks_are_round_few_and_within(low: float, high: float) -> None:
    axis = axis_of([low, high], BOTTOM, TOP, logarithmic=False)
    ticks = axis.ticks(3)
    assert 3 <= len(ticks) <= 8
    assert len({readable(tick) for tick in ticks}) == len(ticks)
    assert all(TOP - 0.01 <= axis.at(tick) <= BOTTOM + 0.01 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(1, 25), (0.3, 8), (1e-12, 1e12), (0.011, 99)])
def test_so_are_those_of_a_logarithmic_axis(low: float, high: float) -> None:
    axis = axis_of([low, high], BOTTOM, TOP, logarithmic=None)
    ticks = axis.ticks(3)
    assert axis.logarithmic
    assert 3 <= len(ticks) <= 8
    assert all(TOP <= axis.at(tick) <= BOTTOM for tick in ticks)


def test_numbers_are_readable() -> None:
    values = (0.0, 0.003, 1e-5, 2.24057, 1000.0, 9999.7, 12_500.0, 3e6, -20_000.0, math.nan)
    assert [readable(value) for value in values] == [
        "0", "0.003", "1e-5", "2.241", "1000", "10k", "12.5k", "3M", "-20k", "nan",
    ]  # fmt: skip


def test_smoothing_keeps_straight_lines_to_their_ends_and_never_leaves_what_was_seen() -> None:
    straight = [(float(n), 3.0 + 2.0 * n) for n in range(300)]
    assert [y for _, y in smoothed(straight)] == pytest.approx([y for _, y in straight])
    noisy = [(x, y + 50 * (-1) ** int(x)) for x, y in straight]
    assert max(abs(y - 3 - 2 * x) for x, y in smoothed(noisy)) < 15
    step = [(float(n), 1.0 if n < 295 else 0.0) for n in range(300)]
    assert all(0 <= y <= 1 for _, y in smoothed(step))


def test_a_long_run_is_thinned_but_keeps_its_spikes() -> None:
    points = [(n, math.sin(n)) for n in range(100_000)]
    points[54_321], points[77_777] = (54_321, 99.0), (77_777, math.nan)
    kept = thinned(points)
    assert len(kept) < 1300
    assert points[54_321] in kept
    assert points[77_777] in kept
    assert kept[-1] == points[-1]
    assert [step for step, _ in kept] == sorted(step for step, _ in kept)
    began = time.perf_counter()
    drawn = chart("it", [Curve("it", points)], logarithmic=None)
    assert len(drawn) < 100_000
    assert time.perf_counter() - began < 5


def test_nothing_finite_is_no_chart() -> None:
    assert chart("it", [Curve("it", []), Curve("it", [(1, math.nan)])], logarithmic=None) == ""
