"""MMMU's rule for answers without options: all that might be the answer, and whether one of it is."""

from __future__ import annotations

import re
from collections.abc import Iterable

Value = float | str

# The answer is split after it is made lower case, so that its sentences stay together.
_LINES = re.compile(r"\.\s(?=[A-Z])|\n")
_BEFORE_ANSWERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_LAST_TOO = "="
_EMPTY = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def candidates(answer: str) -> set[Value]:
    """Numbers, rounded to two digits, and pieces of text in lower case."""
    pieces = _pieces(answer)
    numbers = [number for piece in pieces for form in _NUMBERS for number in form.findall(piece)]
    return {value for text in (*pieces, *numbers) for value in normalised(text)}


def _pieces(answer: str) -> list[str]:
    whole = answer.strip().strip(".").lower()
    lines = _LINES.split(whole)
    found = []
    for number, line in enumerate(lines, 1):
        before = (*_BEFORE_ANSWERS, _LAST_TOO) if number == len(lines) else _BEFORE_ANSWERS
        tails = [line.rsplit(words, 1)[1].strip() for words in before if words in line]
        # One that is empty gives way to the next, longer or not.
        shortest = None
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _EMPTY:
            found.append(shortest)
    return found or [whole]


def normalised(text: str) -> list[Value]:
    """A number to two digits; a lone character with a blank on either side, so that it is not found in any word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def is_right(found: Iterable[Value], wanted: str | list[str]) -> bool:
    """A number that is wanted, or a text in which one stands that is."""
    golds = [value for one in ([wanted] if isinstance(wanted, str) else wanted) for value in normalised(one)]
    words = [gold for gold in golds if isinstance(gold, str)]
    return any(any(word in one for word in words) if isinstance(one, str) else one in golds for one in found)
