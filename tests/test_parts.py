"""Thoughts, text and calls come out of a model's words alike, however the words are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_vl.marks import marks_in
from kimi_vl.parts import CallArguments, CallBegun, Marks, Part, PartsParser, Said, Thought

MARKS = Marks()
CALL = '<tool_call>{"name": "look", "arguments": {"x": 1}}</tool_call>'


def parsed(pieces: list[str], *, thinks: bool = False, calls: bool = True, stop: tuple[str, ...] = ()) -> list[Part]:
    parser = PartsParser(MARKS, thinks=thinks, calls=calls, stop=stop)
    return [part for piece in pieces for part in parser.push(piece)] + parser.flush()


def joined(parts: list[Part]) -> dict[str, object]:
    """What a client has in the end."""
    calls: dict[int, list[str]] = {}
    for part in parts:
        if isinstance(part, CallBegun):
            assert part.index == len(calls)
            calls[part.index] = [part.name, ""]
        elif isinstance(part, CallArguments):
            calls[part.index][1] += part.text
    return {
        "thought": "".join(part.text for part in parts if isinstance(part, Thought)),
        "said": "".join(part.text for part in parts if isinstance(part, Said)),
        "calls": [tuple(call) for call in calls.values()],
    }


def read(text: str, *, thinks: bool = False, calls: bool = True, stop: tuple[str, ...] = ()) -> dict[str, object]:
    return joined(parsed([text], thinks=thinks, calls=calls, stop=stop))


@pytest.mark.parametrize("thinks", [True, False])
def test_a_thought_and_an_answer(thinks: bool) -> None:
    assert read("◁think▷So.◁/think▷\n\nYes.", thinks=thinks) == {"thought": "So.", "said": "Yes.", "calls": []}


def test_the_opening_mark_may_stand_in_the_prompt() -> None:
    """(E6)"""
    assert read("So.◁/think▷Yes.", thinks=True) == {"thought": "So.", "said": "Yes.", "calls": []}


def test_marks_that_are_quoted_are_text() -> None:
    said = "It opens with ◁think▷ and closes with ◁/think▷, once."
    assert read(f"So ◁think▷ it is.◁/think▷{said}", thinks=True) == {
        "thought": "So ◁think▷ it is.",
        "said": said,
        "calls": [],
    }
    assert read("`◁think▷` opens a thought.") == {"thought": "", "said": "`◁think▷` opens a thought.", "calls": []}


def test_who_does_not_think_just_says() -> None:
    assert read("So. ◁/think▷Yes.") == {"thought": "", "said": "So. ◁/think▷Yes.", "calls": []}


@pytest.mark.parametrize("text", ["◁think▷So", "So"])
def test_a_thought_that_was_cut_off_is_no_answer(text: str) -> None:
    assert read(text, thinks=True) == {"thought": "So", "said": "", "calls": []}


def test_what_only_begins_like_a_mark_is_text() -> None:
    assert read("◁thin air") == {"thought": "", "said": "◁thin air", "calls": []}
    assert read("a <tool_cal") == {"thought": "", "said": "a <tool_cal", "calls": []}


def test_a_call_ends_a_thought() -> None:
    """(E10)"""
    wanted = {"thought": "I look. ", "said": "", "calls": [("look", '{"x": 1}')]}
    assert read(f"◁think▷I look. {CALL}", thinks=True) == wanted


def test_text_stands_before_between_and_behind_calls() -> None:
    """(E11)"""
    answer = read(f"First.\n{CALL}\n{CALL}\nDone.")
    assert answer == {"thought": "", "said": "First.\nDone.", "calls": [("look", '{"x": 1}')] * 2}


def test_without_tools_their_marks_are_text() -> None:
    assert read(CALL, calls=False) == {"thought": "", "said": CALL, "calls": []}


def test_long_arguments_with_marks_and_brackets_within_strings() -> None:
    """(E11)"""
    arguments = json.dumps(
        {"code": '}{"\\"' * 3000, "nested": [{"a": [1, {}]}], "mark": "◁/think▷ </tool_call> <tool_call>"},
        ensure_ascii=False,
    )
    text = f'<tool_call>\n{{"name": "ru\\nn", "arguments": {arguments}}}\n</tool_call>'
    assert read(text) == {"thought": "", "said": "", "calls": [("ru\nn", arguments)]}


def test_arguments_come_out_while_they_are_written() -> None:
    parser = PartsParser(MARKS, thinks=False, calls=True)
    parts = parser.push('<tool_call>{"name": "look", "arguments": {"x": [1, ')
    assert [type(part) for part in parts] == [CallBegun, CallArguments]
    assert joined(parts + parser.push("2]}"))["calls"] == [("look", '{"x": [1, 2]}')]


@pytest.mark.parametrize(
    ("inner", "call"),
    [
        ('{"arguments": {"x": 1}, "name": "look"}', ("look", '{"x": 1}')),
        ('{"name": "look"}', ("look", "{}")),
        ('{"name": "look", "arguments": "{\\"x\\": 1}"}', ("look", '{"x": 1}')),
    ],
)
def test_other_ways_to_write_a_call(inner: str, call: tuple[str, str]) -> None:
    assert read(f"<tool_call>{inner}</tool_call>")["calls"] == [call]


@pytest.mark.parametrize("inner", ["look around", '{"name": 7, "arguments": {}}', "[1]", '{"x"', "[" * 5000])
def test_what_is_no_call_is_text_without_marks(inner: str) -> None:
    assert read(f"a <tool_call>{inner}</tool_call> b") == {"thought": "", "said": f"a {inner}b", "calls": []}


def test_a_mark_within_a_string_ends_no_call() -> None:
    for inner in (
        '{"name": "f", "arguments": {"x": "a\\" </tool_call> b"}}',
        '{"arguments": {"x": "a\\" </tool_call> b"}, "name": "f"}',
    ):
        assert read(f"<tool_call>{inner}</tool_call>c") == {
            "thought": "",
            "said": "c",
            "calls": [("f", '{"x": "a\\" </tool_call> b"}')],
        }


def test_a_call_that_was_cut_off_has_the_arguments_so_far() -> None:
    assert read('<tool_call>{"name": "look", "arguments": {"x": ')["calls"] == [("look", '{"x": ')]


def test_stop_strings_end_what_is_said_and_nothing_else() -> None:
    text = f"◁think▷a STOP b◁/think▷one two STOP three {CALL}"
    assert read(text, stop=("STOP",)) == {"thought": "a STOP b", "said": "one two ", "calls": []}
    parser = PartsParser(MARKS, thinks=False, calls=False, stop=("STOP",))
    parser.push("one STOP")
    assert parser.stop_string == "STOP"
    assert parser.push("more") == []


PIECES = st.sampled_from(
    ["◁think▷", "◁/think▷", "<tool_call>", "</tool_call>", '{"name": "f", "arguments": ', "{", "}", '"', "\\", "[", "]"]
) | st.text("ab \n◁<{}/", max_size=4)


@given(st.lists(PIECES, max_size=12).map("".join), st.data(), st.booleans(), st.booleans())
def test_how_the_text_is_cut_changes_nothing(text: str, data: st.DataObject, thinks: bool, calls: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = parsed([text], thinks=thinks, calls=calls, stop=("ab",))
    assert joined(parsed(pieces, thinks=thinks, calls=calls, stop=("ab",))) == joined(whole)
    assert all(part.text for part in whole if isinstance(part, Said | Thought))
    if calls:
        assert MARKS.call not in str(joined(whole)["said"])


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("", ("◁think▷", "◁/think▷")),
        ("{{ message.content.split('◁/think▷')[-1] }}", ("◁think▷", "◁/think▷")),
        ("{{ message.content.split('</think>')[-1] }}", ("<think>", "</think>")),
        ("{# ◁/think▷, as others have </think> #}", ("◁think▷", "◁/think▷")),
    ],
)
def test_a_thought_has_the_marks_of_its_checkpoint(template: str, family: tuple[str, str]) -> None:
    """One family's parser finds none of the other's (E7)."""
    marks = Marks(*marks_in(template))
    assert (marks.think, marks.answer) == family
    assert (marks.call, marks.called) == (MARKS.call, MARKS.called)
    parser = PartsParser(marks, thinks=True, calls=False)
    parts = parser.push(f"{marks.think}So.{marks.answer}Yes.") + parser.flush()
    assert joined(parts) == {"thought": "So.", "said": "Yes.", "calls": []}
