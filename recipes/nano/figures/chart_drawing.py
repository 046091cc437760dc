"""A view of numbers -> a drawn chart, and what can be read from it.

Comes in: `View`, fonts of the split. Goes out: `Chart` (with the numbers as they are drawn) and an RGB picture whose
sides are multiples of 28. A chart without numbers at its marks is drawn of coarse numbers, so that its scale gives
them exactly. Knows nothing of questions.
"""

import math
from dataclasses import replace
from random import Random

from PIL import Image

from recipes.nano.figures.chart_matplotlib import plot_by_matplotlib
from recipes.nano.figures.chart_pieces import (
    PIES,
    Chart,
    Frame,
    Kind,
    Layout,
    Look,
    bottom_axis,
    draw_look,
    edges,
    ground,
    heading,
    left_axis,
    legend,
    scale,
)
from recipes.nano.figures.sheet import Box, Sheet, font, wide
from recipes.nano.figures.views import View, said
from recipes.nano.fonts import Split
from recipes.nano.paper import Colour, luminance

# The share of charts with axes that matplotlib draws: several times as slow, but what most people's charts are of.
MATPLOTLIB = 0.05


def draw_chart(random: Random, view: View, split: Split) -> tuple[Chart, Image.Image]:
    """One way to draw the view."""
    kind = _kind(random, view)
    coloured = len(view.categories) if kind in PIES or view.pair else len(view.series)
    look, colours = draw_look(random, split, coloured)
    size = (28 * random.randint(10, 16), 28 * random.randint(7, 11))
    labelled = kind in PIES or (not view.pair and random.random() < 0.45 and _has_room(look, kind, view, size))
    if kind in PIES:
        view = _shares(view)
    elif not labelled:
        view = _coarse(view)
        look = replace(look, grid=random.choice(("values", "values", "both")))
    value_axis = f"{view.measure} ({view.unit})" if view.unit else view.measure
    chart = Chart(
        view=view,
        kind=kind,
        title=_fitting(look, view.title, size[0] - 16) if random.random() < 0.85 else "",
        category_axis=view.axis if random.random() < 0.6 and kind not in PIES else "",
        value_axis=value_axis if (random.random() < 0.65 and kind not in PIES) else "",
        colours=colours,
        labelled=labelled,
        grains=(0.0,) * len(view.series),
        sign="%" if kind in PIES else "",
    )
    if view.pair:
        chart = replace(chart, category_axis=view.series[0], value_axis=view.series[1])
    if kind not in PIES and not view.pair and random.random() < MATPLOTLIB:
        # Its legend is one row.
        legend_width = sum(wide(look.letters(), name) + 40 for name in view.series)
        if len(view.series) == 1 or legend_width < size[0] - 70:
            top = 6.0 + (look.large + 8) * bool(chart.title) + (look.small + 10) * (len(view.series) > 1)
            layout = _layout(random, look, chart, (12.0, top, size[0] - 8.0, size[1] - 8.0))
            image = plot_by_matplotlib(random, look, chart, layout, size)
            return replace(chart, grains=(layout.grain(kind == "rows"),) * len(view.series)), image
    sheet = Sheet(size, look.paper)
    if kind in PIES:
        _pie(random, sheet, look, chart)
    elif view.pair:
        chart = _pair(random, sheet, look, chart)
    else:
        chart = _plot(random, sheet, look, chart)
    return chart, sheet.picture()


def _kind(random: Random, view: View) -> Kind:
    if view.pair:
        return "dots"
    single = len(view.series) == 1
    kinds: dict[Kind, int]
    if view.timed:
        kinds = {"lines": 50, "bars": 25, "area": 12 * single, "dots": 8, "rows": 5}
    else:
        whole = sum(view.values[0])
        pie = single and view.parts and len(view.categories) < 7 and min(view.values[0]) > 0.02 * whole
        kinds = {"bars": 42, "rows": 30, "pie": 60 * pie, "ring": 30 * pie, "dots": 4}
    return random.choices(list(kinds), list(kinds.values()))[0]


