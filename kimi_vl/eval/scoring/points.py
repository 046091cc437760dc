"""Where an answer points: shares of a picture's width and height."""

from __future__ import annotations

import re

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_SHARE = r"(0(?:\.\d+)?|1(?:\.0+)?)"
_KIMI = re.compile(rf"x={_SHARE}, y={_SHARE}")
_LOOSE = re.compile(r"x=(\d*\.?\d+), y=(\d*\.?\d+)")


def kimi_vl(said: str) -> Point | None:
    """ScreenSpot-Pro's rule for Kimi-VL, of an answer without its thought: the first ``x=…, y=…`` of shares."""
    found = _KIMI.search(said)
    return (float(found[1]), float(found[2])) if found else None


def vlmevalkit(answer: str) -> Point:
    """VLMEvalKit's, of the whole answer: numbers of any size, and the corner where there are none."""
    found = _LOOSE.search(answer)
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def inside(point: Point, box: Box) -> bool:
    """Both edges count."""
    (x, y), (left, top, right, bottom) = point, box
    return left <= x <= right and top <= y <= bottom
