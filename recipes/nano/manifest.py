"""What the fetch downloaded, and what it made of that: `manifest.json`, by version, licence, size, hash and count.

    python -m recipes.nano.manifest           writes manifest.json and the tables of LICENCES.md, from the full set
    python -m recipes.nano.manifest --check   says what in the data folder differs from it, with exit code 1

A hash of a folder is that of its files' relative paths and bytes, in the order of the paths, and of where its links
point; PACKAGE.json, which is ours, is left out. So it is that of the package, wherever it was unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from recipes.nano import books, chats, fonts, licences, pictures
from recipes.nano.figures import numbers
from recipes.nano.figures.known_tables import HELDOUT_TABLES, TRAINING_TABLES
from recipes.nano.packages import DATA, DESCRIPTION, folder, is_whole, version
from recipes.nano.raster import CLIPART
from recipes.nano.roster import DECLARED, SPDX, Entry, Use, roster
from recipes.nano.screens import icon_styles, icons
from recipes.nano.sets import FULL, DataSet, here

PLACE = Path(__file__).with_name("manifest.json")


@dataclass(frozen=True)
class Package:
    """One package as it was downloaded."""

    registry: str
    name: str
    version: str
    licence: str
    room: str
    purpose: str
    use: Use
    bytes: int
    sha256: str
    made: Mapping[str, int]
    """How many of each kind were made of it; paragraphs that other books have too are counted in each."""


@dataclass(frozen=True)
class ExampleTable:
    """One table of the package of example data, which has terms of its own, as the package states them."""

    file: str
    terms: str
    use: Use


@dataclass(frozen=True)
class Made:
    """One file or folder that the sources draw from."""

    path: str
    holds: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything of a set."""

    packages: tuple[Package, ...]
    tables: tuple[ExampleTable, ...]
    made: tuple[Made, ...]


