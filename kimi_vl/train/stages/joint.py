"""Joint pretraining, and its cooldown on better data: everything moves.

    kimi-vl train run recipes/nano/joint.toml
    kimi-vl train run recipes/nano/cooldown.toml

The report spends 1.4 T tokens of text and pictures on the first, 0.6 T on the second. Source: Kimi-VL report (arXiv
2504.07491), section 2.3.
"""

from __future__ import annotations

from kimi_vl.train.stage import Stage

STAGE = Stage(moves=("",))
