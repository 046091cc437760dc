"""Nano's manifest: hashes of what was unpacked, licences, LICENCES.md, and what differs from what was written down."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.nano import licences, manifest, packages, roster
from recipes.nano.figures.known_tables import HELDOUT_TABLES, TRAINING_TABLES
from recipes.nano.roster import Entry
from recipes.nano.sets import FULL, SETS, SMALL, DataSet, here
from tests.nano import needs_data

WRITTEN = manifest.read()
TOOL = Entry("npm", "@some/tool", "icons", "icons", "training")
BOOK = Entry("deb", "bash-doc", "text", "text", "held out")


# What is written down -----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", SETS.values(), ids=list(SETS))
def test_every_package_of_a_set_has_one_row_with_a_licence(of: DataSet) -> None:
    rows = {(row.registry, row.name): row for row in WRITTEN.packages}
    entries = roster.roster(of)
    assert len({(entry.registry, entry.name) for entry in entries}) == len(entries)
    for entry in entries:
        row = rows[entry.registry, entry.name]
        assert (row.room, row.purpose, row.use) == (entry.room, entry.purpose, entry.use)
        assert row.version and row.licence and row.bytes > 0 and len(row.sha256) == 64
        assert entry.registry == "npm" or row.licence == roster.DECLARED[entry.name]
    assert of is not FULL or len(rows) == len(WRITTEN.packages) == len(entries)


def test_licences_are_those_of_the_manifest() -> None:
    text = licences.PLACE.read_text(encoding="utf-8")
    assert licences.filled(text, WRITTEN) == text
    for row in WRITTEN.packages:
        cells = row.name.removeprefix("@fontsource/"), row.version, row.licence
        lines = [line for line in text.splitlines() if all(cell in line for cell in cells)]
        assert lines, f"{row.name} {row.version} {row.licence} stands in no line of {licences.PLACE.name}"


@pytest.mark.parametrize(
    "change", [{"version": "99"}, {"licence": "MIT-0"}, {"name": "@fontsource/another"}], ids=lambda c: next(iter(c))
)
@pytest.mark.parametrize("room", ["fonts", "text", "pictures", "facts", "icons"])
def test_licences_tell_of_each_change(change: dict[str, str], room: str) -> None:
    at = next(n for n, row in enumerate(WRITTEN.packages) if row.room == room)
    changed = replace(WRITTEN.packages[at], **change)  # type: ignore[arg-type]
    rows = (*WRITTEN.packages[:at], changed, *WRITTEN.packages[at + 1 :])
    text = licences.PLACE.read_text(encoding="utf-8")
    assert licences.filled(text, replace(WRITTEN, packages=rows)) != text


def test_a_table_that_has_no_place_is_told() -> None:
    with pytest.raises(ValueError, match="the manifest of"):
        licences.filled("# Licences\n", WRITTEN)


def test_the_example_tables_are_those_that_charts_show() -> None:
    listed = {(table.file, table.use) for table in WRITTEN.tables}
    shown = {(table.file, "training") for table in TRAINING_TABLES} | {(t.file, "held out") for t in HELDOUT_TABLES}
    assert listed == shown
    assert all(table.terms for table in WRITTEN.tables)


def test_a_manifest_is_written_as_it_was_read(tmp_path: Path) -> None:
    manifest.write(WRITTEN, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == manifest.PLACE.read_bytes()


# Tiny packages ------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of two packages, and a manifest of them and of one made file."""
    monkeypatch.setattr(packages, "DATA", tmp_path)
    monkeypatch.setattr(manifest, "DATA", tmp_path)
    monkeypatch.setattr(manifest, "roster", lambda of: (TOOL, BOOK))
    monkeypatch.setattr(manifest, "here", lambda: FULL)
    monkeypatch.setattr(manifest, "_counts", lambda entry: {})
    _unpack(TOOL, "1.2.3", {"package.json": '{"license": "ISC"}', "icons/a.svg": "<svg/>"})
    _unpack(BOOK, "5-2", {"usr/bash.html": "<p>words</p>"})
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.txt").write_text("one\ntwo\n")
    rows = tuple(manifest._package(entry) for entry in (TOOL, BOOK))
    written = manifest.Manifest(rows, (), (manifest._made("text/train.txt", "paragraphs"),))
    monkeypatch.setattr(manifest, "read", lambda: written)
    return tmp_path


def _unpack(entry: Entry, version: str, files: dict[str, str]) -> Path:
    place = packages.folder(entry.registry, entry.name)
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / packages.DESCRIPTION).write_text(json.dumps({"name": entry.name, "version": version}))
    return place


