"""Manuals and made pages -> `.data/nano/screens/`: pictures of screens with the boxes of all that is on them.

    python -m recipes.nano.screens.capture              everything; what is there already is kept
    python -m recipes.nano.screens.capture heldout      only this group

Comes in: the books and icons of Debian and npm packages, and the fonts that fetch.py laid down. Goes out: one file a
group. Needs Debian's chromium. A group is drawn visit by visit (one page, a few shots); a visit that was stored is not
made again, so the work can be stopped at any time.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from PIL import Image

from recipes.nano.books import PAGES
from recipes.nano.fonts import Split
from recipes.nano.packages import deb
from recipes.nano.screens.look import document_sheet, look
from recipes.nano.screens.seen import SEEN
from recipes.nano.screens.shots import SCREENS, write
from recipes.nano.screens.site import application_page
from recipes.nano.sets import DataSet, here
from recipes.nano.text import normalise

if TYPE_CHECKING:
    from playwright.sync_api import Page

Size = tuple[int, int]
Record = dict[str, Any]

SMALL: dict[Size, int] = {(640, 400): 70, (560, 336): 12, (448, 280): 11, (784, 504): 7}
SHOTS_OF_A_PAGE = 4
COLOURS = 24
FEWEST_LINES = 3
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Grey edges: coloured ones would spend the palette on what no screen of another maker shows alike.
    "--disable-lcd-text",
    # The fonts lie in another folder than the pages.
    "--allow-file-access-from-files",
]
# How often a book is opened, beside others of its split; a book of one page is slow to lay out.
WEIGHTS = {
    "python3.11-doc": 8,
    "git-doc": 5,
    "debian-reference-en": 3,
    "debian-policy": 3,
    "developers-reference": 2,
    "debian-faq": 2,
    "postgresql-doc-15": 4,
    "bash-doc": 1,
}


@dataclass(frozen=True)
class Group:
    """A file of screens: how many, of which split, and how large."""

    name: str
    split: Split
    count: int
    sizes: dict[Size, int]


def groups(of: DataSet) -> tuple[Group, ...]:
    """The files of a set."""
    return (
        Group("heldout", "heldout", of.screens["heldout"], {(640, 400): 1}),
        Group("heldout-large", "heldout", of.screens["heldout-large"], {(1280, 800): 1}),
        Group("train", "train", of.screens["train"], SMALL),
    )


@dataclass(frozen=True)
class Visit:
    """One page, opened once."""

    group: Group
    number: int
    shots: int

    @property
    def place(self) -> Path:
        return SCREENS / "parts" / self.group.name / f"{self.number:05}.json"


def visits(group: Group) -> list[Visit]:
    """Half of the shots are of manuals, several a page, and half of made pages, one each."""
    found: list[Visit] = []
    left = group.count
    while left:
        shots = min(left, SHOTS_OF_A_PAGE if len(found) % (SHOTS_OF_A_PAGE + 1) == 0 else 1)
        found.append(Visit(group, len(found), shots))
        left -= shots
    return found


def capture(group: Group) -> None:
    """Make one group's file."""
    target = SCREENS / f"{group.name}.zip"
    if target.exists():
        return
    planned = visits(group)
    missing = [visit for visit in planned if not visit.place.exists()]
    if missing:
        _make(missing)
    shots = [shot for visit in planned for shot in json.loads(visit.place.read_text(encoding="utf-8"))]
    pictures = [b64decode(shot.pop("picture")) for shot in shots]
    write(target, shots, pictures)
    shutil.rmtree(planned[0].place.parent)
    print(f"{group.name}: {len(shots)} screens, {target.stat().st_size / 1e6:.1f} MB", flush=True)


