"""Alignment: MoonViT and the projector learn to be understood by a decoder that stays as it is.

    kimi-vl train run recipes/nano/alignment.toml

The report spends 0.1 T tokens on it. Source: Kimi-VL report (arXiv 2504.07491), section 2.3.
"""

from __future__ import annotations

from kimi_vl.train.stage import Stage

STAGE = Stage(moves=("model.vision_tower.", "model.multi_modal_projector.", "reader.", "placer."))
