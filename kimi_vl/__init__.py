"""Kimi-VL: pictures and words in, words out.

    from kimi_vl import KimiVL, KimiVLProcessor

Names are looked up when first used, so that importing the package does not yet import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Answer", "Grammar", "KimiVL", "KimiVLProcessor", "Reply", "SamplingParams", "replies"]

if TYPE_CHECKING:
    from kimi_vl.answer import Answer, KimiVL, Reply, replies
    from kimi_vl.grammar import Grammar
    from kimi_vl.processor import KimiVLProcessor
    from kimi_vl.sampling import SamplingParams

_ROOMS = {
    "Answer": "answer",
    "Grammar": "grammar",
    "KimiVL": "answer",
    "KimiVLProcessor": "processor",
    "Reply": "answer",
    "SamplingParams": "sampling",
    "replies": "answer",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
