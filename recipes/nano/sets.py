"""Which packages a data folder is made of: the full set, or a small one on which every stage can run a few steps.

Comes in: the file `set` in the data folder, which the fetch writes before anything else. Goes out: `DataSet`. A folder
without that file is one of the full set. What is trained on and what is held out is never on the other side in either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from recipes.nano.books import HELDOUT_BOOKS, TRAINING_BOOKS, WORDNET
from recipes.nano.fonts import HELDOUT_FAMILIES, TRAINING_FAMILIES
from recipes.nano.packages import DATA
from recipes.nano.pictures import TRAINING_STYLES
from recipes.nano.screens.icon_styles import STYLES as ICON_STYLES


@dataclass(frozen=True)
class DataSet:
    """What a data folder holds; every set has what is not named here: tables, countries, icons, the held-out emoji."""

    name: str
    training_families: tuple[str, ...]
    heldout_families: tuple[str, ...]
    training_books: tuple[str, ...]
    heldout_books: tuple[str, ...]
    styles: tuple[str, ...]
    """The emoji styles of training."""
    icon_styles: tuple[str, ...]
    """The styles of icons that training sees beside that of its screens."""
    clipart: bool
    screens: Mapping[str, int]
    """How many screens each group has."""

    @property
    def families(self) -> tuple[str, ...]:
        return (*self.training_families, *self.heldout_families)


FULL = DataSet(
    name="full",
    training_families=TRAINING_FAMILIES,
    heldout_families=HELDOUT_FAMILIES,
    training_books=TRAINING_BOOKS,
    heldout_books=HELDOUT_BOOKS,
    styles=TRAINING_STYLES,
    icon_styles=ICON_STYLES,
    clipart=True,
    screens={"heldout": 300, "heldout-large": 100, "train": 2000},
)
# Of the kinds only clip art is left out, which is one large package.
SMALL = DataSet(
    name="small",
    # One of each: without serifs, with serifs, of one width, written by hand.
    training_families=("b612", "caladea", "courier-prime", "patrick-hand"),
    heldout_families=("cousine", "tinos"),
    training_books=("debian-faq", WORDNET),
    heldout_books=("bash-doc",),
    styles=("emojione", "fxemoji"),
    icon_styles=("bi",),
    clipart=False,
    screens={"heldout": 16, "heldout-large": 8, "train": 24},
)
SETS: dict[str, DataSet] = {one.name: one for one in (FULL, SMALL)}
_NAMED = DATA / "set"


@cache
def here() -> DataSet:
    """The set that the data folder holds, or is to hold.

    Raises: ``ValueError`` where the folder names a set that there is none of.
    """
    name = _NAMED.read_text(encoding="utf-8").strip() if _NAMED.exists() else FULL.name
    if name not in SETS:
        raise ValueError(f"{_NAMED} names the set {name!r}; there are {', '.join(SETS)}")
    return SETS[name]


def begin(wanted: DataSet) -> None:
    """Write down which set the data folder is to hold.

    Raises: ``ValueError`` where it holds another: their made files would mix.
    """
    if DATA.exists() and any(DATA.iterdir()) and here() is not wanted:
        raise ValueError(
            f"{DATA} holds the {here().name} set, not the {wanted.name} one: name another folder by NANO_DATA"
        )
    DATA.mkdir(parents=True, exist_ok=True)
    part = _NAMED.with_suffix(".part")
    part.write_text(f"{wanted.name}\n", encoding="utf-8")
    part.rename(_NAMED)
    here.cache_clear()
