"""Long-context activation: the same model learns to look far back, a quarter of its data being long.

    kimi-vl train run recipes/nano/long_1.toml
    kimi-vl train run recipes/nano/long_2.toml

The base of the rotary embedding rises from 50,000 to 800,000, so that the slowest pair turns once in all of the new
context; the window grows twice by four. The report spends 0.3 T tokens on it. Source: Kimi-VL report (arXiv
2504.07491), section 2.3.
"""

from __future__ import annotations

from dataclasses import replace

from kimi_vl.config import KimiVLConfig
from kimi_vl.train.stage import Stage

ROPE_THETA = 800_000.0


def config(old: KimiVLConfig) -> KimiVLConfig:
    return replace(old, text_config=replace(old.text_config, rope_theta=ROPE_THETA))


STAGE = Stage(moves=("",), config=config)