def _has_room(look: Look, kind: Kind, view: View, size: tuple[int, int]) -> bool:
    """Whether each mark has room for its number."""
    letters = look.letters()
    widest = max(wide(letters, look.number(value)) for line in view.values for value in line)
    if kind == "rows":
        room = (size[1] - 90) / len(view.categories)
        return room * look.share / len(view.series) >= 0.85 * look.small
    if kind != "bars" and len(view.series) > 1:
        return False
    room = (size[0] - 80) / len(view.categories)
    return widest + 3 < (room * look.share / len(view.series) if len(view.series) > 1 else room)


def _coarse(view: View) -> View:
    """Numbers rounded to about a hundredth of the largest."""

    def step(top: float) -> float:
        size = 10.0 ** math.floor(math.log10(top / 100))
        return next(size * factor for factor in (1, 2, 5, 10) if top / (size * factor) <= 100.001)

    steps = [step(max(line) if view.pair else view.largest) if max(line) else 1.0 for line in view.values]
    lines = zip(view.values, steps, strict=True)
    return replace(view, values=tuple(tuple(round(round(v / s) * s, 6) for v in line) for line, s in lines))


def _shares(view: View) -> View:
    """Whole per cents that add up to a hundred (largest remainders)."""
    total = sum(view.values[0])
    exact = [100 * value / total for value in view.values[0]]
    parts = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda at: parts[at] - exact[at])
    for at in by_rest[: 100 - sum(parts)]:
        parts[at] += 1
    return replace(view, values=(tuple(map(float, parts)),), measure="Share", unit="%")


def _fitting(look: Look, title: str, room: float) -> str:
    letters = font(look.face, look.large)
    return next((t for t in (title, title.split(",")[0].split(" by ")[0]) if wide(letters, t) <= room), "")


# Marks --------------------------------------------------------------------------------------------------


def _plot(random: Random, sheet: Sheet, look: Look, chart: Chart) -> Chart:
    """Bars, lines, an area or dots; returns the chart with the worth of a pixel."""
    view = chart.view
    left, top, right, bottom = 6.0, heading(sheet, look, chart.title), sheet.size[0] - 8.0, sheet.size[1] - 6.0
    if len(view.series) > 1:
        left, top, right, bottom = legend(sheet, look, view.series, (left, top, right, bottom))
    layout = _layout(random, look, chart, (left, top, right, bottom))
    frame, numbers, below, beside = layout.frame, layout.numbers, layout.below, layout.beside
    ticks = frame.scale
    rows = chart.kind == "rows"
    middles = frame.middles(len(view.categories), down=rows)
    ground(sheet, look, frame, middles, level=not rows)
    if rows:
        _rows(sheet, look, chart, frame, middles)
        left_axis(sheet, look, frame, list(zip(middles, view.categories, strict=True)), beside)
        bottom_axis(sheet, look, frame, [(frame.x(t), n) for t, n in zip(ticks, numbers, strict=True)], below, bottom)
    else:
        (_bars if chart.kind == "bars" else _strokes)(sheet, look, chart, frame, middles)
        left_axis(sheet, look, frame, [(frame.y(t), n) for t, n in zip(ticks, numbers, strict=True)], beside)
        bottom_axis(sheet, look, frame, list(zip(middles, view.categories, strict=True)), below, bottom, layout.angle)
    edges(sheet, look, frame)
    return replace(chart, grains=(layout.grain(rows),) * len(view.series))


