"""`View`: a small table of numbers with names, as one chart or drawn table can show it, and how its numbers are said.

Knows nothing of where the numbers come from (numbers.py, made_up.py) or of how they are drawn.
"""

import calendar
from dataclasses import dataclass, replace
from random import Random

MONTHS = tuple(calendar.month_abbr)[1:]
_SIZES = {"billion": 1e9, "million": 1e6, "thousand": 1e3, "": 1.0}


@dataclass(frozen=True)
class View:
    """One number for each series and category; numbers are never negative."""

    title: str
    measure: str
    unit: str
    axis: str
    categories: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """Of each series, in the order of the categories."""
    timed: bool
    """The categories follow each other in time."""
    parts: bool
    """The values of a series are parts of a whole."""
    pair: bool
    """The two series are different measures: the places of points, not lengths to be set side by side."""
    others: tuple[str, ...]
    """Names of the same sort that are not in the view."""
    source: str

    @property
    def largest(self) -> float:
        return max(map(max, self.values))

    @property
    def smallest(self) -> float:
        return min(map(min, self.values))


def said(value: float) -> str:
    """A number as it is read: no thousands separators, no idle zeros."""
    text = f"{round(value, 4):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def tidy(random: Random, view: View) -> View:
    """Large numbers in thousands, millions or billions, all with few digits, at times from large to small."""
    unit = view.unit
    values = view.values
    known = next((word for word in _SIZES if unit.startswith(word)), "")
    base = _SIZES[known]
    for word, size in _SIZES.items():
        if word and size > base and view.largest * base >= (10_000 if size == 1e3 else size) and not view.pair:
            values = tuple(tuple(value * base / size for value in line) for line in values)
            unit = f"{word} {unit.removeprefix(known).strip()}".strip()
            break
    finer = random.random() < 0.5
    rounded = []
    for line in values:
        top = max(map(max, values)) if not view.pair else max(line)
        places = 0 if top >= 100 else int(finer) if top >= 20 else 1 if top >= 2 else 2
        rounded.append(tuple(round(value, places) for value in line))
    view = replace(view, values=tuple(rounded), unit=unit)
    if len(view.series) == 1 and not view.timed and random.random() < 0.3:
        order = sorted(range(len(view.categories)), key=lambda at: -view.values[0][at])
        view = replace(
            view,
            categories=tuple(view.categories[at] for at in order),
            values=(tuple(view.values[0][at] for at in order),),
        )
    return view
