"""Nano's fetch: what is whole is kept, what is half is fetched anew, sets do not mix, recipes do without screens."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from kimi_vl.train.recipe import read_recipe
from recipes.nano import fetch, packages, sets, smoke
from recipes.nano.screens import shots
from recipes.nano.sources import SHOWING_SCREENS
from tests.nano import needs_data

RECIPES = sorted(smoke.RECIPES.glob("*.toml"))
# Each is handed the prepared archive, and notes that it was called.
NPM = """#!/bin/sh
echo "$@" >> "$CALLS"
test -e "$ARCHIVE" || exit 1
cp "$ARCHIVE" "$4"
"""
APT = """#!/bin/sh
echo "$@" >> "$CALLS"
cp "$ARCHIVE" tool_1%3a2.0-1_all.deb
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr" && cp "$2" "$3/usr/tool.txt"
"""


class Registry:
    """Clients of our own in the place of npm, apt-get and dpkg-deb, and a data folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.archive, self._calls = folder / "data", folder / "archive.tgz", folder / "calls"
        for name, script in (("npm", NPM), ("apt-get", APT), ("dpkg-deb", DPKG)):
            client = folder / "bin" / name
            client.parent.mkdir(exist_ok=True)
            client.write_text(script)
            client.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("CALLS", str(self._calls))
        monkeypatch.setenv("ARCHIVE", str(self.archive))
        monkeypatch.setattr(packages, "DATA", self.data)
        self.offer(first="one", second="two")

    def offer(self, **files: str) -> None:
        """Offer a package of these files."""
        described = json.dumps({"name": "@some/tool", "version": "1.2.3"})
        with tarfile.open(self.archive, "w:gz") as archive:
            for name, text in {"package.json": described, **files}.items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(tmp_path, monkeypatch)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_package_is_fetched_once_and_keeps_its_version(registry: Registry) -> None:
    place = packages.npm("@some/tool")
    assert place == registry.data / "packages/npm/some+tool"
    assert _names(place) == {"package.json", "first", "second", packages.DESCRIPTION}
    assert packages.npm("@some/tool") == place
    assert registry.calls == 1
    assert packages.version("npm", "@some/tool") == "1.2.3"
    assert (packages.deb("tool") / "usr/tool.txt").exists()
    packages.deb("tool")
    assert packages.version("deb", "tool") == "1:2.0-1"
    assert registry.calls == 2


def test_half_a_package_is_fetched_anew(registry: Registry) -> None:
    place = packages.folder("npm", "@some/tool")
    place.mkdir(parents=True)
    (place / "stale").write_text("of a copy that was stopped")
    assert not packages.is_whole(place)
    packages.npm("@some/tool")
    assert _names(place) == {"package.json", "first", "second", packages.DESCRIPTION}


@pytest.mark.parametrize("fault", ["nothing", "cut off", "no package"])
def test_a_fetch_that_fails_leaves_nothing_and_the_next_one_goes_on(registry: Registry, fault: str) -> None:
    whole = registry.archive.read_bytes()
    if fault == "nothing":
        registry.archive.unlink()
    elif fault == "cut off":
        registry.archive.write_bytes(whole[: len(whole) // 2])
    else:
        with tarfile.open(registry.archive, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("package/first"), io.BytesIO())
    with pytest.raises((RuntimeError, OSError, EOFError, tarfile.TarError)):
        packages.npm("@some/tool")
    assert _names(registry.data / "packages/npm") == set()
    registry.archive.write_bytes(whole)
    assert (packages.npm("@some/tool") / "second").read_text() == "two"


def test_a_client_that_is_not_here_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="npm is not here"):
        packages.npm("@some/tool")


# Sets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder without anything."""
    monkeypatch.setattr(sets, "DATA", tmp_path)
    monkeypatch.setattr(sets, "_NAMED", tmp_path / "set")
    monkeypatch.setattr(sets, "here", sets.here.__wrapped__)
    monkeypatch.setattr(sets.here, "cache_clear", lambda: None, raising=False)
    return tmp_path


def test_a_folder_holds_one_set(empty: Path) -> None:
    sets.begin(sets.SMALL)
    sets.begin(sets.SMALL)
    assert sets.here() is sets.SMALL
    with pytest.raises(ValueError, match="holds the small set, not the full one"):
        sets.begin(sets.FULL)
    assert sets.here() is sets.SMALL


def test_a_folder_of_before_there_were_sets_holds_the_full_one(empty: Path) -> None:
    (empty / "text").mkdir()
    assert sets.here() is sets.FULL
    with pytest.raises(ValueError, match="holds the full set, not the small one"):
        sets.begin(sets.SMALL)
    sets.begin(sets.FULL)
    (empty / "set").write_text("medium")
    with pytest.raises(ValueError, match="'medium'; there are full, small"):
        sets.here()


def test_the_small_set_is_a_part_of_the_full_one() -> None:
    small, full = sets.SMALL, sets.FULL
    for part in ("training_families", "heldout_families", "training_books", "heldout_books", "styles", "screens"):
        assert 0 < len(getattr(small, part)) <= len(getattr(full, part))
        assert set(getattr(small, part)) <= set(getattr(full, part))


def test_the_small_set_goes_into_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(Exception):  # noqa: N818 - it is no error: the process would be another
        pass

    def execv(program: str, arguments: list[str]) -> None:
        assert os.environ["NANO_DATA"] == str(packages.SMALL_DATA)
        raise Replaced(arguments)

    monkeypatch.setenv("NANO_DATA", "")
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced, match=r"recipes\.nano\.fetch.*--small"):
        fetch.main(["--small"])


