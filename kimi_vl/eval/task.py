"""What a benchmark is: its items, how each is asked, how an answer is marked, and what all marks come to.

Each file of :mod:`kimi_vl.eval.tasks` makes one of these. Harnesses ask and mark the same items in ways of their own;
the first way of a task is the official one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Generic, Protocol, TypeVar

from kimi_vl.chat import Message, Part, PicturePart, PictureSource, TextPart


class Item(Protocol):
    """One question. ``id`` is unique in its task and the same in every run."""

    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth.

    ``score`` is from 0 to 1 by the rule of the way; ``read`` is what of the answer counted, None if nothing was found.
    ``by_lot`` is an answer that the rule drew, as nothing was found. ``fixed`` is the score without the rule's faults.
    """

    score: float
    read: str | None
    by_lot: bool = False
    fixed: float | None = None

    @property
    def without_faults(self) -> float:
        return self.score if self.fixed is None else self.fixed


@dataclass(frozen=True)
class Marked(Generic[I]):
    item: I
    verdict: Verdict


def mean(marked: Sequence[Marked[I]]) -> float:
    """Of all items alike (micro)."""
    return sum(one.verdict.score for one in marked) / len(marked) if marked else 0.0


def macro(marked: Sequence[Marked[I]], part: Callable[[I], str]) -> float:
    """The mean of the means of all parts, however many items each has."""
    parts: dict[str, list[Marked[I]]] = defaultdict(list)
    for one in marked:
        parts[part(one.item)].append(one)
    return sum(map(mean, parts.values())) / len(parts) if parts else 0.0


@dataclass(frozen=True)
class Way(Generic[I]):
    """How one harness asks and marks.

    ``mark`` gets an answer without its thought, and what to draw lots with. ``total`` is the figure that is quoted.
    ``more`` are others that are quoted beside it, by their names. ``begun`` is the beginning of the answer, which the
    model goes on from.
    """

    ask: Callable[[I], tuple[Message, ...]]
    mark: Callable[[I, str, Random], Verdict]
    total: Callable[[Sequence[Marked[I]]], float] = mean
    more: Mapping[str, Callable[[Sequence[Marked[I]]], float]] = field(default_factory=dict)
    max_new_tokens: int = 1024
    begun: str = ""


@dataclass(frozen=True)
class Peer(Generic[I]):
    """Who else answers the same items and is marked alike: another program, or a rule that looks at no picture.

    ``version`` is None where it is not installed, and empty where it has none.
    """

    answer: Callable[[I], str]
    version: Callable[[], str | None] = lambda: ""


@dataclass(frozen=True)
class Source:
    """Where the data is: a dataset of the hub, at a revision, and which of its files are needed."""

    repo: str
    files: tuple[str, ...]
    revision: str | None = None


@dataclass(frozen=True)
class Task(Generic[I]):
    """``load`` reads a folder in the official format and order, and raises ``ValueError`` for what is not.

    ``wanted`` is the right answer as a person would read it. Items that ``together`` gives one name to are drawn
    together or not at all, as the rotations of one question. ``published`` are SHA-256 sums of
    files, as far as they are known. ``peers`` stand beside every model in its table.
    """

    name: str
    about: str
    load: Callable[[Path], Sequence[I]]
    ways: Mapping[str, Way[I]]
    wanted: Callable[[I], str]
    groups: Callable[[I], Sequence[str]] = lambda item: ()
    together: Callable[[I], str] = lambda item: item.id
    source: Source | Path | None = None
    published: Mapping[str, str] = field(default_factory=dict)
    peers: Mapping[str, Peer[I]] = field(default_factory=dict)


# ---- questions ----


def user(*parts: str | PictureSource | Part) -> Message:
    """One turn; a plain ``str`` is text, whatever it holds."""
    return Message("user", tuple(map(_part, parts)))


def system(text: str) -> Message:
    return Message("system", (TextPart(text),))


def _part(part: str | PictureSource | Part) -> Part:
    if isinstance(part, str):
        return TextPart(part)
    return part if isinstance(part, Part) else PicturePart(part)


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options by their letters, from A."""
    return {chr(ord("A") + place): option for place, option in enumerate(options)}