def test_a_hash_is_of_paths_and_bytes_wherever_they_lie(tmp_path: Path) -> None:
    def made(name: str, files: dict[str, bytes], links: dict[str, str] | None = None) -> tuple[int, str]:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        for path, target in (links or {}).items():
            (tmp_path / name / path).symlink_to(target)
        return manifest.content(tmp_path / name)

    first = made("first", {"a": b"12", "b/c": b"3"}, {"d": "a"})
    assert first[0] == 3
    assert first == made("again", {"b/c": b"3", "a": b"12", packages.DESCRIPTION: b"{}"}, {"d": "a"})
    others = [
        made("byte", {"a": b"12", "b/c": b"4"}, {"d": "a"}),
        made("name", {"a": b"12", "b/d": b"3"}, {"d": "a"}),
        made("border", {"a": b"1", "b/c": b"23"}, {"d": "a"}),
        made("link", {"a": b"12", "b/c": b"3"}, {"d": "b/c"}),
        made("file", {"a": b"12", "b/c": b"3", "d": b"a"}),
    ]
    assert len({digest for _, digest in (first, *others)}) == 6
    # A content that looks like its own end and another file.
    assert made("two", {"a": b"1", "b": b"2"})[1] != made("one", {"a": b"1file b\x002"})[1]


@pytest.mark.parametrize(
    ("described", "wanted"),
    [
        ('{"license": "ISC"}', "ISC"),
        ('{"license": {"type": "MIT"}}', "MIT"),
        ('{"licenses": [{"type": "ODbL-1.0"}]}', "ODbL-1.0"),
        ('{"license": "UFL-1.0"}', "Ubuntu-font-1.0"),
    ],
)
def test_a_licence_is_read_from_the_package(described: str, wanted: str, data: Path) -> None:
    _unpack(TOOL, "1", {"package.json": described})
    assert manifest.licence(TOOL) == wanted


def test_a_package_that_is_silent_must_be_declared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifest.licence(BOOK) == "GFDL-1.3-no-invariants-or-later"
    _unpack(TOOL, "1", {"package.json": "{}"})
    with pytest.raises(ValueError, match="@some/tool does not say its licence"):
        manifest.licence(TOOL)
    with pytest.raises(ValueError, match="another does not say its licence"):
        manifest.licence(replace(BOOK, name="another"))


def _checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, list[str]]:
    monkeypatch.setattr(sys, "argv", ["manifest", "--check"])
    with pytest.raises(SystemExit) as ended:
        manifest.main()
    return ended.value.code, capsys.readouterr().out.splitlines()


def test_nothing_differs_from_what_was_written(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _checked(monkeypatch, capsys) == (0, ["all of the full set is as manifest.json has it"])


def test_each_difference_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _unpack(TOOL, "1.3.0", {})
    (packages.folder("deb", "bash-doc") / "usr/bash.html").write_text("<p>other words</p>")
    (data / "text/train.txt").write_text("one\n")
    code, lines = _checked(monkeypatch, capsys)
    assert code == 1
    assert lines == [
        "npm @some/tool is 1.3.0 here, 1.2.3 in manifest.json",
        "deb bash-doc 5-2 has other bytes than in manifest.json",
        "text/train.txt has 1 paragraphs here, 2 in manifest.json",
    ]
    (data / "text/train.txt").write_text("one\n2\n")
    assert _checked(monkeypatch, capsys)[1][-1] == (
        "text/train.txt has its 2 paragraphs, but other bytes than in manifest.json"
    )


def test_what_is_not_there_differs_unless_only_a_part_was_fetched(data: Path) -> None:
    (packages.folder("deb", "bash-doc") / packages.DESCRIPTION).unlink()
    (data / "text/train.txt").unlink()
    assert manifest.differences(FULL) == ["deb bash-doc is not here", "text/train.txt is not here"]
    assert manifest.differences(FULL, whole=False) == []


def test_made_things_are_compared_in_the_full_set_only(data: Path) -> None:
    (data / "text/train.txt").write_text("one\n")
    assert manifest.differences(SMALL) == []


def test_a_fetch_warns_of_what_moved_on_and_ends_where_a_licence_is_unknown(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _unpack(TOOL, "1.3.0", {})
    manifest.tell(whole=True)
    assert capsys.readouterr().out == "warning: npm @some/tool is 1.3.0 here, 1.2.3 in manifest.json\n"
    unknown = replace(TOOL, name="new")
    _unpack(unknown, "1", {"package.json": '{"license": "ISC"}'})
    with pytest.raises(SystemExit, match="npm new was fetched, but stands in no roster"):
        manifest.tell(whole=True)
    entries: Sequence[Entry] = (TOOL, BOOK, unknown)
    monkeypatch.setattr(manifest, "roster", lambda of: entries)
    with pytest.raises(SystemExit, match=r"npm new has no row in manifest\.json"):
        manifest.tell(whole=True)


# The data that is here ----------------------------------------------------------------------------------


@needs_data
def test_nothing_was_fetched_under_an_unknown_licence() -> None:
    assert manifest.undeclared(here()) == []