def _layout(random: Random, look: Look, chart: Chart, box: Box) -> Layout:
    """Leaves room beside and below the plot for what is written along its axes."""
    view, letters = chart.view, look.letters()
    left, top, right, bottom = box
    ticks = scale(_lowest(random, chart), view.largest, random.randint(4, 6))
    numbers = tuple(look.number(tick) for tick in ticks)
    title_room = look.small + 6
    if chart.kind == "rows":
        below, beside = chart.value_axis, chart.category_axis
        left += max(wide(letters, name) for name in view.categories) + 6 + title_room * bool(beside)
        right -= (max(_label_widths(look, chart)) + 4) if chart.labelled else wide(letters, numbers[-1]) / 2
        angle, depth = 0.0, look.small + 6.0
    else:
        below, beside = chart.category_axis, chart.value_axis
        left += max(wide(letters, number) for number in numbers) + 6 + title_room * bool(beside)
        top += look.small + 3 if chart.labelled else 3
        angle, depth, left = _slant(look, view.categories, left, right)
    frame = Frame(left, top, right, bottom - depth - title_room * bool(below), ticks)
    return Layout(frame, numbers, below, beside, angle)


def _lowest(random: Random, chart: Chart) -> float:
    """Where the scale begins: at nought but for lines and dots that all lie high."""
    low, high = chart.view.smallest, chart.view.largest
    if chart.kind in ("lines", "dots") and low > 0.4 * high and low < high and random.random() < 0.6:
        return max(0.0, low - 0.3 * (high - low))
    return 0.0


def _label_widths(look: Look, chart: Chart) -> list[float]:
    letters = look.letters()
    return [wide(letters, look.number(value) + chart.sign) for line in chart.view.values for value in line]


def _slant(look: Look, names: tuple[str, ...], left: float, right: float) -> tuple[float, float, float]:
    """The angle of the names under an axis, the depth they take, and a left end that keeps the first in sight."""
    letters = look.letters()
    widest, room = max(wide(letters, name) for name in names), (right - left) / len(names)
    if widest + 5 <= room:
        return 0.0, look.small + 7.0, left
    if widest > 40:
        first = 0.77 * wide(letters, names[0]) + 4
        return 40.0, 0.65 * widest + 0.8 * look.small + 6, max(left, first - room / 2)
    return 90.0, widest + 7, left


def _bars(sheet: Sheet, look: Look, chart: Chart, frame: Frame, middles: list[float]) -> None:
    room = (frame.right - frame.left) / len(middles) * look.share
    thick = room / len(chart.view.series)
    for number, line in enumerate(chart.view.values):
        for middle, value in zip(middles, line, strict=True):
            start = middle - room / 2 + number * thick
            top = frame.y(value)
            edge = look.ink if look.edge else None
            sheet.box((start, top, start + thick, frame.bottom), look.fills[number], edge, look.round)
            if chart.labelled:
                sheet.words((start + thick / 2, top - 2), look.number(value), look.letters(), look.ink, "mb")


def _rows(sheet: Sheet, look: Look, chart: Chart, frame: Frame, middles: list[float]) -> None:
    room = (frame.bottom - frame.top) / len(middles) * look.share
    thick = room / len(chart.view.series)
    for number, line in enumerate(chart.view.values):
        for middle, value in zip(middles, line, strict=True):
            start = middle - room / 2 + number * thick
            end = frame.x(value)
            edge = look.ink if look.edge else None
            sheet.box((frame.left, start, end, start + thick), look.fills[number], edge, look.round)
            if chart.labelled:
                sheet.words((end + 4, start + thick / 2), look.number(value), look.letters(), look.ink, "lm")


