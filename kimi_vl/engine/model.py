"""The 4-bit model: ids and pictures to logits, with its latent cache in pages.

    pixel_values ─ MoonViT ─ projector ─→ features [image tokens, D]
    ids [T] ─ embed ─→ x [T, D] ─ layers, over the segments of a step ─→ x ─ norm, head ─→ logits [n, V]

Knows nothing of requests: whose tokens a step holds, and where their pages are, comes with the segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from kimi_vl.checkpoint import read_config
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine import store
from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import rows_of
from kimi_vl.engine.latents import empty_cache
from kimi_vl.engine.linear import QuantizedLinear
from kimi_vl.engine.pages import CacheDtype
from kimi_vl.engine.plan import PATCHES_AT_ONCE
from kimi_vl.engine.threads import torch_threads
from kimi_vl.engine.weights import DecoderWeights, Segment
from kimi_vl.model.projector import KimiVLMultiModalProjector
from kimi_vl.model.vision import MoonViT, MoonVitEncoderLayer, merge_patches, rotary_angles

# Of 16 tokens each.
EXACT_BLOCKS = 128


class Served(Protocol):
    """What the engine needs of a model: one in 4 bits as below, or one as it is (:mod:`kimi_vl.engine.exact`)."""

    config: KimiVLConfig

    @property
    def torch_threads(self) -> int: ...
    def new_cache(self, pages: int, dtype: CacheDtype = "bfloat16") -> Tensor: ...
    def embed(self, ids: Tensor) -> Tensor: ...
    def image_features(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor: ...
    def run(self, x: Tensor, segments: Sequence[Segment], cache: Tensor) -> Tensor: ...
    def logits(self, x: Tensor) -> Tensor: ...


class EngineModel:
    """A 4-bit checkpoint in memory."""

    def __init__(
        self,
        config: KimiVLConfig,
        decoder: DecoderWeights,
        tower: MoonViT,
        projector: KimiVLMultiModalProjector,
        backend: Backend,
    ) -> None:
        self.config = config
        self.decoder = decoder
        self.tower = tower
        self.projector = projector
        self.backend = backend

    @classmethod
    def from_folder(cls, folder: Path, backend: Backend) -> EngineModel:
        """Raises: ``ValueError`` naming the file where the folder is not whole."""
        config = read_config(folder)
        tower, projector = store.read_vision(folder, config, backend)
        return cls(config, store.read_decoder(folder, config), tower, projector, backend)

    @property
    def torch_threads(self) -> int:
        """That torch may use beside the native functions."""
        return self.backend.torch_threads

    def new_cache(self, pages: int, dtype: CacheDtype = "bfloat16") -> Tensor:
        """[layers, pages, 64, …] of rows as :mod:`kimi_vl.engine.latents` has them."""
        text = self.config.text_config
        cache = empty_cache(text.num_hidden_layers * pages, text.kv_lora_rank, text.qk_rope_head_dim, dtype)
        return cache.unflatten(0, (text.num_hidden_layers, pages))

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """[T] int64 → [T, D] float32."""
        return rows_of(self.decoder.ends.embed, ids)

    @torch.inference_mode()
    def image_features(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor:
        """One picture's patches [h·w, 3, patch, patch] float32 → [tokens, D] float32."""
        with torch_threads(self.backend.picture_torch_threads):
            return self._image_features(pixel_values, grid)

    def _image_features(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor:
        tower = self.tower
        x = tower.patch_embed(pixel_values, [grid])
        angles = rotary_angles([grid], tower.encoder.head_dim, x.device)
        for block in tower.encoder.blocks:
            assert isinstance(block, MoonVitEncoderLayer)
            qkv = block.wqkv(block.norm0(x)).unflatten(-1, (3, block.num_heads, block.head_dim))
            out = self.backend.picture_attention(qkv, angles)
            x = x + block.wo(out.flatten(1))
            rise = cast(QuantizedLinear, block.mlp.fc0).opened(gelu=True)
            fall = cast(QuantizedLinear, block.mlp.fc1).opened()
            for some in x.split(PATCHES_AT_ONCE):
                some += fall(rise(block.norm1(some)))
        merged = merge_patches(tower.encoder.final_layernorm(x), [grid], tower.merge_kernel_size)
        return self.projector(merged)

    @torch.inference_mode()
    def run(self, x: Tensor, segments: Sequence[Segment], cache: Tensor) -> Tensor:
        """The tokens of a step [T, D] float32 through all layers; they join the cache. Returns x after the last."""
        x = x.clone()
        self.backend.layers(x, self.decoder, segments, cache)
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Rows of what :meth:`run` returned, [n, D] → [n, V].

        The 2,048 or more likeliest tokens by weights of 4 bits get theirs by 8.5 bits: the others' half is not read.
        """
        ends, eps = self.decoder.ends, self.config.text_config.rms_norm_eps
        return self.backend.vocabulary(x, ends.head, norm=ends.norm, eps=eps, exact=EXACT_BLOCKS)
