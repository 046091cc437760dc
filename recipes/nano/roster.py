"""A data set -> every package that it is made of: where it comes from, what it is for, licences that it does not say.

Knows nothing of what was downloaded (manifest.py). A package that is fetched and does not stand here is refused at the
end of the fetch: nobody would know under what licence it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.nano import chats, fonts, pictures
from recipes.nano.books import WORDNET
from recipes.nano.figures import numbers
from recipes.nano.screens import icons
from recipes.nano.sets import DataSet

Registry = Literal["npm", "deb"]
Use = Literal["training", "held out", "both"]

# Read from each package's copyright file, which has no form that a program could trust. SPDX has no name for those that
# begin with "LicenseRef".
DECLARED: dict[str, str] = {
    "python3.11-doc": "PSF-2.0",
    "debian-reference-en": "GPL-2.0-or-later",
    "debian-policy": "GPL-2.0-or-later",
    "developers-reference": "GPL-2.0-or-later",
    "debian-faq": "LicenseRef-Debian-FAQ",
    "git-doc": "GPL-2.0-only",
    "jargon-text": "LicenseRef-public-domain",
    "perl-doc": "Artistic-1.0-Perl OR GPL-1.0-or-later",
    "wordnet-base": "LicenseRef-WordNet-3.0",
    "bash-doc": "GFDL-1.3-no-invariants-or-later",
    "postgresql-doc-15": "PostgreSQL",
    "openclipart-svg": "CC-PDDC",
    "breeze-icon-theme": "LGPL-3.0-or-later",
}
# What packages write -> what SPDX calls it.
SPDX: dict[str, str] = {"UFL-1.0": "Ubuntu-font-1.0"}


@dataclass(frozen=True)
class Entry:
    """One package of a set."""

    registry: Registry
    name: str
    room: Literal["fonts", "text", "pictures", "facts", "icons"]
    purpose: str
    use: Use


def roster(of: DataSet) -> tuple[Entry, ...]:
    """Every package of a set, in a fixed order; none comes twice."""
    return tuple(_entries(of))


def _entries(of: DataSet) -> Iterator[Entry]:
    for family in of.families:
        use: Use = "training" if family in of.training_families else "held out"
        yield Entry("npm", fonts.package(family), "fonts", "text in pictures", use)
    for name in (*of.training_books, *of.heldout_books):
        use = "training" if name in of.training_books else "held out"
        if name == WORDNET:
            yield Entry("deb", name, "text", "text; words to spell and to define; English vocabulary", "both")
        else:
            yield Entry("deb", name, "text", "text, and pictures of text", use)
    for style in (*of.styles, pictures.HELDOUT_STYLE):
        use = "training" if style in of.styles else "held out"
        yield Entry("npm", pictures.package(style), "pictures", "emoji", use)
    yield Entry("npm", pictures.LABELS, "pictures", "names, groups and tags of the emoji", "both")
    if of.clipart:
        yield Entry("deb", pictures.CLIPART, "pictures", "clip art, one name in ten held out", "both")
    yield Entry("npm", numbers.PACKAGE, "facts", "tables for charts and drawn tables, ten held out", "both")
    yield Entry("npm", chats.COUNTRIES, "facts", "capitals and continents", "both")
    for style in of.icon_styles:
        yield Entry("npm", pictures.package(style), "icons", "icons to point at", "training")
    yield Entry("npm", icons.LUCIDE, "icons", "icons on made pages", "training")
    yield Entry("deb", icons.BREEZE, "icons", "icons on made pages", "held out")
