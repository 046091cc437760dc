"""The stages of the report, one short file each, in the order in which a model goes through them."""

from __future__ import annotations

from kimi_vl.train.stage import Stage
from kimi_vl.train.stages import alignment, joint, long_context, sft, text, vision

STAGES: dict[str, Stage] = {
    "text": text.STAGE,
    "vision": vision.STAGE,
    "alignment": alignment.STAGE,
    "joint": joint.STAGE,
    "long_context": long_context.STAGE,
    "sft": sft.STAGE,
}
