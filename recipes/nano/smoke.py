"""The stages' recipes -> the same in another folder, with short exams, less what the small set could not make here.

    python -m recipes.nano.smoke FOLDER

Screens need a browser. Where the small set was made without one, every recipe loses the sources and exams that show
screens, and each is named (one that takes over another's loses them with it); the full set has screens or is an error.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

from recipes.nano.screens import shots
from recipes.nano.sets import FULL, here
from recipes.nano.sources import SHOWING_SCREENS

RECIPES = Path(__file__).parent
_TABLES = re.compile(r"^(?=\[\[)", re.MULTILINE)
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


def write(folder: Path, *, screens: bool) -> dict[str, list[str]]:
    """Every recipe into ``folder``. Returns the names of the sources that each went without."""
    folder.mkdir(parents=True, exist_ok=True)
    went: dict[str, list[str]] = {}
    for path in sorted(RECIPES.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        text, went[path.name] = (text, []) if screens else without_screens(text)
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
