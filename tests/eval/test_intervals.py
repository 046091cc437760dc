"""How sure figures are, on numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kimi_vl.eval.intervals import bootstrap, mcnemar, paired, wilson


def test_wilson_is_never_empty() -> None:
    """Of ten with none right: z² / (n + z²)."""
    low, high = wilson(0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(1.959964**2 / (10 + 1.959964**2))
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_bootstrap_is_the_same_each_time_and_narrows() -> None:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 200
    assert bootstrap(few, mean) == bootstrap(few, mean)
    low, high = bootstrap(many, mean)
    assert 0.44 < low < 0.47 and 0.53 < high < 0.56  # half plus or minus 1.96 * sqrt(1/4/400)
    wide, narrow = bootstrap(few, mean), (low, high)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_mcnemar() -> None:
    """Of five that changed all to the better: twice 1/32."""
    assert mcnemar(5, 0) == mcnemar(0, 5) == 2 / 32
    assert mcnemar(3, 1) == 2 * (1 + 4) / 16
    assert mcnemar(2, 2) == mcnemar(0, 0) == 1.0


def test_paired_of_scores_between() -> None:
    assert paired([0.5] * 12) < 0.01
    assert paired([0.5, -0.5] * 6) == pytest.approx(1.0)
    assert paired([0.0, 0.0]) == 1.0