def _strokes(sheet: Sheet, look: Look, chart: Chart, frame: Frame, middles: list[float]) -> None:
    """Lines, an area or dots."""
    for number, line in enumerate(chart.view.values):
        fill = look.fills[number]
        points = [(x, frame.y(value)) for x, value in zip(middles, line, strict=True)]
        if chart.kind == "area":
            pale: Colour = tuple((2 * c + 3 * p) // 5 for c, p in zip(fill, look.plot, strict=True))  # type: ignore[assignment]
            sheet.polygon([(points[0][0], frame.bottom), *points, (points[-1][0], frame.bottom)], pale)
        if chart.kind != "dots":
            sheet.line(points, fill, look.width)
        for at, (point, value) in enumerate(zip(points, line, strict=True)):
            if chart.kind == "dots" or look.edge or look.ticks:
                sheet.dot(point, 4 if chart.kind == "dots" else 2.8, fill, look.form)
            if chart.labelled:
                # Under a valley, where the line leaves room, unless the floor is near.
                low = chart.kind == "lines" and value < min([*line[max(0, at - 1) : at], *line[at + 1 : at + 2]])
                low = low and frame.bottom - point[1] > look.small + 7
                place = (point[0], point[1] + (5 if low else -5))
                sheet.words(place, look.number(value), look.letters(), look.ink, "mt" if low else "mb")


def _pair(random: Random, sheet: Sheet, look: Look, chart: Chart) -> Chart:
    """Points by two measures, a colour for each category."""
    view, letters = chart.view, look.letters()
    top = heading(sheet, look, chart.title)
    left, top, right, bottom = legend(sheet, look, view.categories, (6, top, sheet.size[0] - 8, sheet.size[1] - 6))
    across, up = view.values
    level = scale(0.0 if random.random() < 0.5 else 0.8 * min(up), max(up), random.randint(4, 6))
    upright = scale(0.0 if random.random() < 0.5 else 0.8 * min(across), max(across), random.randint(3, 5))
    left += max(wide(letters, look.number(tick)) for tick in level) + 6 + look.small + 6
    frame = Frame(left, top + 4, right - 10, bottom - 2 * (look.small + 6), level)
    turned = replace(frame, scale=upright)
    ground(sheet, look, frame, [turned.x(tick) for tick in upright], level=True)
    for x, y, fill in zip(across, up, look.fills, strict=True):
        sheet.dot((turned.x(x), frame.y(y)), 4.5, fill, look.form)
    left_axis(sheet, look, frame, [(frame.y(t), look.number(t)) for t in level], chart.value_axis)
    bottom_axis(sheet, look, frame, [(turned.x(t), look.number(t)) for t in upright], chart.category_axis, bottom)
    edges(sheet, look, frame)
    worth = (upright[-1] - upright[0]) / (frame.right - frame.left), (level[-1] - level[0]) / (frame.bottom - frame.top)
    return replace(chart, grains=worth)


def _pie(random: Random, sheet: Sheet, look: Look, chart: Chart) -> None:
    """Slices from the top clockwise, with names in a legend or around, and per cents within or behind the names."""
    view, letters = chart.view, look.letters()
    shares = view.values[0]
    box = (8.0, heading(sheet, look, chart.title), sheet.size[0] - 8.0, sheet.size[1] - 8.0)
    within = min(shares) >= 7 and random.random() < 0.75
    written = [said(share) + chart.sign for share in shares]
    names = view.categories if within else tuple(f"{n} {w}" for n, w in zip(view.categories, written, strict=True))
    around = min(shares) >= 5 and random.random() < 0.4
    widest = max(wide(letters, name) for name in names)
    if around:
        box = (box[0] + widest, box[1] + look.small, box[2] - widest, box[3] - look.small)
    else:
        box = legend(sheet, look, names, box)
    radius = max(30.0, min(box[2] - box[0], box[3] - box[1]) / 2 - 4)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    hole = 0.5 * radius if chart.kind == "ring" else 0.0
    turned = -90.0
    for share, fill, name, text in zip(shares, look.fills, names, written, strict=True):
        end = turned + 3.6 * share
        sheet.slice(middle, radius, turned, end, fill, look.paper)
        angle = math.radians((turned + end) / 2)
        across, down = math.cos(angle), math.sin(angle)
        if within:
            reach = 0.75 * radius if hole else 0.65 * radius
            ink = (255, 255, 255) if luminance(fill) < 150 else (15, 15, 15)
            sheet.words((middle[0] + reach * across, middle[1] + reach * down), text, letters, ink, "mm")
        if around:
            place = (middle[0] + (radius + 6) * across, middle[1] + (radius + 6) * down)
            sheet.words(place, name, letters, look.ink, "lm" if across >= 0 else "rm")
        turned = end
    if hole:
        sheet.dot(middle, hole, look.paper)
