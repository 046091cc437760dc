"""Recipes -> the same in another folder, with short exams, less what cannot be drawn here.

    python -m recipes.nano.smoke FOLDER                                    those of nano's stages
    python -m recipes.nano.smoke FOLDER --recipes recipes/nano/reasoning   those of nano-thinking's

Screens need a browser. Where the small set was made without one, every recipe loses the sources and exams that show
screens (one that takes over another's loses them with it); the full set has screens or is an error. NLVR lies where
somebody has put it. Each that is lost is named.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Collection
from pathlib import Path

from recipes.nano.reasoning import nlvr
from recipes.nano.screens import shots
from recipes.nano.sets import FULL, here
from recipes.nano.sources import SHOWING_SCREENS

RECIPES = Path(__file__).parent
_TABLES = re.compile(r"^(?=\[\[)", re.MULTILINE)
_WITHOUT = re.compile(r"(?m)^without = \[(.*)\]$")
_FEW = 2  # questions of an exam
SHOWING_NLVR = frozenset(("nlvr", "worked_nlvr"))


def lacking() -> frozenset[str]:
    """The names of functions that cannot draw here."""
    screens = here() is FULL or (shots.SCREENS / "train.zip").exists()
    return (frozenset() if screens else SHOWING_SCREENS) | (frozenset() if nlvr.is_there() else SHOWING_NLVR)


def without(recipe: str, draws: Collection[str]) -> tuple[str, list[str]]:
    """A recipe's text less the sources, problems and exams that are drawn by these, and their names.

    Raises: ``ValueError`` where nothing is left to learn from.
    """
    head, *texts = _TABLES.split(recipe)
    kept, gone, left = [head], [], 0
    for text in texts:
        ((kind, (table,)),) = tomllib.loads(text).items()
        if table.get("draw", "").split(":")[-1] in draws:
            gone.append(table["name"])
            continue
        kept.append(text)
        left += kind in ("sources", "problems")
    if not left:
        raise ValueError("every source of it shows screens, and there are none: install chromium")
    return "".join(kept), gone


def _still_there(without: re.Match[str], lost: Collection[str]) -> str:
    return f"without = [{', '.join(name for name in without[1].split(', ') if name not in lost)}]"


def write(folder: Path, draws: Collection[str], recipes: Path = RECIPES) -> dict[str, list[str]]:
    """Every recipe into ``folder``, without what is drawn by ``draws``. Returns what each went without."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(recipes.glob("*.toml"))}
    less = {path: without(text, draws) for path, text in texts.items()}
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
    parser.add_argument("--recipes", type=Path, default=RECIPES)
    args = parser.parse_args()
    for name, gone in write(args.folder, lacking(), args.recipes).items():
        if gone:
            print(f"{name}: goes without {', '.join(gone)}, of which nothing is here", flush=True)


if __name__ == "__main__":
    main()
