"""A run's folder: what was asked of whom, and one line for each item, so that a run that ends early can go on.

``settings.json`` is written once and held against whoever goes on; ``items.jsonl`` grows line by line and is put in the
order of the items when all are there. A last line that was cut by a kill is taken off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

_SETTINGS, _ITEMS = "settings.json", "items.jsonl"


@dataclass(frozen=True)
class Settings:
    """All that a score depends on. ``data`` is the SHA-256 of what was read of the items.

    ``thinking`` is whether answers had to begin with a thought, or must not, or, without either, as they came.
    """

    task: str
    way: str
    model: str
    endpoint: str | None
    count: int
    of: int
    seed: int
    temperature: float
    max_new_tokens: int
    data: str
    versions: dict[str, str]
    thinking: bool | None = None
    thinking_budget: int | None = None

    @property
    def thought(self) -> str:
        """What was asked for before an answer."""
        if self.thinking is None:
            return "as it comes"
        bound = "" if self.thinking_budget is None else f" of at most {self.thinking_budget} tokens"
        return f"a thought first{bound}" if self.thinking else "no thought"


@dataclass(frozen=True)
class Record:
    """One item. ``prompt`` and ``pictures`` are SHA-256 sums; ``refused`` is why it could not be asked."""

    number: int
    id: str
    prompt: str
    pictures: tuple[str, ...]
    raw: str
    read: str | None
    score: float
    fixed: float
    by_lot: bool
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    refused: str | None = None

    @classmethod
    def of(cls, line: dict[str, Any]) -> Record:
        return cls(**{**line, "pictures": tuple(line["pictures"])})


def settings_of(folder: Path) -> Settings | None:
    path = folder / _SETTINGS
    return Settings(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def records_of(folder: Path) -> list[Record]:
    """All whole lines, by their numbers."""
    path = folder / _ITEMS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return sorted((Record.of(json.loads(line)) for line in lines), key=lambda record: record.number)


def begin(folder: Path, settings: Settings) -> list[Record]:
    """What is there of such a run. Raises: ``ValueError`` if the folder is of another."""
    before = settings_of(folder)
    if before is None:
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} has files in it, but no run of an evaluation: give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / _SETTINGS, json.dumps(asdict(settings), indent=1) + "\n")
        return []
    now, then = asdict(settings), asdict(before)
    if other := [name for name in now if now[name] != then[name]]:
        told = ", ".join(f"{name} {then[name]!r}, not {now[name]!r}" for name in other)
        raise ValueError(f"{folder} is a run with {told}: give another folder, or ask for the same")
    _cut_last_line(folder / _ITEMS)
    return records_of(folder)


@contextmanager
def appending(folder: Path) -> Iterator[TextIO]:
    with (folder / _ITEMS).open("a", encoding="utf-8") as stream:
        yield stream


def append(stream: TextIO, record: Record) -> None:
    """On the disk before the next is asked."""
    stream.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
    stream.flush()
    os.fsync(stream.fileno())


def put_in_order(folder: Path, records: Sequence[Record]) -> None:
    ordered = sorted(records, key=lambda record: record.number)
    _replace(folder / _ITEMS, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in ordered))


def _cut_last_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as stream:
        whole = stream.read()
        stream.truncate(whole.rfind(b"\n") + 1)


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
