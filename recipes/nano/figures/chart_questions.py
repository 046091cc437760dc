"""A drawn chart -> questions about it with their answers.

Comes in: `Chart`. Goes out: `Query`. Nothing is asked that the picture does not settle: a number is asked for where it
is written or where two pixels are less than 5 % of it, and two marks are compared where they are four pixels apart.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from recipes.nano.figures.asking import NO, YES, Query, ask_several, worded
from recipes.nano.figures.chart_pieces import PIES, Chart
from recipes.nano.figures.views import View, said
from recipes.nano.figures.wordings import CHART
from recipes.nano.fonts import Split
from recipes.nano.questions import CANNOT_TELL

RISES: Final = "rises"
FALLS: Final = "falls"
WEIGHTS: Final = {
    "value": 30,
    "extreme": 14,
    "highest at": 8,
    "difference": 7,
    "sum": 5,
    "comparison": 9,
    "trend": 9,
    "count": 9,
    "title": 4,
    "axis": 4,
    "colour": 8,
    "above": 6,
    "which": 4,
}


@dataclass(frozen=True)
class _Asker:
    """Draws questions about one chart."""

    random: Random
    chart: Chart
    split: Split

    @property
    def view(self) -> View:
        return self.chart.view

    def said_as(self, kind: str, answer: str, /, wording: str = "", **names: str) -> Query:
        text = worded(self.random, CHART[wording or kind], self.split, axis=self.view.axis.lower(), **names)
        return Query(kind, text, answer)

    def number(self, value: float) -> str:
        return said(value) + self.chart.sign

    def readable(self, value: float, line: int, pixels: float = 2.0) -> bool:
        return self.chart.labelled or 0.05 * value >= pixels * self.chart.grains[line]

    def apart(self, one: float, other: float, line: int) -> bool:
        return one != other if self.chart.labelled else abs(one - other) >= 4 * self.chart.grains[line]

    def line(self) -> int:
        return self.random.randrange(len(self.view.series))

    def two(self) -> tuple[int, int, int, int]:
        """Two points as (line, place, line, place): of one line, or of two lines at one place."""
        view = self.view
        if len(view.series) > 1 and not view.pair and self.random.random() < 0.4:
            one, other = self.random.sample(range(len(view.series)), 2)
            place = self.random.randrange(len(view.categories))
            return one, place, other, place
        line = self.line()
        first, second = self.random.sample(range(len(view.categories)), 2)
        return line, first, line, second

    def of(self, line: int, name: str) -> str:
        view = self.view
        if len(view.series) == 1:
            return f"in {name}" if view.timed else f"of {name}"
        return f"of {view.series[line]} {'in' if view.timed else 'for'} {name}"

    def point(self, line: int, place: int) -> str:
        name = self.view.categories[place]
        if len(self.view.series) == 1:
            return f"the value in {name}" if self.view.timed else name
        return f"{self.view.series[line]} {'in' if self.view.timed else 'for'} {name}"

    # One maker a kind ---------------------------------------------------------------------------------

    def value(self) -> Query | None:
        line, place = self.line(), self.random.randrange(len(self.view.categories))
        value = self.view.values[line][place]
        if not self.readable(value, line):
            return None
        return self.value_of(line, self.view.categories[place], "value", self.number(value))

    def value_of(self, line: int, name: str, kind: str, answer: str) -> Query:
        if self.chart.kind in PIES:
            return self.said_as(kind, answer, "share", name=name)
        of = self.of(line, name)
        if self.split == "train" and len(self.view.series) == 1 and self.random.random() < 0.3:
            return self.said_as(kind, answer, "measure", of=of, measure=_inside(self.view.measure))
        return self.said_as(kind, answer, "value", of=of)

    def absent(self) -> Query | None:
        shown = {*self.view.categories, *self.view.series}
        others = [name for name in self.view.others if name not in shown]
        if not others:
            return None
        return self.value_of(self.line(), self.random.choice(others), "absent", CANNOT_TELL)

    def extreme(self) -> Query | None:
        line = self.line()
        values = self.view.values[line]
        most = self.random.random() < 0.6
        order = sorted(range(len(values)), key=lambda at: values[at], reverse=most)
        if not self.apart(values[order[0]], values[order[1]], line):
            return None
        several = " of" if len(self.view.series) > 1 else ""
        kind = "most" if most else "least"
        return self.said_as(kind, self.view.categories[order[0]], kind + several, series=self.view.series[line])

    def highest_at(self) -> Query | None:
        view = self.view
        if len(view.series) < 2 or view.pair:
            return None
        place = self.random.randrange(len(view.categories))
        order = sorted(range(len(view.series)), key=lambda line: -view.values[line][place])
        if not self.apart(view.values[order[0]][place], view.values[order[1]][place], 0):
            return None
        at = f"{'in' if view.timed else 'for'} {view.categories[place]}"
        return self.said_as("highest at", view.series[order[0]], at=at)

    def difference(self) -> Query | None:
        a, i, b, j = self.two()
        one, other = self.view.values[a][i], self.view.values[b][j]
        if one < other:
            a, i, b, j, one, other = b, j, a, i, other, one
        if one == other or not self.readable(one - other, a, 3.0):
            return None
        return self.said_as("difference", self.number(one - other), one=self.point(a, i), other=self.point(b, j))

    def sum(self) -> Query | None:
        a, i, b, j = self.two()
        one, other = self.view.values[a][i], self.view.values[b][j]
        if not self.readable(one + other, a, 3.0):
            return None
        return self.said_as("sum", self.number(one + other), one=self.point(a, i), other=self.point(b, j))

    def comparison(self) -> Query | None:
        a, i, b, j = self.two()
        one, other = self.view.values[a][i], self.view.values[b][j]
        if not self.apart(one, other, a):
            return None
        larger = self.random.random() < 0.7
        answer = YES if (one > other) == larger else NO
        wording = "larger" if larger else "smaller"
        return self.said_as("comparison", answer, wording, one=self.point(a, i), other=self.point(b, j))

    def trend(self) -> Query | None:
        view, line = self.view, self.line()
        if not view.timed:
            return None
        start, end = sorted(self.random.sample(range(len(view.categories)), 2))
        before, after = view.values[line][start], view.values[line][end]
        if not self.apart(before, after, line):
            return None
        what = "the value" if len(view.series) == 1 else view.series[line]
        names = {"start": view.categories[start], "end": view.categories[end]}
        return self.said_as("trend", RISES if after > before else FALLS, what=what, **names)

    def count(self) -> Query:
        view, kind = self.view, self.chart.kind
        if not view.pair and (len(view.series) > 1 or kind == "lines") and self.random.random() < 0.5:
            wording = "lines" if kind == "lines" and self.random.random() < 0.6 else "series"
            if len(view.series) > 1 or wording == "lines":
                return self.said_as("count", str(len(view.series)), wording)
        wording = "categories"
        if kind in PIES:
            wording = "slices"
        elif kind in ("bars", "rows") and len(view.series) == 1 and all(view.values[0]):
            wording = self.random.choice(("categories", "bars"))
        return self.said_as("count", str(len(view.categories)), wording)

    def title(self) -> Query | None:
        return self.said_as("title", self.chart.title) if self.chart.title else None

    def axis(self) -> Query | None:
        across, up = self.chart.category_axis, self.chart.value_axis
        if self.chart.kind == "rows":
            across, up = up, across
        direction, label = self.random.choice((("horizontal axis", across), ("vertical axis", up)))
        return self.said_as("axis", label, direction) if label else None

    def colour(self) -> Query | None:
        view, colours = self.view, self.chart.colours
        if len(colours) == 1:
            marks = {"bars": "bars", "rows": "bars", "lines": "line", "dots": "points"}.get(self.chart.kind)
            if marks == "line":
                return self.said_as("colour", colours[0], name="the line")
            return self.said_as("colour", colours[0], "colour of marks", marks=marks) if marks else None
        names = view.categories if view.pair or self.chart.kind in PIES else view.series
        at = self.random.randrange(len(colours))
        if self.random.random() < 0.5:
            return self.said_as("colour", colours[at], name=names[at])
        return self.said_as("colour", names[at], "coloured", colour=colours[at])

    def above(self) -> Query | None:
        values = sorted(self.view.values[0])
        if len(self.view.series) > 1:
            return None
        at = self.random.randrange(len(values) - 1)
        threshold = _between(values[at], values[at + 1], 0.0 if self.chart.labelled else 3 * self.chart.grains[0])
        if threshold is None:
            return None
        above = self.random.random() < 0.65
        answer = str(len(values) - at - 1 if above else at + 1)
        return self.said_as("above", answer, "above" if above else "below", number=self.number(threshold))

    def which(self) -> Query | None:
        values = self.view.values[0]
        value = self.random.choice(values)
        if len(self.view.series) > 1 or not self.chart.labelled or values.count(value) > 1:
            return None
        return self.said_as("which", self.view.categories[values.index(value)], number=self.number(value))


def _inside(measure: str) -> str:
    """A measure's name within a sentence."""
    return measure if measure[1:2].isupper() else measure[:1].lower() + measure[1:]


def _between(low: float, high: float, margin: float) -> float | None:
    """The roundest number well between two."""
    low, high = low + margin, high - margin
    if high <= low:
        return None
    size = 10.0 ** math.ceil(math.log10(high))
    while size > 1e-3:
        number = math.floor(low / size + 1) * size
        if low < number < high:
            return round(number, 4)
        size /= 10 if (low // (size / 2)) == (high // (size / 2)) else 2
    return None


def ask(random: Random, chart: Chart, split: Split, wanted: int) -> list[Query]:
    """Up to so many different questions; of each kind one, but two of values."""
    asker = _Asker(random, chart, split)
    makers: dict[str, Callable[[], Query | None]] = {
        kind: getattr(asker, kind.replace(" ", "_")) for kind in (*WEIGHTS, "absent")
    }
    return ask_several(random, wanted, WEIGHTS, lambda kind: makers[kind](), twice="value")
