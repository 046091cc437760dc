"""Text pretraining: the decoder alone learns to go on with text.

    kimi-vl train run recipes/nano/text.toml

The report's decoder comes from 5.2 T tokens at a context of 8,192. Expect a loss that starts at ln V.
Source: Kimi-VL report (arXiv 2504.07491), section 2.3.
"""

from __future__ import annotations

from kimi_vl.train.stage import Stage

STAGE = Stage(moves=("model.language_model.",))
