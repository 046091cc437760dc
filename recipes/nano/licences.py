"""A manifest -> the tables of `kimi_vl/nano/LICENCES.md`, between the marks in it; the prose is left alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes.nano.manifest import ExampleTable, Manifest, Package

PLACE = Path(__file__).resolve().parents[2] / "kimi_vl" / "nano" / "LICENCES.md"
_MARKED = re.compile(r"(<!-- (\w+) of recipes/nano/manifest\.json -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(text: str, manifest: Manifest) -> str:
    """The text with its tables as the manifest has them.

    Raises: ``ValueError`` where a package is in no table, or a mark names none that there is.
    """
    tables = {room: _rows(rows) for room, rows in _by_room(manifest.packages).items()}
    tables["fonts"] = _fonts(_by_room(manifest.packages)["fonts"])
    tables["tables"] = _example_tables(manifest.tables)
    marks = [match[2] for match in _MARKED.finditer(text)]
    if sorted(marks) != sorted(tables):
        raise ValueError(f"{PLACE.name} has tables of {', '.join(marks)}; the manifest of {', '.join(tables)}")
    return _MARKED.sub(lambda match: f"{match[1]}{''.join(tables[match[2]])}{match[4]}", text)


def _by_room(packages: Sequence[Package]) -> dict[str, list[Package]]:
    found: dict[str, list[Package]] = defaultdict(list)
    for package in packages:
        found[package.room].append(package)
    return found


def _table(header: str, rows: Iterator[str]) -> list[str]:
    return [f"| {header} |\n", f"|{'---|' * (header.count('|') + 1)}\n", *(f"| {row} |\n" for row in rows)]


def _rows(packages: Sequence[Package]) -> list[str]:
    rows = (f"{p.name} | {p.registry} | {p.version} | {p.licence} | {p.use} | {p.purpose}" for p in packages)
    return _table("package | from | version | licence | use | for", rows)


def _fonts(packages: Sequence[Package]) -> list[str]:
    """Families of one version, licence and use in one row: there are too many for a row each."""
    alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for package in packages:
        alike[package.version, package.licence, package.use].append(package.name.split("/")[1])
    rows = (f"{', '.join(sorted(names))} | {' | '.join(key)}" for key, names in alike.items())
    return _table("families | version | licence | use", rows)


def _example_tables(tables: Sequence[ExampleTable]) -> list[str]:
    return _table("table | terms | use", (f"{table.file} | {table.terms} | {table.use}" for table in tables))
