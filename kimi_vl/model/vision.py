"""MoonViT: patches of pictures at their own resolution → one feature block per 2x2 patches.

    pixel_values [L, 3, 14, 14]
      → patch_embed     linear map of each patch + position table resampled to the picture's grid   [L, D]
      → encoder.blocks  pre-norm attention within each picture (2-D rotary) and GELU MLP            [L, D]
      → encoder.final_layernorm
      → merge_patches   2x2 neighbours side by side, per picture                                    [L/4, 4, D]

L patches of all pictures end to end, D hidden_size, H heads. Each picture's patches are in raster order.
Knows nothing of files, text or the decoder. Source: Kimi-VL report (arXiv 2504.07491), section 2.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import MoonViTConfig
from kimi_vl.model.rotary import rotate_pairs
from kimi_vl.model.segments import places_from, segment_attention, sent, within

Grid = tuple[int, int]  # rows, columns of a picture, in patches

# Pictures share a pass through the tower until they fill this many patches: small ones keep the matrix
# products busy together, while large ones go alone, so that their activations are never held at once.
PATCHES_PER_PASS = {"cpu": 4096, "cuda": 262144}


@dataclass(frozen=True)
class Places:
    """Where each of the L patches of pictures that lie end to end is, all [L] int64."""

    picture: Tensor
    row: Tensor
    column: Tensor


def places_of(grids: Sequence[Grid], device: torch.device) -> Places:
    """Pictures in raster order."""
    picture, nth = within([h * w for h, w in grids], device)
    width = sent([w for _, w in grids], device).index_select(0, picture)
    return Places(picture, nth // width, nth % width)


def rotary_angles(grids: Sequence[Grid], head_dim: int, device: torch.device) -> Tensor:
    """Angles of 2-D rotary embedding: x·f0, y·f0, x·f1, y·f1, … with f_i = 10000^(-4i/head_dim).

    Returns: [L, head_dim / 2] float32, each picture in raster order.
    """
    steps = torch.arange(0, head_dim, 4, dtype=torch.float32, device=device)
    freqs = 1.0 / (10000.0 ** (steps / head_dim))  # [head_dim / 4]
    places = places_of(grids, device)
    column_and_row = torch.stack((places.column, places.row), dim=1).float()  # [L, 2]
    return (freqs[None, :, None] * column_and_row[:, None, :]).flatten(1)


def merge_patches(x: Tensor, grids: Sequence[Grid], kernel: tuple[int, int]) -> Tensor:
    """[L, D] → [L / (kh*kw), kh*kw, D]: each picture's blocks, and the patches of each, in raster order."""
    kh, kw = kernel
    blocks = places_of([(h // kh, w // kw) for h, w in grids], x.device)
    counts, widths = (sent(numbers, x.device) for numbers in ([h * w for h, w in grids], [w for _, w in grids]))
    first, width = (y.index_select(0, blocks.picture) for y in (counts.cumsum(0) - counts, widths))
    corner = first + blocks.row * kh * width + blocks.column * kw  # [L / (kh*kw)]
    down, across = torch.arange(kh, device=x.device), torch.arange(kw, device=x.device)
    order = corner[:, None, None] + down[:, None] * width[:, None, None] + across
    return x.index_select(0, order.flatten()).unflatten(0, (-1, kh * kw))


@lru_cache(maxsize=1024)
def _taps(old: int, new: int) -> tuple[Tensor, Tensor]:
    """Bicubic resampling of ``old`` places to ``new``: the four that each takes [new, 4], and how much of each."""
    weights = F.interpolate(torch.eye(old)[None, None], size=(new, old), mode="bicubic")[0, 0]  # [new, old]
    at = weights.abs().topk(min(4, old)).indices
    return at, weights.gather(1, at)


def _taps_of(old: int, sides: Sequence[int], picture: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The same of every patch along one axis, on which its picture has ``sides`` places: both [L, 4]."""
    distinct = list(dict.fromkeys(sides))
    firsts = dict(zip(distinct, itertools.accumulate(distinct, initial=0), strict=False))
    at, weights = (torch.cat(parts) for parts in zip(*(_taps(old, side) for side in distinct), strict=True))
    here = sent([firsts[side] for side in sides], place.device).index_select(0, picture) + place
    return sent(at, place.device).index_select(0, here), sent(weights, place.device).index_select(0, here)


class Learnable2DInterpPosEmb(nn.Module):
    """A table of position embeddings, resampled bicubically to each picture's grid."""

    def __init__(self, height: int, width: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(height, width, dim))

    def forward(self, grids: Sequence[Grid]) -> Tensor:
        """Returns: [L, D], the pictures' embeddings end to end. Equal grids are resampled once."""
        distinct = list(dict.fromkeys(grids))
        resampled = self.resample(distinct)
        if len(distinct) == len(grids):
            return resampled
        firsts = dict(zip(distinct, itertools.accumulate((h * w for h, w in distinct), initial=0), strict=False))
        at = places_from([firsts[grid] for grid in grids], [h * w for h, w in grids], self.weight.device)
        return resampled.index_select(0, at)

    def resample(self, grids: Sequence[Grid]) -> Tensor:
        """[L, D]: every patch takes sixteen places of the table, four rows by four columns."""
        height, width, dim = self.weight.shape
        places = places_of(grids, self.weight.device)
        rows, of_rows = _taps_of(height, [h for h, _ in grids], places.picture, places.row)  # [L, 4]
        columns, of_columns = _taps_of(width, [w for _, w in grids], places.picture, places.column)
        at = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        shares = (of_rows[:, :, None] * of_columns[:, None, :]).flatten(1)
        table = self.weight.view(-1, dim).float()
        return F.embedding_bag(at, table, mode="sum", per_sample_weights=shares).to(self.weight.dtype)


class MoonVisionPatchEmbed(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.pos_emb = Learnable2DInterpPosEmb(
            config.init_pos_emb_height, config.init_pos_emb_width, config.hidden_size
        )

    def forward(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        # A convolution whose window is the whole patch is one linear map, and far faster as one.
        x = F.linear(pixel_values.flatten(1), self.proj.weight.flatten(1), self.proj.bias)
        return x + self.pos_emb(grids)


class MoonVitMLP(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.fc0 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc1 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc1(F.gelu(self.fc0(x), approximate="tanh"))


class MoonVitEncoderLayer(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.norm0 = nn.LayerNorm(config.hidden_size)
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlp = MoonVitMLP(config)

    def attention(self, x: Tensor, angles: Tensor, lengths: Sequence[int]) -> Tensor:
        q, k, v = self.wqkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(1)  # [L, H, dim]
        q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
        out = segment_attention(q, k, v, lengths, scale=self.head_dim**-0.5, causal=False)
        return self.wo(out.flatten(1))

    def forward(self, x: Tensor, angles: Tensor, lengths: Sequence[int]) -> Tensor:
        x = x + self.attention(self.norm0(x), angles, lengths)
        return x + self.mlp(self.norm1(x))


class MoonVitEncoder(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.blocks = nn.ModuleList(MoonVitEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size)

    def forward(self, x: Tensor, grids: Sequence[Grid]) -> Tensor:
        angles = rotary_angles(grids, self.head_dim, x.device)
        lengths = [h * w for h, w in grids]
        for block in self.blocks:
            x = block(x, angles, lengths)
        return self.final_layernorm(x)


class MoonViT(nn.Module):
    """The vision tower. Parameter names are those of the official checkpoint."""

    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.merge_kernel_size = config.merge_kernel_size
        self.patch_embed = MoonVisionPatchEmbed(config)
        self.encoder = MoonVitEncoder(config)

    def forward(self, pixel_values: Tensor, image_grid_hws: Tensor) -> Tensor:
        """Encodes pictures, each seen by itself.

        Args:
            pixel_values: [L, 3, patch, patch] in the weights' dtype, pictures end to end, each in raster order.
            image_grid_hws: [N, 2] integers, rows and columns of each picture in patches.

        Returns: [L / (kh*kw), kh*kw, D], pictures end to end.
        Raises: ``ValueError`` if the grids do not fit the patches or cannot be merged.
        """
        grids = self.check_grids(pixel_values, image_grid_hws)
        merged = [self.encode(patches, some) for patches, some in _passes(pixel_values, grids)]
        return torch.cat(merged) if len(merged) > 1 else merged[0]

    def encode(self, pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
        """One pass. Only what it returns outlives it, so that the next pass finds the memory free."""
        x = self.encoder(self.patch_embed(pixel_values, grids), grids)
        return merge_patches(x, grids, self.merge_kernel_size)

    def check_grids(self, pixel_values: Tensor, image_grid_hws: Tensor) -> list[Grid]:
        grids = [(int(h), int(w)) for h, w in image_grid_hws.tolist()]
        kh, kw = self.merge_kernel_size
        for h, w in grids:
            if h < 1 or w < 1 or h % kh or w % kw:
                raise ValueError(f"image_grid_hws: {h}x{w} patches cannot be merged {kh}x{kw}")
        patches = sum(h * w for h, w in grids)
        if patches != pixel_values.shape[0]:
            raise ValueError(f"image_grid_hws: the grids hold {patches} patches, pixel_values {pixel_values.shape[0]}")
        return grids


def _passes(pixel_values: Tensor, grids: Sequence[Grid]) -> Iterator[tuple[Tensor, list[Grid]]]:
    """Cuts the pictures, in order, into passes of at most ``PATCHES_PER_PASS`` patches or one picture."""
    most = PATCHES_PER_PASS[pixel_values.device.type]
    some: list[Grid] = []
    start = size = 0
    for h, w in grids:
        if some and size + h * w > most:
            yield pixel_values[start : start + size], some
            start, some, size = start + size, [], 0
        some.append((h, w))
        size += h * w
    if some:
        yield pixel_values[start : start + size], some
