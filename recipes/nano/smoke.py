"""The stages' recipes -> the same in another folder, with short exams, less what the small set could not make here.

    python -m recipes.nano.smoke FOLDER

Screens need a browser. Where the small set was made without one, every recipe loses the sources and exams that show
screens, and each is named (one that takes over another's loses them with it); the full set has screens or is an error.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Collection
from pathlib import Path

from recipes.nano.screens import shots
from recipes.nano.sets import FULL, here
from recipes.nano.sources import SHOWING_SCREENS

RECIPES = Path(__file__).parent
_TABLES = re.compile(r"^(?=\[\[)", re.MULTILINE)
_WITHOUT = re.compile(r"(?m)^without = \[(.*)\]$")
_FEW = 2  # questions of an exam


def without_screens(recipe: str) -> tuple[str, list[str]]:
    """A recipe's text less the sources and exams that show screens, and their names.

    Raises: ``ValueError`` where no source is left.
    """
    head, *texts = _TABLES.split(recipe)
    kept, gone, sources = [head], [], 0
    for text in texts:
        ((kind, (table,)),) = tomllib.loads(text).items()
        if table.get("draw", "").split(":")[-1] in SHOWING_SCREENS:
            gone.append(table["name"])
            continue
        kept.append(text)
        sources += kind == "sources"
    if not sources:
        raise ValueError("every source of it shows screens, and there are none: install chromium")
    return "".join(kept), gone


def _still_there(without: re.Match[str], lost: Collection[str]) -> str:
    return f"without = [{', '.join(name for name in without[1].split(', ') if name not in lost)}]"


def write(folder: Path, *, screens: bool) -> dict[str, list[str]]:
    """Every recipe into ``folder``. Returns the names of the sources that each went without."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.toml"))}
    went: dict[str, list[str]] = {path.name: [] for path in texts}
    if not screens:
        less = {path: without_screens(text) for path, text in texts.items()}
        went = {path.name: gone for path, (_, gone) in less.items()}
        # What one recipe has lost another can no longer do without.
        lost = {f'"{name}"' for gone in went.values() for name in gone}
        texts = {path: _WITHOUT.sub(lambda found: _still_there(found, lost), text) for path, (text, _) in less.items()}
    for path, text in texts.items():
        (folder / path.name).write_text(re.sub(r"(?m)^count = \d+$", f"count = {_FEW}", text), encoding="utf-8")
    return went


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    screens = here() is FULL or (shots.SCREENS / "train.zip").exists()
    for name, gone in write(parser.parse_args().folder, screens=screens).items():
        if gone:
            print(f"{name}: no browser, so no screens: it goes without {', '.join(gone)}", flush=True)


if __name__ == "__main__":
    main()