def _make(missing: list[Visit]) -> None:
    # Imported here: samples are drawn from the files without a browser.
    from playwright.sync_api import sync_playwright

    if (chromium := shutil.which("chromium")) is None:
        raise FileNotFoundError("chromium is not here: it shows the pages that become screens")
    missing[0].place.parent.mkdir(parents=True, exist_ok=True)
    started, made = time.monotonic(), 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(offline=True)
        context.set_default_timeout(60_000)
        page = context.new_page()
        for visit in missing:
            shots = _visit(visit, page)
            part = visit.place.with_suffix(".part")
            part.write_text(json.dumps(shots, ensure_ascii=False), encoding="utf-8")
            part.rename(visit.place)
            made += len(shots)
            if visit.number % 25 == 0:
                speed = made / (time.monotonic() - started)
                print(f"  {visit.group.name}: visit {visit.number}, {speed:.1f} screens/s", flush=True)
        browser.close()


def _visit(visit: Visit, page: Page) -> list[Record]:
    random = Random(f"screen/{visit.group.name}/{visit.number}")
    size = random.choices(list(visit.group.sizes), list(visit.group.sizes.values()))[0]
    page.set_viewport_size({"width": size[0], "height": size[1]})
    if visit.shots == 1:
        return _application(random, visit, page, size)
    return _document(random, visit, page, size)


def _document(random: Random, visit: Visit, page: Page, size: Size) -> list[Record]:
    """Some places of a manual's page, each in a look of its own."""
    split = visit.group.split
    books = _pages(split)
    name = random.choices(list(books), [WEIGHTS[book] for book in books])[0]
    path = random.choice(books[name])
    page.goto(path.as_uri(), wait_until="domcontentloaded")
    page.evaluate("document.head.appendChild(document.createElement('style')).id = 'look'")
    shots = []
    for _ in range(visit.shots):
        sheet = document_sheet(random, look(random, split))
        page.evaluate("sheet => { document.getElementById('look').textContent = sheet }", sheet)
        page.evaluate(_SETTLE)
        place = random.random() if random.random() < 0.85 else 0.0
        page.evaluate("share => scrollTo(0, Math.round(share * (document.body.scrollHeight - innerHeight)))", place)
        shots.append(_shot(page, size, f"{name}/{path.name}"))
    return [shot for shot in shots if len(shot["lines"]) >= FEWEST_LINES]


def _application(random: Random, visit: Visit, page: Page, size: Size) -> list[Record]:
    kind, html = application_page(random, visit.group.split, size)
    path = visit.place.with_suffix(".html")
    path.write_text(html, encoding="utf-8")
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate(_SETTLE)
    shot = _shot(page, size, f"application/{kind}")
    path.unlink()
    return [shot]


# Fonts are fetched when a text first asks for them, which is at the layout.
_SETTLE = "async () => { document.body.getBoundingClientRect(); await document.fonts.ready }"


def _shot(page: Page, size: Size, source: str) -> Record:
    seen = page.evaluate(SEEN)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide"))).convert("RGB")
    if picture.size != size:
        raise RuntimeError(f"a picture of {picture.size} instead of {size}")
    return {
        "size": size,
        "source": source,
        "lines": [[*line[:5], normalise(line[5])] for line in seen["lines"]],
        "elements": [_element(*element) for element in seen["elements"]],
        "picture": b64encode(packed(picture)).decode(),
    }


def _element(
    role: str, name: str, value: str, on: int | None, x0: int, y0: int, x1: int, y1: int, clear: int
) -> list[Any]:
    name = normalise(name)
    return [role, name, normalise(value), on, x0, y0, x1, y1, clear if name else 0]


def packed(picture: Image.Image) -> bytes:
    """Few colours, without loss: a page of text takes a third of what all its shades would."""
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    few.convert("RGB").save(out, "WEBP", lossless=True, quality=90, method=4)
    return out.getvalue()


@cache
def _pages(split: Split) -> dict[str, list[Path]]:
    """The pages of each book of a split, in a fixed order."""
    books = here().training_books if split == "train" else here().heldout_books
    return {
        name: sorted(page for page in deb(name).glob(PAGES[name]) if page.is_file() and not page.is_symlink())
        for name in books
        if name in WEIGHTS
    }


def main(names: list[str]) -> None:
    """Make the named groups, or all."""
    known = {group.name: group for group in groups(here())}
    for name in names or known:
        if name not in known:
            raise SystemExit(f"no group {name!r}; there are {', '.join(known)}")
        capture(known[name])


if __name__ == "__main__":
    main(sys.argv[1:])
