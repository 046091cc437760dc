"""Thoughts on the command line: folded to a line on stderr, bounded by a budget, never part of what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kimi_vl import KimiVLProcessor, Reply, SamplingParams
from kimi_vl.cli.chat import Conversation
from kimi_vl.cli.thought import Speaker, Spoken, Thinking
from kimi_vl.hub import NANO
from kimi_vl.marks import THOUGHT
from kimi_vl.processor import ModelInputs
from kimi_vl.sampling import Drawn
from tests.cli.conftest import Run

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
LONG = "First I look at the picture, then at what is asked, and then I think about both of them."


class Scripted:
    """A model that says what it was told to, and counts how much of it was asked for."""

    def __init__(self, text: str) -> None:
        ids = [*PROCESSOR.tokenizer.encode(text), PROCESSOR.tokenizer.im_end_id]
        self._tokens = [Drawn(token, finish="stop" if at == len(ids) - 1 else None) for at, token in enumerate(ids)]
        self.given = 0

    def stream(self, inputs: ModelInputs, params: SamplingParams) -> Scripted:
        return self

    def __iter__(self) -> Iterator[Drawn]:
        return self

    def __next__(self) -> Drawn:
        if self.given == len(self._tokens):
            raise StopIteration
        self.given += 1
        return self._tokens[self.given - 1]

    def close(self) -> None:
        pass

    @property
    def left(self) -> int:
        return len(self._tokens) - self.given


def spoken(text: str, *, shown: bool = False, stop: Sequence[str] = ()) -> tuple[Spoken, Reply, Scripted]:
    model = Scripted(text)
    reply = Reply(model, PROCESSOR, [{"role": "user", "content": "?"}])
    return Speaker(Thinking("a-thinking-model", None, None, shown), NANO, stop).speak(reply), reply, model


def thought(of: str, said: str) -> str:
    return f"{THOUGHT.opening}{of}{THOUGHT.closing}{said}"


def test_a_thought_is_folded_to_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    found, _, _ = spoken(thought(f"{LONG}\nSo.", "\n42.\n"))
    assert found == Spoken("42.\n", f"{LONG}\nSo.")
    out, err = capsys.readouterr()
    assert out == "42.\n"
    tokens = len(PROCESSOR.tokenizer.encode(THOUGHT.opening + LONG + "\nSo." + THOUGHT.closing))
    (line,) = err.splitlines()
    assert line.startswith(f"thought: {LONG[:60].rstrip()}… (") and "--show-thought shows all" in line
    assert abs(int(line.split("(")[1].split()[0]) - tokens) <= 3


def test_a_short_thought_stands_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    spoken(thought("6 x 7", "42"))
    assert capsys.readouterr().err.startswith("thought: 6 x 7 (")


def test_a_thought_is_shown_where_it_is_wished(capsys: pytest.CaptureFixture[str]) -> None:
    spoken(thought(LONG, "42"), shown=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("42\n", f"{LONG}\n\n")


def test_stop_strings_are_looked_for_behind_the_thought(capsys: pytest.CaptureFixture[str]) -> None:
    found, reply, model = spoken(thought("one, two, three", "one, two, three and so on"), stop=["two"])
    assert found == Spoken("one, ", "one, two, three")
    assert (reply.answer.finish_reason, reply.answer.stop_string) == ("stop", "two")
    assert model.left > 3


def test_a_thought_without_an_end_leaves_nothing_said(capsys: pytest.CaptureFixture[str]) -> None:
    found, _, _ = spoken(f"{THOUGHT.opening}{LONG}")
    assert found == Spoken("", LONG)
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ("ab\n\nc", "ab\n\nc\n"),
        ("a\n\n\n", "a\n"),
        ("\n\na", "\n\na\n"),
        ("", "\n"),
    ],
)
def test_an_answer_ends_in_one_newline(pieces: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    reply = Reply(Scripted(pieces), PROCESSOR, [{"role": "user", "content": "?"}])
    assert Speaker(Thinking("nano", None, None, shown=False), NANO, ()).speak(reply).thought is None
    assert capsys.readouterr() == (shown, "")


def test_old_thoughts_are_no_part_of_a_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    thinking = Thinking("a-thinking-model", None, None, shown=False)
    conversation = Conversation(
        Scripted(thought(LONG, "42")), PROCESSOR, SamplingParams(), None, lambda: Speaker(thinking, NANO, ())
    )
    conversation.take("What?")
    assert conversation.messages[-1] == {"role": "assistant", "content": "42"}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nano under a name that thinks."""
    folder = tmp_path_factory.mktemp("models") / "one-thinking"
    shutil.copytree(NANO, folder)
    return str(folder)


def test_a_budget_bounds_the_thought_of_any_model(run: Run, folder: Path, thinker: str) -> None:
    for options in (("--model", thinker), ("--thinking",)):
        ended = run("ask", "red.png", "What?", *options, "--thinking-budget", "5", "--max-new-tokens", "60", "--json")
        told = json.loads(ended.out)
        assert told["thought"] and len(PROCESSOR.tokenizer.encode(told["thought"])) <= 5
        assert told["text"] and THOUGHT.closing not in told["text"]


def test_a_model_that_thinks_need_not(run: Run, folder: Path, thinker: str) -> None:
    ended = run("ask", "red.png", "What?", "--model", thinker, "--no-thinking", "--max-new-tokens", "30", "--json")
    told = json.loads(ended.out)
    assert told["thought"] is None and told["text"]


def test_a_thought_before_a_form(run: Run, folder: Path, thinker: str) -> None:
    wishes = ("--thinking-budget", "4", "--choice", "yes", "--choice", "no")
    told = json.loads(run("ask", "red.png", "Red?", "--model", thinker, *wishes, "--json").out)
    assert told["text"] in ("yes", "no") and told["thought"]


@pytest.mark.parametrize("option", [["--thinking-budget", "5"], ["--show-thought"]])
def test_what_only_a_thinking_model_has_is_refused(run: Run, option: list[str]) -> None:
    ended = run("ask", "What?", *option)
    assert (ended.code, ended.out) == (2, "")
    assert f"{option[0]} is given, but this model does not think" in ended.err
