"""Expressions are worked out beside us: what they come to, what is no number, and what takes too long."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_vl.eval.scoring import mathvision
from kimi_vl.eval.scoring.calculator import Calculator


@pytest.fixture(scope="module")
def calculator() -> Iterator[Calculator]:
    with Calculator(seconds=0.5) as working:
        yield working


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-.5", -0.5),
        (r"\frac{3}{4}", 0.75),
        (r"2\sqrt{2}", 2 * math.sqrt(2)),
        (r"3\pi", 3 * math.pi),
        ("2+3", 5),
        # Behind a brace that closes nothing nobody looks.
        (r"\frac{1}{2}}.theansweris", 0.5),
        ("x+1", None),
        ("(1,2", None),
        ("", None),
        (r"\infty", None),
    ],
)
def test_what_an_expression_comes_to(calculator: Calculator, text: str, value: float | None) -> None:
    found = calculator(text)
    assert found == (value if value is None else pytest.approx(value))
    assert type(found) is type(value)


def test_what_takes_too_long_is_no_number_and_what_follows_is(calculator: Calculator) -> None:
    began = time.monotonic()
    assert calculator("9^{9^{9^{9}}}") is None
    assert time.monotonic() - began < 20  # another process is started for the next, on a busy machine
    assert calculator("7-4") == 3


def test_text_of_a_model_is_not_run(calculator: Calculator, tmp_path: Path) -> None:
    assert calculator(f'__import__("pathlib").Path("{tmp_path}/run").touch()') is None
    assert calculator("exit()") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wanted", "said", "official", "fixed"),
    [
        ("0.004", "0", True, False),  # two digits after the point
        ("12", "12cm", False, True),
        ("(1,2)", "(1,2.0)", False, True),
        (r"\frac{4}{3}", "4/3", True, True),
        ("3", "3and6", False, False),
        ("5", "", False, False),
    ],
)
def test_mathvisions_rule_and_what_it_ought_to_be(
    calculator: Calculator, wanted: str, said: str, official: bool, fixed: bool
) -> None:
    assert mathvision.is_equal(wanted, said, calculator) is official
    assert mathvision.is_close(wanted, said, calculator) is fixed
