"""Activations that the backward pass finds by computing them again, put round a model's layers from outside.

A layer then keeps what comes into it and, if only ``cheap`` parts are recomputed, what its matrix products gave; norms,
SwiGLU's gate, rotary turns and casts are done again. Losses, gradients and the experts' loads stay what they were.
Source: Kimi-VL report (arXiv 2504.07491), section 2.4, and Moonlight's selective checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from kimi_vl.model.decoder import DecoderLayer
from kimi_vl.model.vision import MoonVitEncoderLayer

RECOMPUTE = ("nothing", "cheap", "layers")

_aten = torch.ops.aten
_DEAR = {
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default),
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
}
# By its name, since torch knows it only where it has been imported.
_VARLEN = "torch_attn::_varlen_attn"


def recompute_layers(model: nn.Module, what: str) -> None:
    """Has every layer of tower and decoder recompute ``what``, one of ``RECOMPUTE``."""
    if what not in RECOMPUTE:
        raise ValueError(f"recompute is one of {', '.join(RECOMPUTE)}, not {what!r}")
    if what == "nothing":
        return
    for layer in layers_of(model):
        keep: dict[str, Any] = {"context_fn": _keeping_products} if what == "cheap" else {}
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, **keep)


def layers_of(model: nn.Module) -> Iterable[nn.Module]:
    return [module for module in model.modules() if isinstance(module, DecoderLayer | MoonVitEncoderLayer)]


def _keeping_products() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, op: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    is_dear = op in _DEAR or op.name() == _VARLEN
    return CheckpointPolicy.MUST_SAVE if is_dear else CheckpointPolicy.PREFER_RECOMPUTE