@pytest.mark.parametrize(
    ("arguments", "message"), [(["texts"], "no part 'texts'"), ([], "holds the small set, not the full one")]
)
def test_a_fetch_that_cannot_be_is_refused_at_once(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "set").write_text("small\n")
    command = [sys.executable, "-m", "recipes.nano.fetch", *arguments]
    done = subprocess.run(
        command, env=os.environ | {"NANO_DATA": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert _names(tmp_path) == {"set"}


# Without screens ----------------------------------------------------------------------------------------


def test_recipes_lose_what_shows_screens_and_nothing_else(tmp_path: Path) -> None:
    went = smoke.write(tmp_path, SHOWING_SCREENS)
    assert {path.name for path in RECIPES} == went.keys() == _names(tmp_path)
    assert went["joint.toml"]
    for path in RECIPES:
        before, after = read_recipe(path), read_recipe(tmp_path / path.name)
        shows = {source.name for source in before.sources if (source.draw or "").split(":")[-1] in SHOWING_SCREENS}
        assert [source.name for source in after.sources] == [s.name for s in before.sources if s.name not in shows]
        assert (before.stage, before.seed, before.peak) == (after.stage, after.seed, after.peak)
        shows = {exam.name for exam in before.exams if exam.draw.split(":")[-1] in SHOWING_SCREENS}
        assert [exam.name for exam in after.exams] == [e.name for e in before.exams if e.name not in shows]
        assert {exam.count for exam in after.exams} <= {2}
    smoke.write(tmp_path, ())
    for path in RECIPES:
        before, after = read_recipe(path), read_recipe(tmp_path / path.name)
        assert replace(after, exams=before.exams) == before


def test_a_recipe_of_nothing_but_screens_is_refused() -> None:
    source = '[[sources]]\nname = "a"\nweight = 1.0\ndraw = "recipes.nano.sources:pointing"\n'
    with pytest.raises(ValueError, match="install chromium"):
        smoke.without(f'stage = "joint"\n\n{source}', SHOWING_SCREENS)


@needs_data
def test_only_those_sources_need_screens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "SCREENS", tmp_path)
    shots.screens.cache_clear()
    shots._archive.cache_clear()
    for place in _draws():
        module, name = place.split(":")
        draw: Callable[[int, int], object] = getattr(import_module(module), name)
        if name in SHOWING_SCREENS:
            with pytest.raises(FileNotFoundError, match=r"no train\.zip"):
                draw(11, 0)
        else:
            assert all(draw(11, index) for index in range(5))


def _draws() -> list[str]:
    """Every source of every recipe."""
    tables = [source for path in RECIPES for source in tomllib.loads(path.read_text(encoding="utf-8"))["sources"]]
    return sorted({source["draw"] for source in tables if "draw" in source})
