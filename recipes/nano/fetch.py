"""Package registries -> `.data/nano/`: fonts, text, drawings, tables and screens, ready for the sources.

    python -m recipes.nano.fetch            everything; what is there already is kept
    python -m recipes.nano.fetch text fonts only these parts
    python -m recipes.nano.fetch --small    the small set (sets.py), into `.data/nano-small`

NANO_DATA names another folder. Needs `npm`, `apt-get` and `dpkg-deb` as they are set up, and `chromium` for the
screens, which the small set can do without; nothing is installed. LICENCES.md lists each package, manifest.json its
bytes: at the end the fetch tells what differs from it.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterable

from recipes.nano import books, fonts, manifest
from recipes.nano.packages import DATA, SMALL_DATA, deb_all, npm_all
from recipes.nano.sets import FULL, SMALL, begin, here


def fetch_fonts() -> None:
    """Every family of the set as TrueType files."""
    families = here().families
    unpacked = npm_all([fonts.package(family) for family in families])
    made = {f: fonts.convert(f, place) for f, place in zip(families, unpacked, strict=True)}
    print(f"fonts: {sum(made.values())} files of {sum(map(bool, made.values()))} families")


def fetch_text() -> None:
    """The two text files."""
    of = here()
    deb_all([*of.training_books, *of.heldout_books])
    _write_lines("train", lambda: (p for name in of.training_books for p in books.paragraphs(name, with_code=True)))
    _write_lines("heldout", lambda: (p for name in of.heldout_books for p in books.paragraphs(name, with_code=False)))


def _write_lines(name: str, source: Callable[[], Iterable[str]]) -> None:
    target = DATA / "text" / f"{name}.txt"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A repeated paragraph (navigation, boilerplate) is kept once: dict keeps the order of the first.
    lines = list(dict.fromkeys(source()))
    part = target.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.rename(target)
    print(f"text: {name}.txt has {len(lines)} paragraphs, {sum(map(len, lines))} characters", flush=True)


def fetch_emoji() -> None:
    """Every emoji style, drawn."""
    # Imported here: text and fonts need no rasteriser.
    from recipes.nano import pictures, raster

    styles = (*here().styles, pictures.HELDOUT_STYLE)
    npm_all([*map(pictures.package, styles), pictures.LABELS])
    raster.rasterise_emoji()


def fetch_clipart() -> None:
    """The named part of the clip-art library, drawn, where the set has it."""
    if not here().clipart:
        return
    from recipes.nano import pictures, raster

    deb_all([pictures.CLIPART, books.WORDNET])
    raster.rasterise_clipart()


def fetch_numbers() -> None:
    """The tables that charts are drawn from."""
    from recipes.nano.figures import numbers

    numbers.fetch()


def fetch_chats() -> None:
    """Countries and definitions that are asked for in words."""
    from recipes.nano import chats

    chats.fetch()


def fetch_icons() -> None:
    """Every style of icons, drawn."""
    from recipes.nano import pictures, raster
    from recipes.nano.screens import icons

    npm_all([icons.LUCIDE, *map(pictures.package, here().icon_styles)])
    deb_all([icons.BREEZE])
    raster.rasterise_icons()


def fetch_screens() -> None:
    """Pages, pictured by Chromium in the fonts that are there."""
    if here() is not FULL and shutil.which("chromium") is None:
        print("screens: none, for chromium is not here; recipes leave out what shows them (recipes.nano.smoke)")
        return
    from recipes.nano.screens import capture

    capture.main([])


PARTS: dict[str, Callable[[], None]] = {
    "text": fetch_text,
    "fonts": fetch_fonts,
    "emoji": fetch_emoji,
    "clipart": fetch_clipart,
    "numbers": fetch_numbers,
    "chats": fetch_chats,
    "icons": fetch_icons,
    "screens": fetch_screens,
}


def main(arguments: list[str]) -> None:
    """Fetch the named parts, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--small", action="store_true", help="the small set")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if args.small and not os.environ.get("NANO_DATA"):
        # Every module here has taken the folder at its import: another one needs another process.
        os.environ["NANO_DATA"] = str(SMALL_DATA)
        os.execv(sys.executable, [sys.executable, "-m", "recipes.nano.fetch", *arguments])
    try:
        begin(SMALL if args.small else FULL)
    except ValueError as error:
        parser.error(str(error))
    for name in args.parts or PARTS:
        print(f"{name} …", flush=True)
        PARTS[name]()
    manifest.tell(whole=not args.parts)


if __name__ == "__main__":
    main(sys.argv[1:])
