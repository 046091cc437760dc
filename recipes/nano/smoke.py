"""The stages' recipes -> the same in another folder, less the sources whose data the small set could not make here.

    python -m recipes.nano.smoke FOLDER

Screens need a browser. Where the small set was made without one, every recipe loses the sources that show screens, and
each is named (one that takes over another's loses them with it); the full set has screens or is an error.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from recipes.nano.screens import shots
from recipes.nano.sets import FULL, here
from recipes.nano.sources import SHOWING_SCREENS

RECIPES = Path(__file__).parent
_SOURCE = "[[sources]]\n"


def without_screens(recipe: str) -> tuple[str, list[str]]:
    """A recipe's text less the sources that show screens, and their names.

    Raises: ``ValueError`` where none is left.
    """
    head, *sources = recipe.split(_SOURCE)
    tables = {text: tomllib.loads(text) for text in sources}
    gone = [text for text, table in tables.items() if table.get("draw", "").split(":")[-1] in SHOWING_SCREENS]
    if len(gone) == len(sources):
        raise ValueError("every source of it shows screens, and there are none: install chromium")
    kept = [text for text in sources if text not in gone]
    return _SOURCE.join([head, *kept]), [tables[text]["name"] for text in gone]


def write(folder: Path, *, screens: bool) -> dict[str, list[str]]:
    """Every recipe into ``folder``. Returns the names of the sources that each went without."""
    folder.mkdir(parents=True, exist_ok=True)
    went: dict[str, list[str]] = {}
    for path in sorted(RECIPES.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        text, went[path.name] = (text, []) if screens else without_screens(text)
        (folder / path.name).write_text(text, encoding="utf-8")
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
