"""Unpacked emoji and clip-art packages -> what each picture is called, before any is drawn.

Comes in: icon JSON, Unicode labels, SVG files. Goes out: `Concept` and `Drawing` records (raster.py).
"""

import html
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from recipes.nano.captions import clipart_caption, concept_name, is_variant, key
from recipes.nano.packages import deb, folder

# The order is fixed: a sample draws a style by its place here.
TRAINING_STYLES: tuple[str, ...] = (
    "noto",
    "noto-v1",
    "fluent-emoji-flat",
    "fluent-emoji",
    "openmoji",
    "emojione",
    "emojione-v1",
    "fxemoji",
    "streamline-emojis",
)
# Never drawn in training: naming its pictures is the cross-style test.
HELDOUT_STYLE = "twemoji"
LABELS = "emojibase-data"
CLIPART = "openclipart-svg"
# A larger file is a drawing of thousands of paths: slow to rasterise and a blot at our size.
LARGEST_SVG = 250_000


@dataclass(frozen=True)
class Concept:
    """One emoji in all styles."""

    name: str
    group: str
    tags: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Drawing:
    """One SVG and its name."""

    name: str
    group: str
    svg: str
    tags: tuple[str, ...] = ()


def package(style: str) -> str:
    """The npm package of an emoji style."""
    return f"@iconify-json/{style}"


@cache
def concepts() -> dict[str, Concept]:
    """Every emoji but skin tones, genders and families of one that is there; by key, in Unicode's order."""
    place = folder("npm", LABELS) / "en"
    groups = {g["order"]: str(g["key"]) for g in json.loads((place / "messages.json").read_text())["groups"]}
    found: dict[str, Concept] = {}
    rows: list[dict[str, Any]] = json.loads((place / "data.json").read_text())
    for row in sorted(rows, key=lambda row: int(row.get("order", 10**6))):
        group = groups.get(row.get("group", -1), "component")
        name = concept_name(row["label"])
        if name and group != "component" and not is_variant(row["label"]):
            tags = tuple(map(str, row.get("tags", ())))
            found.setdefault(key(row["label"]), Concept(name, group, tags, key(row["label"])))
    return found


def emoji(style: str) -> dict[str, str]:
    """The SVG of each concept that a style has, by the concept's key."""
    data = json.loads((folder("npm", package(style)) / "icons.json").read_text())
    icons: dict[str, dict[str, Any]] = data["icons"]
    names = {name: name for name in icons}
    names |= {alias: str(of["parent"]) for alias, of in data.get("aliases", {}).items() if of.keys() == {"parent"}}
    found: dict[str, str] = {}
    # Exact names first, then such as "fox-face-2", where a style drew one thing twice.
    for name, parent in sorted(names.items(), key=lambda item: (bool(re.search(r"-\d$", item[0])), item[0])):
        at = key(re.sub(r"-\d$", "", name) if style == "streamline-emojis" else name)
        at = at.replace("flagforflag", "flag").replace("flagfor", "flag")
        if at in concepts() and parent in icons and at not in found:
            found[at] = svg_of(icons[parent], data)
    return found


def svg_of(icon: dict[str, Any], collection: dict[str, Any]) -> str:
    """The SVG text of one icon of a collection."""

    def size(what: str, otherwise: int) -> int:
        return int(icon.get(what, collection.get(what, otherwise)))

    box = f"{size('left', 0)} {size('top', 0)} {size('width', 16)} {size('height', 16)}"
    links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    # Single-colour icons say "currentColor": they are black on our backgrounds.
    return f'<svg {links} viewBox="{box}" color="#000">{icon["body"]}</svg>'


@cache
def vocabulary() -> frozenset[str]:
    """The single-word lemmas of WordNet."""
    words: set[str] = set()
    for part in ("noun", "verb", "adj", "adv"):
        text = (folder("deb", "wordnet-base") / f"usr/share/wordnet/index.{part}").read_text(encoding="utf-8")
        words.update(line.split(" ", 1)[0] for line in text.splitlines() if line[0] != " ")
    return frozenset(word for word in words if "_" not in word)


def cliparts() -> list[Drawing]:
    """The clip arts that an English name can be made for, in the order of their paths."""
    top = deb(CLIPART) / "usr/share/openclipart/svg"
    found = []
    for path in sorted(top.rglob("*.svg")):
        if path.is_file() and path.stat().st_size <= LARGEST_SVG:
            source = path.read_text(encoding="utf-8", errors="replace")
            inside = path.relative_to(top).as_posix()
            if caption := clipart_caption(inside, _creators(source), vocabulary()):
                found.append(Drawing(caption, inside.split("/")[0], source))
    return found


def _creators(svg: str) -> list[str]:
    blocks = re.findall(r"<dc:(?:creator|rights)>.*?</dc:(?:creator|rights)>", svg, re.DOTALL)
    return [html.unescape(title) for block in blocks for title in re.findall(r"<dc:title>(.*?)</dc:title>", block)]


def all_names() -> list[str]:
    """Every name that a picture has, once, for the tokenizer."""
    names = [concept.name for concept in concepts().values()] + [drawing.name for drawing in cliparts()]
    return list(dict.fromkeys(names))
