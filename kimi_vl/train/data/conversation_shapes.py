"""The lines of a user's JSONL file -> conversations, whichever of the usual shapes they are written in.

In: a file, whose folder its pictures' paths start from. Out: lines, and messages of :mod:`kimi_vl.chat`, whose
pictures are paths or data URLs. Opens no picture and knows no tokens.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": …}]}, …]}
    {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, …]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from kimi_vl.chat import FilePart, Message, Part, PicturePart, Role, TextPart, parse_messages

_SPEAKERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_SHOWN = 20  # faults
# A mark stands on a line of its own, which is gone with it: a question asked later has no such line either.
_MARK = re.compile(r"(?:\r?\n)?<image>(?:\r?\n)?")
# Beside a conversation, or as marks in it. A model that sees pictures would learn what it cannot see.
_UNSEEN = ("video", "videos", "audio", "audios")
_UNSEEN_MARK = re.compile(r"<(video|audio)>")
_CALLS = ("tool_calls", "function_call")


def lines_of(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Each line behind its number, from 1, and the byte where it begins. Raises ``ValueError`` if there is no file."""
    if not path.is_file():
        raise ValueError(f"{path}: {'is no file' if path.exists() else 'no such file'}: give a file of JSON lines")
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not offset and line.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
                    raise ValueError(f"{path}: is one JSON list: write each of its samples on a line of its own")
                yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


class Faults:
    """Those of a file, of which the first are shown."""

    def __init__(self, path: Path) -> None:
        self.path, self.shown, self.count = path, list[str](), 0

    def add(self, line: int, error: ValueError) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(f"{self.path}:{line}: {error}")

    def tell(self) -> None:
        """Raises them as one ``ValueError``, if there are any."""
        if self.count:
            more = [f"and {self.count - _SHOWN} more"] if self.count > _SHOWN else []
            raise ValueError("\n".join([*self.shown, *more]))


def conversation_of(line: bytes, folder: Path) -> list[Message]:
    """A conversation with at least one answer.

    Pictures that stand in ``image`` or ``images``, beside either shape, take the places of the ``<image>`` marks, in
    their order; what the assistant says holds no marks. Raises ``ValueError`` that says what is wrong, and where in
    the line.
    """
    raw = _mapping_of(line)
    shapes = [name for name in ("messages", "conversations") if raw.get(name) is not None]
    if len(shapes) != 1:
        raise ValueError(f"has {'both messages and' if shapes else 'neither messages nor'} conversations: give one")
    said = raw[shapes[0]]
    messages = _said_in_messages(said) if shapes == ["messages"] else _said_by_speakers(said)
    _check_seen(raw, messages)
    if raw.get("system"):
        if messages and messages[0].role == "system":
            raise ValueError(f"has system, and {shapes[0]} begin with another: give one of them")
        if not isinstance(raw["system"], str):
            raise ValueError(f"system must be text, not {type(raw['system']).__name__}")
        messages = [Message("system", (TextPart(raw["system"]),)), *messages]
    pictures = _beside(raw)
    if pictures or shapes == ["conversations"]:
        messages = _marks_filled(messages, pictures)
    if not any(map(answers, messages)):
        raise ValueError("has no answer: at least one turn of the assistant must hold text")
    return [replace(message, parts=tuple(_placed(part, folder) for part in message.parts)) for message in messages]


def _check_seen(raw: Mapping[str, Any], messages: list[Message]) -> None:
    """Raises ``ValueError`` for what is no picture."""
    unseen = next((name for name in _UNSEEN if raw.get(name)), None)
    asked = (part.text for m in messages if m.role == "user" for part in m.parts if isinstance(part, TextPart))
    if unseen is None and (mark := next(filter(None, map(_UNSEEN_MARK.search, asked)), None)):
        unseen = mark[0]
    if unseen is not None:
        raise ValueError(f"has {unseen}, but only pictures are learnt from: give a video as frames, one picture each")


def answers(message: Message) -> bool:
    """Whether the assistant says something there."""
    said = (part.text for part in message.parts if isinstance(part, TextPart))
    return message.role == "assistant" and any(text.strip() for text in said)


def _mapping_of(line: bytes) -> Mapping[str, Any]:
    try:
        raw = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("is not JSON that can be read: it is nested too deep") from None
    if not isinstance(raw, Mapping):
        raise ValueError(f"must hold a mapping, one sample a line, not {type(raw).__name__}")
    return raw


def _said_in_messages(raw: Any) -> list[Message]:
    messages = parse_messages(raw)
    for number, message in enumerate(raw):
        called = [name for name in _CALLS if message.get(name)]
        if called:
            raise ValueError(f"messages[{number}].{called[0]} cannot be learnt: write as text what shall be said")
    return messages


def _said_by_speakers(raw: Any) -> list[Message]:
    if not isinstance(raw, list) or not raw:
        raise ValueError("conversations must be a list of turns, at least one")
    messages = []
    for number, turn in enumerate(raw):
        where = f"conversations[{number}]"
        if not isinstance(turn, Mapping):
            raise ValueError(f"{where} must be a mapping with from and value, not {type(turn).__name__}")
        speaker, value = turn.get("from"), turn.get("value")
        if not isinstance(speaker, str) or speaker not in _SPEAKERS:
            raise ValueError(f"{where}.from is {speaker!r}, allowed are {', '.join(_SPEAKERS)}")
        if not isinstance(value, str):
            raise ValueError(f"{where}.value must be text, not {type(value).__name__}")
        messages.append(Message(_SPEAKERS[speaker], (TextPart(value),) if value else ()))
    return messages


def _beside(raw: Mapping[str, Any]) -> list[str]:
    """The pictures that stand beside the conversation."""
    given = {name: raw[name] for name in ("image", "images") if raw.get(name)}
    if len(given) > 1:
        raise ValueError("has both image and images: give one of them")
    for name, value in given.items():
        pictures = [value] if isinstance(value, str) else value
        if not isinstance(pictures, list) or not all(isinstance(each, str) and each for each in pictures):
            raise ValueError(f"{name} must be a path or data URL, or a list of them")
        return pictures
    return []


def _marks_filled(messages: list[Message], pictures: list[str]) -> list[Message]:
    left = iter(pictures)
    marks = 0

    def filled(part: Part) -> Iterator[Part]:
        nonlocal marks
        if not isinstance(part, TextPart):
            yield part
            return
        for number, text in enumerate(_MARK.split(part.text)):
            if number:
                marks += 1
                yield PicturePart(next(left, ""))
            if text:
                yield TextPart(text)

    new = [
        message
        if message.role == "assistant"
        else replace(message, parts=tuple(chain.from_iterable(map(filled, message.parts))))
        for message in messages
    ]
    if marks != len(pictures):
        raise ValueError(f"has {marks} <image> marks for {len(pictures)} pictures: give one mark for each")
    return new


def _placed(part: Part, folder: Path) -> Part:
    """A part whose path starts from ``folder``."""
    if isinstance(part, FilePart):
        raise ValueError("holds a file, but only pictures are learnt from: give its pages as pictures")
    if isinstance(part, TextPart):
        return part
    source = part.source
    if isinstance(source, str):
        if re.match(r"\s*[a-z][a-z0-9+.-]*://", source, re.IGNORECASE):
            raise ValueError(f"{source[:60]!r} is not fetched: download the picture first and give its path")
        if re.match(r"\s*data:", source, re.IGNORECASE):
            return part
    assert isinstance(source, (str, Path))
    return replace(part, source=folder / source)
