"""(generator, split) -> a `View` of real numbers, or in training half of the time of made-up ones.

Comes in: the tables of an npm package of example data. Goes out: 3 to 8 categories by 1 to 3 series, rounded.
"heldout" draws on ten tables that "train" never sees in any form; "train" on the others. Knows nothing of pictures or
questions.
"""

import csv
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from recipes.nano.figures.known_tables import HELDOUT_TABLES, TRAINING_TABLES, Group, Measure, Table
from recipes.nano.figures.made_up import made_up_view
from recipes.nano.figures.views import MONTHS, View, tidy
from recipes.nano.fonts import Split
from recipes.nano.packages import DATA, npm
from recipes.nano.text import normalise

PACKAGE = "vega-datasets"
MADE_UP = 0.5
LONGEST_NAME = 14  # characters
Row = dict[str, str | float | None]
Key = tuple[str, str, str]


def fetch() -> None:
    """Download the package and keep the columns that are used, one JSON file a table."""
    source = npm(PACKAGE) / "data"
    target = DATA / "numbers"
    target.mkdir(parents=True, exist_ok=True)
    for table in (*TRAINING_TABLES, *HELDOUT_TABLES):
        kept = target / f"{table.name}.json"
        if not kept.exists():
            rows = _read(source / table.file)
            wanted = table.columns()
            if lacking := [column for column in wanted if not any(column in row for row in rows)]:
                raise RuntimeError(f"{table.file} has no columns {lacking}: the package changed")
            part = kept.with_suffix(".part")
            part.write_text(json.dumps([[row.get(column) for column in wanted] for row in rows]))
            part.rename(kept)


def draw_view(random: Random, split: Split) -> View:
    """A view of a table of the split, or in training half of the time a made-up one."""
    if split == "train" and random.random() < MADE_UP:
        return made_up_view(random)
    tables = TRAINING_TABLES if split == "train" else HELDOUT_TABLES
    while True:
        table = random.choice(tables)
        # Several tries with one table, so that tables with many gaps come as often as others.
        for _ in range(20):
            view = _of_table(random, table)
            if view is not None:
                return view


def _read(path: Path) -> list[Row]:
    if path.suffix == ".json":
        found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return found
    with path.open(encoding="utf-8", newline="") as lines:
        return [dict(row) for row in csv.DictReader(lines)]


@cache
def _rows(table: Table) -> tuple[Row, ...]:
    path = DATA / "numbers" / f"{table.name}.json"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: run python -m recipes.nano.fetch")
    columns = table.columns()
    return tuple(dict(zip(columns, row, strict=True)) for row in json.loads(path.read_text(encoding="utf-8")))


def _name(group: Group, row: Row) -> str:
    """What a row is called under a group; "" where it has no drawable name."""
    value = str(row[group.column] if row[group.column] is not None else "").strip()
    if group.part in ("year", "month", "day", "month of year"):
        return _time(value, group.part)
    if group.part == "first word":
        value = value.split(" ")[0]
    value = dict(group.named).get(value, value).replace("_", " ")
    return shortened(normalise(value)) if value.lower() not in ("na", "n/a", "null", "nan", ".") else ""


@cache
def _names(table: Table, group: Group) -> tuple[str, ...]:
    return tuple(_name(group, row) for row in _rows(table))


def _time(date: str, part: Literal["year", "month", "day", "month of year"]) -> str:
    year = re.search(r"1[5-9]\d\d|20\d\d", date)
    if year is None:
        return ""
    if part == "year":
        return year[0]
    if digits := re.search(r"\d{4}[-/](\d\d)[-/]?(\d*)", date):
        month = MONTHS[int(digits[1]) - 1]
        if part == "day":
            return f"{month} {int(digits[2])}"
    elif date[:3] in MONTHS:
        month = date[:3]
    else:
        return ""
    return month if part == "month" else f"{month} {year[0]}"


def _order(name: str) -> int:
    """Where a year, a month, a day of a month or a month of a year stands in time, and plain numbers by size."""
    month = MONTHS.index(name[:3]) if name[:3] in MONTHS else 0
    digits = re.search(r"\d+$", name)
    number = int(digits[0]) if digits else 0
    return 12 * number + month if number > 31 else 32 * month + number


def shortened(name: str) -> str:
    """A name of at most 14 characters: whole words where possible."""
    if len(name) <= LONGEST_NAME:
        return name
    words = name[: LONGEST_NAME + 1].split(" ")[:-1]
    while words and words[-1].lower() in ("and", "of", "&", "the", "for", "-", "in", "or", "at", "with", "to"):
        words.pop()
    return " ".join(words).rstrip(",;:/ ") if words else name[: LONGEST_NAME - 1] + "."


