"""The learning rate of a step.

    wsd     up, level, down in a straight line over the last share ``decay`` of the steps
    cosine  up, then down along half a wave over all other steps

Both go up in a straight line over ``warmup`` steps, and down to the share ``floor`` of the peak.
Source: Kimi-VL's decoder was trained with the cosine (arXiv 2502.16982, section 3.3); MiniCPM (arXiv 2404.06395),
section 4, for the level rate.
"""

from __future__ import annotations

import math

SHAPES = ("wsd", "cosine")


def rate(
    step: int, *, peak: float, warmup: int, total: int, shape: str = "wsd", decay: float = 0.3, floor: float = 0.0
) -> float:
    """The rate of ``step`` of ``total``, counted from 0. Raises ``ValueError`` for a shape that there is not."""
    if shape not in SHAPES:
        raise ValueError(f"shape is one of {', '.join(SHAPES)}, not {shape!r}")
    if step < warmup:
        return peak * (step + 1) / warmup
    left = max(0, total - step)
    if shape == "wsd":
        high = min(1.0, left / max(1, round(total * decay)))
    else:
        high = (1 - math.cos(math.pi * min(1.0, left / max(1, total - warmup)))) / 2
    return peak * (floor + (1 - floor) * high)
