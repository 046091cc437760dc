"""Pictures of screens with what is to be seen on them, as capture.py stored them.

Comes in: `.data/nano/screens/<group>.zip`. Goes out: `Screen` records and their pictures (RGB).
Knows nothing of browsers or of questions.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from recipes.nano.packages import DATA

SCREENS = DATA / "screens"
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class Line:
    """One visible line of text; `text` is "" where it is cut, covered or not in our characters."""

    block: int
    box: Box
    text: str


@dataclass(frozen=True)
class Element:
    """Something that can be pointed at.

    `value` is what a field holds or the keys of a menu item, `on` says whether it is ticked or chosen. Only a `clear`
    one is wholly visible, on one line and named in our characters; the others are kept so that nobody takes their
    name for one that is not there.
    """

    role: str
    name: str
    value: str
    on: bool | None
    box: Box
    clear: bool


@dataclass(frozen=True)
class Screen:
    """What one picture shows; lines and elements in the order of the document."""

    group: str
    number: int
    size: tuple[int, int]
    source: str
    lines: tuple[Line, ...]
    elements: tuple[Element, ...]

    def picture(self) -> Image.Image:
        """The picture (RGB)."""
        return _picture(self.group, self.number)


def screen_from(record: dict[str, Any], group: str, number: int) -> Screen:
    """One record of capture.py's."""
    return Screen(
        group,
        number,
        (record["size"][0], record["size"][1]),
        record["source"],
        tuple(Line(block, (x0, y0, x1, y1), text) for block, x0, y0, x1, y1, text in record["lines"]),
        tuple(
            Element(role, name, value, None if on is None else bool(on), (x0, y0, x1, y1), bool(clear))
            for role, name, value, on, x0, y0, x1, y1, clear in record["elements"]
        ),
    )


def write(path: Path, records: Sequence[dict[str, Any]], pictures: Sequence[bytes]) -> None:
    """One file for a whole group. The pictures are packed already: only the records are deflated."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        text = json.dumps(records, ensure_ascii=False, separators=(",", ":"))
        archive.writestr("screens.json", text, zipfile.ZIP_DEFLATED, compresslevel=9)
        for number, packed in enumerate(pictures):
            archive.writestr(str(number), packed)
    part.rename(path)


@cache
def screens(group: str) -> tuple[Screen, ...]:
    """All screens of a group."""
    records = json.loads(_archive(group).read("screens.json"))
    return tuple(screen_from(record, group, number) for number, record in enumerate(records))


@cache
def _archive(group: str) -> zipfile.ZipFile:
    path = SCREENS / f"{group}.zip"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: run python -m recipes.nano.screens.capture")
    # From memory: processes that are forked later would share an open file's place.
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


@lru_cache(maxsize=128)
def _picture(group: str, number: int) -> Image.Image:
    return Image.open(io.BytesIO(_archive(group).read(str(number)))).convert("RGB")
