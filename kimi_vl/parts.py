"""What a model writes → its thought, what it says, and the functions it calls, as they grow.

The text comes in pieces, and how it is cut changes nothing: what may yet become a mark or a stop string is held back.
Marks never come out, but for those within a string of what a function is given. The opening mark of a thought is
optional where a prompt had it already; a call ends a thought as its closing mark does. Stop strings end what is said,
and are not looked for elsewhere.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from enum import Enum, auto

from kimi_vl.marks import THOUGHT
from kimi_vl.transcript import StopStrings


@dataclass(frozen=True)
class Marks:
    """What stands around a thought, and around a call."""

    think: str = THOUGHT.opening
    answer: str = THOUGHT.closing
    call: str = "<tool_call>"
    called: str = "</tool_call>"


MARKS = Marks()


@dataclass(frozen=True)
class Thought:
    text: str


@dataclass(frozen=True)
class Said:
    text: str


@dataclass(frozen=True)
class CallBegun:
    """A function by its name, of which the arguments follow."""

    index: int
    name: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


@dataclass(frozen=True)
class CallArguments:
    """The next characters of the JSON."""

    index: int
    text: str


Part = Thought | Said | CallBegun | CallArguments


class _State(Enum):
    BEGINNING = auto()
    THOUGHT = auto()
    TEXT = auto()
    CALL = auto()


class PartsParser:
    """One answer.

    ``thinks``: the text begins as a thought, whether or not its mark is there. Otherwise it does only with the mark.
    ``calls``: whether functions may be called; if not, their marks are ordinary text.
    ``marks``: without any, all is said.
    """

    def __init__(self, marks: Marks | None, *, thinks: bool, calls: bool, stop: Sequence[str] = ()) -> None:
        self.calls = 0  # that have begun
        self._marks = marks or MARKS
        self._thinks = thinks
        self._may_call = calls
        self._stop = StopStrings(stop)
        self._state = _State.TEXT if marks is None else _State.BEGINNING
        self._held = ""
        self._call: _Call | None = None
        self._skips_blanks = False  # those between a thought or call and what follows

    @property
    def stop_string(self) -> str | None:
        """Which one ended the answer; nothing more comes out then."""
        return self._stop.found

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought, its marks included, as far as is known."""
        return self._state is _State.THOUGHT or (self._state is _State.BEGINNING and self._thinks)

    def push(self, piece: str) -> list[Part]:
        """What is certain after this piece."""
        self._held += piece
        return list(self._parts())

    def flush(self) -> list[Part]:
        """What was held back, when no more comes."""
        held, self._held = self._held, ""
        if self._stop.found is not None:
            return []
        if self._state is _State.BEGINNING:
            self._state = _State.THOUGHT if self._thinks else _State.TEXT
        parts: list[Part] = []
        if self._state is _State.THOUGHT:
            parts += [Thought(held)] if held else []
        elif self._state is _State.CALL:
            assert self._call is not None
            parts += [*self._call.push(held), *self._end_call()]
        else:
            parts += self._say(held)
        if self._stop.found is None and (rest := self._stop.flush()):
            parts.append(Said(rest))
        return parts

    def _parts(self) -> Iterator[Part]:
        while self._stop.found is None:
            match self._state:
                case _State.BEGINNING:
                    if not self._begin():
                        return
                case _State.THOUGHT:
                    text, mark = self._until(self._marks.answer, *self._call_marks())
                    if text:
                        yield Thought(text)
                    if mark is None:
                        return
                    self._skips_blanks = True
                    self._state = _State.TEXT
                    if mark == self._marks.call:
                        self._begin_call()
                case _State.TEXT:
                    text, mark = self._until(*self._call_marks())
                    yield from self._say(text)
                    if mark is None or self._stop.found is not None:
                        return
                    self._begin_call()
                case _State.CALL:
                    assert self._call is not None
                    text, mark = self._until(self._marks.called)
                    yield from self._call.push(text)
                    if mark is None:
                        return
                    if self._call.in_string:
                        yield from self._call.push(mark)
                        continue
                    yield from self._end_call()
                    self._skips_blanks = True
                    self._state = _State.TEXT

    def _call_marks(self) -> tuple[str, ...]:
        return (self._marks.call,) if self._may_call else ()

    def _begin(self) -> bool:
        """Whether it is known by now if the opening mark is there."""
        text = self._held.lstrip()
        if text.startswith(self._marks.think):
            self._held = text.removeprefix(self._marks.think)
            self._state = _State.THOUGHT
            return True
        if self._marks.think.startswith(text):
            return False
        self._state = _State.THOUGHT if self._thinks else _State.TEXT
        return True

    def _until(self, *marks: str) -> tuple[str, str | None]:
        """The held text up to the first of the marks, which is taken away with it, or all that is certainly none."""
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is not None:
            at, mark = found
            text, self._held = self._held[:at], self._held[at + len(mark) :]
            return text, mark
        certain = len(self._held) - max((_overlap(self._held, mark) for mark in marks), default=0)
        text, self._held = self._held[:certain], self._held[certain:]
        return text, None

    def _say(self, text: str) -> list[Part]:
        if self._skips_blanks:
            text = text.lstrip()
            self._skips_blanks = not text
        said = self._stop.push(text)
        return [Said(said)] if said else []

    def _begin_call(self) -> None:
        self._state = _State.CALL
        self._call = _Call(self.calls)

    def _end_call(self) -> list[Part]:
        assert self._call is not None
        parts = self._call.end()
        self.calls += any(isinstance(part, CallBegun) for part in parts) or self._call.begun
        said = "".join(part.text for part in parts if isinstance(part, Said))
        while any(mark in said for mark in astuple(self._marks)):
            for mark in astuple(self._marks):
                said = said.replace(mark, "")
        return [part for part in parts if not isinstance(part, Said)] + self._say(said)


class _Call:
    """``{"name": …, "arguments": {…}}`` as it grows."""

    _HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)', re.DOTALL)

    def __init__(self, index: int) -> None:
        self.begun = False
        self._index = index
        self._text = ""
        self._given = 0  # characters of it that came out, or never will
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._complete = False

    @property
    def in_string(self) -> bool:
        """Whether what comes next belongs to a string of the JSON, were it a mark."""
        text = self._text.lstrip()
        return text.startswith("{") and re.sub(r"\\.", "", text, flags=re.DOTALL).count('"') % 2 == 1

    def push(self, text: str) -> list[Part]:
        self._text += text
        parts: list[Part] = []
        if not self.begun and (head := self._HEAD.match(self._text)):
            self.begun = True
            self._given = head.end()
            parts.append(CallBegun(self._index, json.loads(head[1])))
        if self.begun and (arguments := self._next_arguments()):
            parts.append(CallArguments(self._index, arguments))
        return parts

    def end(self) -> list[Part]:
        """What it is after all: a call in another order of its keys, or, if it is none, text."""
        if self.begun:
            return []
        try:
            call = json.loads(self._text)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, TypeError, KeyError, RecursionError):
            return [Said(self._text.strip())]
        if not isinstance(name, str):
            return [Said(self._text.strip())]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [CallBegun(self._index, name), CallArguments(self._index, text)]

    def _next_arguments(self) -> str:
        """The characters of the object that are new."""
        first = at = self._given
        while at < len(self._text) and not self._complete:
            character = self._text[at]
            at += 1
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                self._complete = self._depth == 0
        self._given = at if not self._complete else len(self._text)
        return self._text[first:at]


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``mark``."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