def read(path: Path = PLACE) -> Manifest:
    """The manifest that was written."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Manifest(
        tuple(Package(**row) for row in raw["packages"]),
        tuple(ExampleTable(**row) for row in raw["tables"]),
        tuple(Made(**row) for row in raw["made"]),
    )


def write(manifest: Manifest, path: Path = PLACE) -> None:
    """As JSON of one row a line, so that a change of one package is a change of one line."""
    parts = []
    for name, rows in vars(manifest).items():
        lines = ",\n".join(f"  {json.dumps(asdict(row), ensure_ascii=False)}" for row in rows)
        parts.append(f' "{name}": [\n{lines}\n ]')
    part = path.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    part.rename(path)


# What there is ------------------------------------------------------------------------------------------


def measured(of: DataSet) -> Manifest:
    """All of a set that was fetched to its end.

    Raises: ``FileNotFoundError`` for what is not there, ``ValueError`` for a package without a licence.
    """
    return Manifest(
        tuple(_package(entry) for entry in roster(of)),
        tuple(_tables()),
        tuple(_made(path, holds) for path, holds in _things(of)),
    )


def content(place: Path) -> tuple[int, str]:
    """The bytes of a file, or of all files of a folder, and their hash."""
    if place.is_file():
        data = place.read_bytes()
        return len(data), hashlib.sha256(data).hexdigest()
    total, digest = 0, hashlib.sha256()
    inside = {path.relative_to(place).as_posix(): path for path in place.rglob("*")}
    for name, path in sorted(inside.items()):
        if path.is_symlink():
            kind, data = "link", path.readlink().as_posix().encode()
        elif path.is_file() and name != DESCRIPTION:
            kind, data = "file", path.read_bytes()
            total += len(data)
        else:
            continue
        # With its length before it, no content can pass for the end of itself and the name of another file.
        digest.update(f"{kind} {len(data)} {name}\0".encode())
        digest.update(data)
    return total, digest.hexdigest()


def licence(entry: Entry) -> str:
    """What a package's own description says, by its SPDX name; what is declared for it where it says nothing.

    Raises: ``ValueError`` where neither does.
    """
    said = ""
    if entry.registry == "npm":
        described = json.loads((folder("npm", entry.name) / "package.json").read_text(encoding="utf-8"))
        match described:
            case {"license": str(said)} | {"license": {"type": str(said)}} | {"licenses": [{"type": str(said)}]}:
                pass
    if not (said or entry.name in DECLARED):
        raise ValueError(f"{entry.name} does not say its licence: read it and put it into DECLARED in roster.py")
    return SPDX.get(said, said) or DECLARED[entry.name]


def _package(entry: Entry) -> Package:
    place = folder(entry.registry, entry.name)
    if not is_whole(place):
        raise FileNotFoundError(f"no {entry.name} in {place.parent}: run python -m recipes.nano.fetch")
    size, digest = content(place)
    found = version(entry.registry, entry.name)
    made = {kind: count for kind, count in _counts(entry).items() if count}
    return Package(
        entry.registry, entry.name, found, licence(entry), entry.room, entry.purpose, entry.use, size, digest, made
    )


def _counts(entry: Entry) -> dict[str, int]:
    """How many things were made of a package."""
    name = entry.name
    if entry.room == "fonts":
        family = name.removeprefix(fonts.package(""))
        return {"font files": len(list((DATA / "fonts").glob(f"{family}_*.ttf")))}
    if entry.room == "text":
        found = {"paragraphs": len(set(books.paragraphs(name, with_code=entry.use != "held out")))}
        words = _count(DATA / "chats/words.json") if name == books.WORDNET else 0
        return found | {"words": words, "screens": _screens_of()[name]}
    if entry.room == "pictures":
        if name == pictures.LABELS:
            return {"names": len(pictures.concepts())}
        style = CLIPART if name == pictures.CLIPART else name.removeprefix(pictures.package(""))
        return {"pictures": _count(DATA / f"emoji/{style}.npy")}
    if entry.room == "icons":
        style = icon_styles.HELDOUT_STYLE if name == icons.BREEZE else name.removeprefix(pictures.package(""))
        return {"icons": _count(DATA / f"emoji/{style}.npy")}
    countries = _count(DATA / "chats/countries.json") if name == chats.COUNTRIES else 0
    return {"countries": countries, "tables": _count(DATA / "numbers") if name == numbers.PACKAGE else 0}


@cache
def _screens_of() -> Counter[str]:
    """How many screens show pages of each book."""
    archives = sorted((DATA / "screens").glob("*.zip"))
    return Counter(record["source"].split("/")[0] for path in archives for record in _records(path))


def _records(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        found: list[dict[str, Any]] = json.loads(archive.read("screens.json"))
    return found


def _tables() -> Iterator[ExampleTable]:
    description = json.loads((folder("npm", numbers.PACKAGE) / "datapackage.json").read_text(encoding="utf-8"))
    terms = {resource["path"]: resource.get("licenses") or () for resource in description["resources"]}
    for use, tables in (("training", TRAINING_TABLES), ("held out", HELDOUT_TABLES)):
        for table in tables:
            said = [of.get("title") or of.get("name") or of["path"] for of in terms[table.file]]
            yield ExampleTable(table.file, "; ".join(said) or "not stated", use)  # type: ignore[arg-type]


def _things(of: DataSet) -> Iterator[tuple[str, str]]:
    """What the sources draw from, and what it holds."""
    yield from ((f"text/{split}.txt", "paragraphs") for split in ("train", "heldout"))
    yield "fonts", "files"
    emoji = (*of.styles, pictures.HELDOUT_STYLE, *([CLIPART] if of.clipart else []))
    for style in (*emoji, icons.LUCIDE, *of.icon_styles, icon_styles.HELDOUT_STYLE):
        yield from ((f"emoji/{style}.npy", "pictures"), (f"emoji/{style}.json", "names"))
    yield "numbers", "tables"
    yield from ((f"chats/{name}.json", name) for name in ("countries", "words"))
    yield from ((f"screens/{group}.zip", "screens") for group in of.screens)


def _made(path: str, holds: str) -> Made:
    if not (DATA / path).exists():
        raise FileNotFoundError(f"no {path} in {DATA}: run python -m recipes.nano.fetch")
    size, digest = content(DATA / path)
    return Made(path, holds, _count(DATA / path), size, digest)


def _count(path: Path) -> int:
    counts: dict[str, Callable[[], int]] = {
        ".txt": lambda: path.read_text(encoding="utf-8").count("\n"),
        ".npy": lambda: len(np.load(path, mmap_mode="r")),
        ".json": lambda: len(json.loads(path.read_text(encoding="utf-8"))),
        ".zip": lambda: len(_records(path)),
        "": lambda: len(list(path.iterdir())),
    }
    return counts[path.suffix]()


# What differs -------------------------------------------------------------------------------------------


def undeclared(of: DataSet) -> list[str]:
    """Packages that were fetched under a licence that nobody wrote down: in no roster, or in no row of the manifest."""
    known = {(entry.registry, entry.name) for entry in roster(of)}
    rows = {(row.registry, row.name) for row in read().packages}
    found = []
    for path in sorted((DATA / "packages").glob(f"*/*/{DESCRIPTION}")):
        key = (path.parts[-3], str(json.loads(path.read_text(encoding="utf-8"))["name"]))
        if key not in known:
            found.append(f"{' '.join(key)} was fetched, but stands in no roster: add it to roster.py with its licence")
        elif key not in rows:
            found.append(f"{' '.join(key)} has no row in {PLACE.name}: run python -m recipes.nano.manifest")
    return found


def differences(of: DataSet, *, whole: bool = True) -> list[str]:
    """One sentence for each package, and in the full set for each made thing, that is not as the manifest has it.

    What is not there is told only where the ``whole`` set should be. Made things depend on the versions of the tools
    that draw them: other bytes of theirs mean other pictures, not necessarily another package.
    """
    written = read()
    rows = {(row.registry, row.name): row for row in written.packages}
    found = []
    for entry in roster(of):
        row, place = rows.get((entry.registry, entry.name)), folder(entry.registry, entry.name)
        it = f"{entry.registry} {entry.name}"
        if not is_whole(place):
            found += [f"{it} is not here"] if whole else []
        elif row is None:
            found.append(f"{it} has no row in {PLACE.name}")
        elif (here_is := version(entry.registry, entry.name)) != row.version:
            found.append(f"{it} is {here_is} here, {row.version} in {PLACE.name}")
        elif content(place)[1] != row.sha256:
            found.append(f"{it} {row.version} has other bytes than in {PLACE.name}")
    for made in written.made if of is FULL else ():
        path = DATA / made.path
        if not path.exists():
            found += [f"{made.path} is not here"] if whole else []
        elif (count := _count(path)) != made.count:
            found.append(f"{made.path} has {count} {made.holds} here, {made.count} in {PLACE.name}")
        elif content(path)[1] != made.sha256:
            found.append(f"{made.path} has its {count} {made.holds}, but other bytes than in {PLACE.name}")
    return found


def tell(*, whole: bool) -> None:
    """At the end of a fetch: warn of what differs, since registries move on, and end where a licence is unknown.

    Raises: ``SystemExit`` with the packages that no row tells of.
    """
    if faults := undeclared(here()):
        raise SystemExit("\n".join(faults))
    for sentence in differences(here(), whole=whole):
        print(f"warning: {sentence}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where anything differs")
    args = parser.parse_args()
    if args.check:
        found = [*undeclared(here()), *differences(here())]
        print("\n".join(found) or f"all of the {here().name} set is as {PLACE.name} has it")
        sys.exit(bool(found))
    if here() is not FULL:
        parser.error(f"{DATA} holds the {here().name} set: the manifest is written from the full one")
    manifest = measured(FULL)
    write(manifest)
    licences.PLACE.write_text(licences.filled(licences.PLACE.read_text(encoding="utf-8"), manifest), encoding="utf-8")
    print(f"{len(manifest.packages)} packages, {sum(row.bytes for row in manifest.packages) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
