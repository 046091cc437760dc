"""Curves over steps as SVG: points in, one chart out. Knows nothing of runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, linear_regression

Pixel = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[int, float]]  # step and value
    exact: bool = False  # without noise, so that there is nothing to smooth


WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 342, 10, 176  # of the plot itself, in pixels
_MOST = 400  # places at which a curve is drawn; of many points, the least and the greatest of each place


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, which lie at the pixels ``begin`` and ``end``."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high, here = (
            map(math.log10, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return self.begin + (self.end - self.begin) * (here - low) / (high - low)

    def ticks(self, at_least: int) -> list[float]:
        """Round numbers within."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for parts in ((1,), (1, 3), (1, 2, 5)):
                ticks = [part * 10.0**decade for decade in decades for part in parts]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) >= at_least:
                    break
            return ticks[:: math.ceil(len(ticks) / 8)]
        power = 10.0 ** math.floor(math.log10(self.high - self.low))
        for step in (power * part for part in (5, 2, 1, 0.5, 0.2)):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first + 1 >= at_least:
                break
        return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def axis_of(values: Sequence[float], begin: float, end: float, *, logarithmic: bool | None) -> Axis:
    """One on which all ``values`` lie. It is ``logarithmic``, if that is left open, where they range over a factor of
    20; it begins at 0 where that is near."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    if logarithmic is None:
        logarithmic = low > 0 and high >= 20 * low
    if not logarithmic and 0 < low < high / 4:
        low = 0.0
    return Axis(low, high, begin, end, logarithmic)


def readable(value: float) -> str:
    """Four digits at most, and no more zeros than one can count at a glance."""
    if not math.isfinite(value):
        return str(value)
    for least, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (9999.5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}".replace("e-0", "e-")


def smoothed(points: Sequence[Pixel], *, widely: bool = True) -> list[Pixel]:
    """At each place what a fifteenth of all points around it come to, or the place alone: their mean, and where some
    are missing, as towards the ends, what a straight line through them says. So nothing lags. ``nan`` leaves a gap."""
    half, done = len(points) // 30 if widely else 0, []
    places = range(0, len(points), math.ceil(len(points) / _MOST))
    for place in dict.fromkeys((*places, len(points) - 1)):
        x, y = points[place]
        near = [point for point in points[max(0, place - half) : place + half + 1] if math.isfinite(point[1])]
        if math.isfinite(y) and len(near) == 2 * half + 1:
            y = fmean(value for _, value in near)
        elif math.isfinite(y) and len(near) > 2:
            slope, intercept = linear_regression(*zip(*near, strict=True))
            heights = [height for _, height in near]
            y = min(max(heights), max(min(heights), slope * x + intercept))
        done.append((x, y))
    return done


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of each place's points the least, the greatest and one that is not finite: no spike is lost."""
    size = math.ceil(len(points) / _MOST)
    if size < 4:
        return list(points)
    kept: set[tuple[int, float]] = {points[-1]}
    for begin in range(0, len(points), size):
        finite = [p for p in points[begin : begin + size] if math.isfinite(p[1])]
        broken = [p for p in points[begin : begin + size] if not math.isfinite(p[1])]
        kept |= {min(finite, key=_value), max(finite, key=_value)} if finite else set()
        kept |= set(broken[:1])
    return sorted(kept, key=lambda p: p[0])


def _value(point: tuple[int, float]) -> float:
    return point[1]


def chart(title: str, curves: Sequence[Curve], *, logarithmic: bool | None) -> str:
    """A figure of curves over one axis of steps; nothing, if no value is finite. The page's script reads ``data-``."""
    curves = [curve for curve in curves if curve.points]
    finite = [(step, value) for curve in curves for step, value in curve.points if math.isfinite(value)]
    if not finite:
        return ""
    steps = axis_of([step for curve in curves for step, _ in curve.points], LEFT, RIGHT, logarithmic=False)
    values = axis_of([value for _, value in finite], BOTTOM, TOP, logarithmic=logarithmic)
    drawn, told, hover = "", "", []
    for tick in values.ticks(3):
        y = values.at(tick)
        drawn += f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        drawn += f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{readable(tick)}</text>'
    for tick in steps.ticks(3):
        drawn += f'<text class="x" x="{steps.at(tick):.1f}" y="{HEIGHT - 8}">{readable(tick)}</text>'
    for number, curve in enumerate(curves):
        points = thinned(curve.points)
        pixels = [(steps.at(s), values.at(v) if math.isfinite(v) else math.nan) for s, v in curve.points]
        dots = "".join(f"M{steps.at(s):.1f} {values.at(v):.1f}h0" for s, v in points if math.isfinite(v))
        line, pen = "", "M"
        for x, y in smoothed(pixels, widely=not curve.exact):
            if math.isfinite(y):
                line += f"{pen}{x:.1f} {y:.1f}"
            pen = "L" if math.isfinite(y) else "M"
        drawn += f'<path class="dots c{number}" d="{dots}"/><path class="line c{number}" d="{line}"/>'
        name = f"{escape(curve.name)} " if len(curves) > 1 else ""
        told += f'<span class="c{number}">{name}<b>{readable(curve.points[-1][1])}</b></span>'
        hover.append({"x": [s for s, _ in points], "y": [readable(v) for _, v in points]})
    data = json.dumps({"low": steps.low, "high": steps.high, "left": LEFT, "right": RIGHT, "curves": hover})
    kind = ", logarithmic" if values.logarithmic else ""
    return (
        f'<figure data-chart="{escape(data)}"><figcaption><span>{escape(title)}<i>{kind}</i></span>'
        f'<span class="told">{told}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(title)}">{drawn}'
        f'<path class="cursor" d="M0 {TOP}V{BOTTOM}" hidden/><text class="at" y="{TOP + 10}"/></svg></figure>'
    )
