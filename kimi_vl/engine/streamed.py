"""The exact model of any size in little memory: each weight is read when it is used, and forgotten after.

In: an open :class:`Checkpoint`. Out: the modules of :mod:`kimi_vl.model`, in float32, of which no more than one linear
map is in memory at a time. Embeddings and head, the largest, are read in rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kimi_vl.checkpoint import Checkpoint, place
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.vision import MoonVisionPatchEmbed

_EMBED, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
# Rows of the vocabulary that are floats at a time.
_ROWS_AT_ONCE = 8192


class StreamedModel:
    """Every tensor is read from its file once for each pass."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        with torch.device("meta"):
            self._model = KimiVLForConditionalGeneration(checkpoint.config)
        self._model.eval().requires_grad_(False)
        for name, module in self._model.named_modules():
            own = _used_by(module)
            if own:
                _read_when_called(module, {leaf: f"{name}.{leaf}" for leaf in own}, checkpoint)

    @torch.inference_mode()
    def image_features(self, pixel_values: Tensor, image_grid_hws: Tensor) -> Tensor:
        """[L, 3, patch, patch] and [N, 2] → [image tokens, D], pictures end to end."""
        return self._model.image_features(pixel_values, image_grid_hws)

    def embed(self, ids: Tensor) -> Tensor:
        """[T] int64 → [T, D]."""
        return self._read(_EMBED)[ids].float()

    @torch.inference_mode()
    def hidden(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Embedded sequences, end to end [T, D], to their last states [T, D]."""
        positions = torch.cat([torch.arange(length) for length in lengths])
        return self._model.hidden(x, positions, lengths).states

    def logits(self, states: Tensor) -> Tensor:
        """[n, D] → [n, V]."""
        return torch.cat([states @ rows.float().T for rows in self._read(_HEAD).split(_ROWS_AT_ONCE)], dim=1)

    def _read(self, name: str) -> Tensor:
        return next(_read(self._checkpoint, [name]))


def _used_by(module: nn.Module) -> list[str]:
    """The tensors that a module uses when it is called, but for those that its parts read for themselves."""
    if isinstance(module, MoonVisionPatchEmbed):
        # its convolution is no more than a place for a matrix
        return ["proj.weight", "proj.bias"]
    if isinstance(module, nn.Conv2d):
        return []
    return [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]


def _read_when_called(module: nn.Module, names: dict[str, str], checkpoint: Checkpoint) -> None:
    """``names``: of the module's tensors, and what they are called in the checkpoint."""
    planned = module.state_dict()

    def read(*_: Any) -> None:
        for leaf, tensor in zip(names, _read(checkpoint, list(names.values())), strict=True):
            place(module, leaf, tensor.float())

    def forget(*_: Any) -> None:
        for leaf in names:
            place(module, leaf, planned[leaf])

    module.register_forward_pre_hook(read)
    module.register_forward_hook(forget)


def _read(checkpoint: Checkpoint, names: list[str]) -> Iterator[Tensor]:
    found = dict(checkpoint.read(names))
    return (found[name] for name in names)
