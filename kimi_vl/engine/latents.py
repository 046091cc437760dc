"""Rows of the latent cache: a token's latent and rotary key in one layer, as bfloat16 or in 8 bits.

    int8: q of rank + rope numbers, then float32 scales: one for each 128 numbers of the latent and one for the rest

In plain torch, as :mod:`kimi_vl.engine.reference` has it; the native functions read and write the same bytes.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor

from kimi_vl.engine.pages import PAGE, SCALE_COLUMNS, CacheDtype, row_bytes


def empty_cache(pages: int, kv_lora_rank: int, qk_rope_head_dim: int, dtype: CacheDtype) -> Tensor:
    """One layer's: [pages, 64, rank + rope] bfloat16, or int8 of the bytes of a row. What it holds is not said."""
    width = row_bytes(kv_lora_rank, qk_rope_head_dim, dtype)
    memory = _large_pages(pages * PAGE * width).view(torch.bfloat16 if dtype == "bfloat16" else torch.int8)
    return memory.view(pages, PAGE, -1)


def _large_pages(size: int) -> Tensor:
    """Bytes whose system pages are large where Linux has such: a token reads all of a long cache, and where each page
    lies would have to be looked up too often."""
    if sys.platform != "linux" or not size:
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of a kernel that was built without
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def write_rows(cache: Tensor, at: Tensor, rows: Tensor, kv_lora_rank: int) -> None:
    """rows [n, rank + rope] float32 to the places ``at`` [n], counted over all pages."""
    flat = cache.view(-1, cache.shape[-1])
    if cache.dtype == torch.bfloat16:
        flat[at] = rows.bfloat16()
        return
    whole, scales = [], []
    for part in _parts(rows, kv_lora_rank):
        most = part.abs().amax(1, keepdim=True)
        whole.append((part * torch.where(most > 0, 127 / most, 0)).round().to(torch.int8))
        scales.append((most / 127).view(torch.int8))
    flat[at] = torch.cat((*whole, *scales), dim=1)


def read_rows(cache: Tensor, at: Tensor, kv_lora_rank: int, qk_rope_head_dim: int) -> Tensor:
    """[n, rank + rope] float32 from the places ``at`` [n]."""
    rows = cache.view(-1, cache.shape[-1])[at]
    if cache.dtype == torch.bfloat16:
        return rows.float()
    width = kv_lora_rank + qk_rope_head_dim
    scales = rows[:, width:].contiguous().view(torch.float32).split(1, dim=1)
    parts = _parts(rows[:, :width].float(), kv_lora_rank)
    return torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], dim=1)


def _parts(rows: Tensor, kv_lora_rank: int) -> list[Tensor]:
    """What has one scale each."""
    return [*rows[:, :kv_lora_rank].split(SCALE_COLUMNS, dim=1), rows[:, kv_lora_rank:]]