@cache
def _pivot(table: Table, axis: Group, by: Group | None, pin: Group | None, measure: Measure) -> dict[Key, float]:
    """The mean, the sum or the count of the rows with each (axis, by, pin)."""
    found: dict[Key, list[float]] = defaultdict(list)
    rows = _rows(table)
    keys = [_names(table, group) if group else ("*",) * len(rows) for group in (axis, by, pin)]
    for row, *names in zip(rows, *keys, strict=True):
        value = row[measure.column] if measure.column else 1.0
        if all(names) and value is not None and value not in ("", "NA"):
            found[names[0], names[1], names[2]].append(float(value) * measure.scale)
    if measure.how == "sum":
        return {key: sum(values) for key, values in found.items()}
    return {key: sum(values) / len(values) for key, values in found.items()}


def _of_table(random: Random, table: Table) -> View | None:
    """A view of a table; None where what was drawn has too few numbers."""
    axis = random.choice(table.groups)
    spare = [group for group in table.groups if group.column != axis.column]
    random.shuffle(spare)
    by = spare.pop() if spare and random.random() < 0.45 else None
    pin = spare.pop() if spare and random.random() < 0.7 else None
    measures = [random.choice(table.measures)]
    alike = [m for m in table.measures if m.column and m.unit == measures[0].unit and m != measures[0]]
    pair = False
    if by is None and measures[0].column and alike and table.together and random.random() < 0.7:
        measures += random.sample(alike, min(len(alike), random.randint(1, 2)))
    elif by is None and not axis.timed and random.random() < 0.2:
        different = [m for m in table.measures if m.column and m.unit != measures[0].unit]
        if different and measures[0].column:
            measures, pair = [measures[0], random.choice(different)], True
    pivots = [_pivot(table, axis, by, pin, measure) for measure in measures]
    if not pivots[0]:
        return None
    pinned = random.choice(sorted({key[2] for key in pivots[0]}))
    names = sorted({key[1] for key in pivots[0] if key[2] == pinned})
    chosen = random.sample(names, min(len(names), random.randint(2, 3))) if by else names
    if by and (by.timed or all(map(str.isdecimal, chosen))):
        chosen.sort(key=_order)
    lines = [(pivot, name) for pivot in pivots for name in chosen]
    shared = [
        name
        for name in dict.fromkeys(key[0] for key in pivots[0])
        if all(pivot.get((name, line, pinned), -1.0) >= 0 for pivot, line in lines)
    ]
    if len(shared) < 3 or (by and len(chosen) < 2):
        return None
    categories = _some(random, shared, timed=axis.timed)
    values = tuple(tuple(pivot[name, line, pinned] for name in categories) for pivot, line in lines)
    if not any(map(any, values)) or (pair and max(map(max, values)) > 20_000):
        return None
    main = measures[0]
    several = len(measures) > 1
    measure = table.subject if several and not pair else main.shown
    title = f"{measure}, {pinned}" if pin else f"{measure} by {axis.shown.lower()}"
    view = View(
        title=title if random.random() < 0.7 else measure,
        measure=measure,
        unit=main.unit,
        axis=axis.shown,
        categories=categories,
        series=tuple(m.shown for m in measures) if several else tuple(chosen) if by else (main.shown,),
        values=values,
        timed=axis.timed,
        parts=main.how == "sum" and not axis.timed,
        pair=pair,
        others=tuple(name for name in shared if name not in categories)[:40],
        source=table.file,
    )
    tidied = tidy(random, view)
    # Numbers that rounding makes nought, or all alike, say nothing.
    vanished = _noughts(tidied) > _noughts(view)
    return None if vanished or any(len(set(line)) == 1 for line in tidied.values) else tidied


def _some(random: Random, names: list[str], *, timed: bool) -> tuple[str, ...]:
    """3 to 8 of the names; of times, such as follow each other at equal steps."""
    count = random.randint(3, min(8, len(names)))
    if not timed:
        chosen = random.sample(names, count)
        return tuple(sorted(chosen, key=int) if all(map(str.isdecimal, chosen)) else chosen)
    names = sorted(names, key=_order)
    step = random.randint(1, max(1, min(5, (len(names) - 1) // (count - 1))))
    start = random.randrange(len(names) - step * (count - 1))
    return tuple(names[start : start + step * count : step])


def _noughts(view: View) -> int:
    return sum(line.count(0.0) for line in view.values)
