"""A benchmark's files, as its authors publish them → rows, checked, with pictures that are opened when they are asked.

Raises ``ValueError`` that names the file, the row and what is missing.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


def found(folder: Path, *names: str) -> Path:
    """The first of these files that is there."""
    for name in names:
        if (path := folder / name).is_file():
            return path
    raise ValueError(f"{folder} has no {' or '.join(names)}: it is not this benchmark in its official format")


def check_published(folder: Path, sums: Mapping[str, str]) -> None:
    """That those of these files that are there have these SHA-256 sums."""
    for name, wanted in sums.items():
        path = folder / name
        if path.is_file() and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != wanted:
            raise ValueError(
                f"{path} is not the published file, or of another version (SHA-256 {found[:12]}…, not {wanted[:12]}…): "
                "get that one, or take yours as it is with --any-version"
            )


def tables(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first of these patterns that has some, in the order of their names."""
    for pattern in patterns:
        if paths := sorted(folder.glob(pattern)):
            return paths
    raise ValueError(f"{folder} has no {' or '.join(patterns)}: it is not this benchmark in its official format")


def jsonl(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        rows.append(with_columns(row, columns, f"{path}, line {number}"))
    return rows


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def json_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of one list, and what each is called in messages."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be a list of rows, not {type(rows).__name__}")
    named = ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    return [(where, with_columns(row, columns, where)) for where, row in named]


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error


def with_columns(row: Any, columns: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row must be an object, not {type(row).__name__}")
    if missing := [column for column in columns if column not in row]:
        raise ValueError(f"{where}: {', '.join(missing)} missing; there are {', '.join(map(str, row))}")
    return row


def tsv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """VLMEvalKit's tables; an empty cell is an empty string."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    for number, row in enumerate(rows, 2):
        with_columns(row, columns, f"{path}, row {number}")
        if None in row or None in row.values():
            raise ValueError(f"{path}, row {number}: it has more or fewer cells than the head; is the file whole?")
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def checked_count(rows: Sequence[Any], wanted: int, what: str) -> None:
    if len(rows) != wanted:
        raise ValueError(f"{what} has {len(rows)} items, and the benchmark {wanted}: it is not whole, or of another")


def checked_unique(names: Iterable[str], what: str) -> None:
    name, times = max(Counter(names).items(), key=lambda counted: counted[1], default=("", 1))
    if times > 1:
        raise ValueError(f"{what} has {name!r} {times} times, and must have it once: get its data anew")


def listed(text: str, where: str) -> list[str]:
    """A Python list that stands in a string."""
    try:
        read = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{where}: {text[:80]!r} is no list") from error
    if not isinstance(read, list):
        raise ValueError(f"{where}: {text[:80]!r} is no list")
    return [str(one) for one in read]


def picture(folder: Path, name: str, where: str) -> Path:
    return beside(folder, name, where, "picture")


def beside(folder: Path, name: str, where: str, what: str, *, way_out: str = "") -> Path:
    """A file that a row names."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{where}: there is no {what} {path}" + (f": {way_out}" if way_out else ""))
    return path


def decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: a picture is not base64: {error}") from error


class Parquet:
    """The hub's tables, a file or several. Cells with pictures are read when they are asked for."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile

        self._files = []
        for path in paths:
            try:
                self._files.append(ParquetFile(path))
            except (ArrowInvalid, OSError) as error:
                raise ValueError(f"{path}: {error}") from error
            names = self._files[-1].schema_arrow.names
            if missing := [column for column in columns if column not in names]:
                raise ValueError(f"{path}: {', '.join(missing)} missing; there are {', '.join(names)}")
        self._group = lru_cache(maxsize=4)(self._read_group)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[tuple[int, int, int], Mapping[str, Any]]]:
        """Each row's place, by which its pictures are found, and these cells of it."""
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                for place, row in enumerate(file.read_row_group(group, columns=list(columns)).to_pylist()):
                    yield (number, group, place), row

    def picture(self, place: tuple[int, int, int], column: str) -> bytes | None:
        number, group, row = place
        cell = self._group(number, group, column)[row].as_py()
        return None if cell is None else cell["bytes"]

    def _read_group(self, number: int, group: int, column: str) -> Any:
        return self._files[number].read_row_group(group, columns=[column]).column(column)


@dataclass(frozen=True)
class Cell:
    """A picture in a table, which is read when it is shown."""

    table: Parquet
    place: tuple[int, int, int]
    column: str


def presence(columns: Sequence[str]) -> list[str]:
    """What to read of cells with pictures to know which have one: their names, and not their many bytes."""
    return [f"{column}.path" for column in columns]


def cell(table: Parquet, place: tuple[int, int, int], row: Mapping[str, Any], column: str, where: str) -> Cell:
    """One that has a picture, by what :func:`presence` read."""
    if row.get(column) is None:
        raise ValueError(f"{where}: there is no picture in {column}")
    return Cell(table, place, column)


def shown(picture: Path | Cell) -> Path | bytes:
    """As a message takes it."""
    if isinstance(picture, Path):
        return picture
    data = picture.table.picture(picture.place, picture.column)
    if data is None:
        raise ValueError(f"the picture in {picture.column} is not in its table, but a link to a file elsewhere")
    return data
