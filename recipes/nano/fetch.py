"""Package registries -> `.data/nano/`: fonts, text, drawings, tables and screens, ready for the sources.

    python -m recipes.nano.fetch            everything; what is there already is kept
    python -m recipes.nano.fetch text fonts only these parts

Needs `npm`, `apt-get` and `dpkg-deb` as they are set up, and `chromium` for the screens; nothing is installed.
LICENCES.md lists each package.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

from recipes.nano import fonts, text
from recipes.nano.packages import DATA, deb, deb_all, npm_all

# Debian package -> the pages of it that are prose in English.
TRAINING_BOOKS: dict[str, str] = {
    "python3.11-doc": "usr/share/doc/python3.11/html/**/*.html",
    "debian-reference-en": "usr/share/debian-reference/*.en.html",
    "debian-policy": "usr/share/doc/debian-policy/policy.html/*.html",
    "developers-reference": "usr/share/developers-reference/*.html",
    "debian-faq": "usr/share/doc/debian/FAQ/*.html",
    "git-doc": "usr/share/doc/git/html/**/*.html",
    "jargon-text": "usr/share/doc/jargon-text/*.html",
}
# Never seen in training, neither its words as pictures nor as text.
HELDOUT_BOOKS: dict[str, str] = {"bash-doc": "usr/share/doc/bash/bash.html"}
HELDOUT_PROSE: dict[str, str] = {"postgresql-doc-15": "usr/share/doc/postgresql-doc-15/html/*.html"}


def fetch_fonts() -> None:
    """Every family of fonts.py as TrueType files."""
    families = (*fonts.TRAINING_FAMILIES, *fonts.HELDOUT_FAMILIES)
    unpacked = npm_all([fonts.package(family) for family in families])
    made = {f: fonts.convert(f, place) for f, place in zip(families, unpacked, strict=True)}
    print(f"fonts: {sum(made.values())} files of {sum(map(bool, made.values()))} families")


def fetch_text() -> None:
    """The two text files."""
    deb_all([*TRAINING_BOOKS, "perl-doc", "wordnet-base", *HELDOUT_BOOKS, *HELDOUT_PROSE])
    _write_lines("train", _training_paragraphs)
    _write_lines("heldout", lambda: _pages(HELDOUT_BOOKS | HELDOUT_PROSE, with_code=False))


def _training_paragraphs() -> Iterator[str]:
    yield from _pages(TRAINING_BOOKS, with_code=True)
    for page in sorted(deb("perl-doc").glob("usr/share/perl/*/pod/*.pod")):
        yield from text.paragraphs(text.pod(page.read_text(encoding="utf-8", errors="replace")))
    for part in ("noun", "verb", "adj", "adv"):
        (data,) = deb("wordnet-base").glob(f"usr/share/wordnet/data.{part}")
        yield from text.paragraphs(text.glosses(data.read_text(encoding="utf-8")))


def _pages(books: dict[str, str], *, with_code: bool) -> Iterator[str]:
    for name, pattern in books.items():
        pages = sorted(page for page in deb(name).glob(pattern) if page.is_file())
        if not pages:
            raise RuntimeError(f"{name} has no page {pattern}: its layout changed")
        for page in pages:
            prose, code = text.html(page.read_text(encoding="utf-8", errors="replace"))
            yield from text.paragraphs(prose)
            if with_code:
                yield from text.paragraphs(code, longest=100)


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

    styles = (*pictures.TRAINING_STYLES, pictures.HELDOUT_STYLE)
    npm_all([*map(pictures.package, styles), pictures.LABELS])
    raster.rasterise_emoji()


def fetch_clipart() -> None:
    """The named part of the clip-art library, drawn."""
    from recipes.nano import pictures, raster

    deb_all([pictures.CLIPART, "wordnet-base"])
    raster.rasterise_clipart()


def fetch_numbers() -> None:
    """The tables that charts are drawn from."""
    from recipes.nano.figures import numbers

    numbers.fetch()


def fetch_chats() -> None:
    """Countries and definitions that are asked for in words."""
    from recipes.nano import chats

    chats.fetch()


def fetch_screens() -> None:
    """Pages, pictured by Chromium in the fonts that are there."""
    from recipes.nano.screens import capture

    capture.main([])


PARTS: dict[str, Callable[[], None]] = {
    "text": fetch_text,
    "fonts": fetch_fonts,
    "emoji": fetch_emoji,
    "clipart": fetch_clipart,
    "numbers": fetch_numbers,
    "chats": fetch_chats,
    "screens": fetch_screens,
}


def main(names: list[str]) -> None:
    """Fetch the named parts, or all."""
    for name in names or PARTS:
        if name not in PARTS:
            raise SystemExit(f"no part {name!r}; there are {', '.join(PARTS)}")
        print(f"{name} …", flush=True)
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
