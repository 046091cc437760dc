"""Supervised fine-tuning on conversations: everything moves, what the assistant says is learned and nothing else.

    kimi-vl train run recipes/nano/sft_short.toml
    kimi-vl train run recipes/nano/sft_long.toml

The report goes through its data once at a context of 32,768 and once at 131,072, at rates from 2e-5 to 2e-6 and from
1e-5 to 1e-6. Source: Kimi-VL report (arXiv 2504.07491), section 2.3.
"""

from __future__ import annotations

from kimi_vl.train.stage import Stage

STAGE = Stage(moves=("",))
