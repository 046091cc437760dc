"""What is guessed ahead, and when it pays to guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_vl.engine.guess import TOKEN_COST, Guesses, how_many


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1, 2]),
        ([1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3], [5, 9, 1, 2]),  # of two that are as long, the later
        ([7, 1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 1, 2, 3], [4, 9, 1, 2]),  # the longer before the later
        ([8, 2, 3, 4, 5, 1, 2, 3], []),  # two equal tokens are chance
        ([6, 6, 6, 6], [6]),
        ([1, 2, 3], []),
        ([1], []),
    ],
)
def test_what_followed_the_same_words_is_guessed(ids: list[int], expected: list[int]) -> None:
    assert Guesses(ids, 20).next(4) == expected


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 6))
def test_a_guess_follows_the_longest_equal_end(ids: list[int], most: int) -> None:
    def equal(end: int) -> int:
        return next((n for n in range(16) if end < n or ids[end - n] != ids[-1 - n]), 16)

    ends = range(len(ids) - 1)
    longest = max(map(equal, ends), default=0)
    best = max((end for end in ends if equal(end) == longest), default=0)
    expected = ids[best + 1 : best + 1 + most] if longest >= 3 else []
    assert Guesses(ids, 50).next(most) == expected


def test_an_answer_joins_what_is_looked_up() -> None:
    guesses = Guesses([1, 2, 3], 10)
    guesses.add([4, 1, 2])
    guesses.add([3])
    assert guesses.ids == [1, 2, 3, 4, 1, 2, 3]
    assert guesses.next(2) == [4, 1]


def test_the_share_follows_what_came_true() -> None:
    guesses = Guesses([1, 2, 3, 4] * 4, 400)
    for _ in range(40):
        guesses.add([(guesses.next(1)[0]) % 4 + 1] if guesses.next(1) else [1])
    wrong = guesses.share
    assert how_many(wrong, 1) == 0
    for _ in range(60):
        guesses.add(guesses.next(3) or [1])
    assert guesses.share > 0.9 > wrong


def test_guesses_are_made_where_they_pay() -> None:
    assert how_many(TOKEN_COST, tokens=1) == 0
    assert [how_many(share, tokens=1) for share in (0.5, 0.7, 0.9)] == [1, 2, 7]
    assert how_many(0.9, tokens=1) > how_many(0.9, tokens=4) > how_many(0.9, tokens=64) == 0
    assert how_many(1.0, tokens=512) > 100
