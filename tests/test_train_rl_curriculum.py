"""Which problems are posed: easy ones first, and more of what fails."""

from __future__ import annotations

from collections import Counter

import pytest

from kimi_vl.train.rl.curriculum import Asked, Cell, chosen, open_cells, open_levels, success_rates

SUMS = [Cell("sums", level) for level in range(1, 6)]
SHAPES = [Cell("shapes", level) for level in (1, 2)]


@pytest.mark.parametrize(
    ("progress", "levels", "opening", "wanted"),
    [
        (0.0, 5, 0.5, 1),
        (0.124, 5, 0.5, 1),
        (0.125, 5, 0.5, 2),
        (0.25, 5, 0.5, 3),
        (0.49, 5, 0.5, 4),
        (0.5, 5, 0.5, 5),
        (1.0, 5, 0.5, 5),
        (0.0, 5, 0.0, 5),  # no curriculum
        (0.0, 1, 0.5, 1),
        (0.3, 2, 0.5, 1),
    ],
)
def test_levels_open_one_after_the_other(progress: float, levels: int, opening: float, wanted: int) -> None:
    assert open_levels(progress, levels, opening) == wanted


def test_each_kind_opens_by_its_own_levels() -> None:
    assert open_cells([*SUMS, *SHAPES], 0.0, 0.5) == [SUMS[0], SHAPES[0]]
    assert open_cells([*SUMS, *SHAPES], 0.25, 0.5) == [*SUMS[:3], SHAPES[0]]
    assert open_cells([*SUMS, *SHAPES], 0.5, 0.5) == [*SUMS, *SHAPES]


def test_success_is_that_of_the_last_problems() -> None:
    one, two = SUMS[:2]
    assert success_rates([]) == {}
    assert success_rates([Asked(one, 3, 4), Asked(two, 0, 4)]) == {one: 0.75, two: 0.0}
    # 0.8 · 0.5 + 0.2 · 1
    assert success_rates([Asked(one, 2, 4), Asked(one, 4, 4)])[one] == pytest.approx(0.6)
    many = [Asked(one, 0, 4)] * 50 + [Asked(one, 4, 4)] * 20
    assert success_rates(many)[one] > 0.98


def test_cells_come_by_their_failures() -> None:
    rates = {SUMS[0]: 0.9, SUMS[1]: 0.5, SUMS[2]: 0.0}
    count = Counter(chosen(SUMS[:4], rates, 20_000, "key"))
    # 0.1, 0.5 and 1, and 1 where nothing is known
    for cell, wanted in zip(SUMS[:4], (0.1, 0.5, 1.0, 1.0), strict=True):
        assert count[cell] / 20_000 == pytest.approx(wanted / 2.6, abs=0.02)


def test_what_never_fails_is_still_asked_now_and_then() -> None:
    assert set(chosen(SUMS, dict.fromkeys(SUMS, 1.0), 100, "key")) == set(SUMS)
    count = Counter(chosen(SUMS[:2], {SUMS[0]: 1.0, SUMS[1]: 0.0}, 5_000, "key"))
    assert 40 < count[SUMS[0]] < 200


def test_a_choice_is_made_alike_again() -> None:
    assert chosen(SUMS, {}, 50, "3/7") == chosen(SUMS, {}, 50, "3/7") != chosen(SUMS, {}, 50, "3/8")
