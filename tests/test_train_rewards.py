"""Right and wrong answers by each rule, the form of an answer, and a judge that does not wait for ever."""

from __future__ import annotations

import signal

import pytest

from kimi_vl.marks import THOUGHT
from kimi_vl.train import rewards
from kimi_vl.train.rewards import Choice, Inside, Judge, Rule, Several, Value, parts

BOX = (0.25, 0.5, 0.5, 0.75)
CASES: list[tuple[Rule, str, bool]] = [
    (Value("12"), "12", True),
    (Value("12"), " 12. ", True),
    (Value("12"), "12.0", True),
    (Value("12"), "13", False),
    (Value("12"), "about 12", False),
    (Value("12"), "12 or 13", False),
    (Value("12"), "", False),
    (Value("-3"), "-3", True),
    (Value("-3"), "3", False),
    (Value("1234567"), "1,234,567", True),
    (Value("12"), "1,2", False),
    (Value("3/4"), "0.75", True),
    (Value("0.75"), "6/8", True),
    (Value("0"), "1/0", False),
    (Value("0"), "0", True),
    (Value("200", 0.05), "190", True),
    (Value("200", 0.05), "189.9", False),
    (Value("1"), "9" * 150, False),
    (Choice("red"), "Red.", True),
    (Choice("dark  blue"), " dark blue", True),
    (Choice("red"), "red or blue", False),
    (Choice("yes"), "no", False),
    (Several(["red", "blue"]), "blue, red", True),
    (Several(["red", "blue", "green"]), "red, green, and blue.", True),
    (Several(["red", "blue"]), "red and blue", True),
    (Several(["red", "blue"]), "red", False),
    (Several(["red", "blue"]), "red, red, blue", False),
    (Several(["red", "red"]), "red, red", True),
    (Inside(BOX), "pyautogui.click(x=0.3, y=0.6)", True),
    (Inside(BOX), "x=0.25, y=0.75", True),
    (Inside(BOX), "x=0.2, y=0.6", False),
    (Inside(BOX), "x=0.3, y=0.6 x=0.4, y=0.6", False),
    (Inside(BOX), "0.3, 0.6", False),
]


@pytest.mark.parametrize(("rule", "said", "right"), CASES, ids=lambda part: str(part)[:40])
def test_what_is_right_by_a_rule(rule: Rule, said: str, right: bool) -> None:
    assert rule.is_right(said) is right


def test_the_judge_says_the_same() -> None:
    with Judge() as judge:
        assert [judge.is_right(rule, said) for rule, said, _ in CASES] == [right for _, _, right in CASES]


def test_an_answer_without_end_is_wrong_and_costs_nothing() -> None:
    with Judge() as judge:
        assert not judge.is_right(Value("1"), "1" + " " * 10_000_000)
        assert judge.is_right(Value("1"), "1")


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_a_judge_that_is_late_or_gone_is_stopped_and_begins_anew(end: signal.Signals) -> None:
    with Judge(seconds=0.5) as judge:
        assert judge.is_right(Value("1"), "1")
        process = judge._apart._process
        assert process is not None
        process.send_signal(end)
        assert not judge.is_right(Value("1"), "1")
        assert process.wait(10) == -signal.SIGKILL
        assert judge.is_right(Value("1"), "1")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<t>two and two</t> 4", ("two and two", "4")),
        (" <t>two</t>\n4\n", ("two", "4")),
        ("4", None),
        ("<t>two 4", None),
        ("two</t>4", None),
        ("<t></t>4", None),
        ("<t>two</t> ", None),
        ("<t>two</t>4</t>", None),
        ("<t><t>two</t>4", None),
        ("So <t>two</t>4", None),
    ],
)
def test_an_answer_has_its_form(text: str, wanted: tuple[str, str] | None) -> None:
    found = parts(text.replace("<t>", THOUGHT.opening).replace("</t>", THOUGHT.closing))
    assert found == (None if wanted is None else rewards.Parts(*wanted))
