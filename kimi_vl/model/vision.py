"""MoonViT: patches of pictures at their own resolution → one feature block per 2x2 patches.

    pixel_values [L, 3, 14, 14]
      → patch_embed     linear map of each patch + position table resampled to the picture's grid   [L, D]
      → encoder.blocks  pre-norm attention within each picture (2-D rotary) and GELU MLP            [L, D]
      → encoder.final_layernorm
      → merge_patches   2x2 neighbours side by side, per picture                                    [h*w/4, 4, D]

L patches of all pictures end to end, D hidden_size, H heads. Each picture's patches are in raster order.
Knows nothing of files, text or the decoder. Source: Kimi-VL report (arXiv 2504.07491), section 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import MoonViTConfig
from kimi_vl.model.rotary import rotate_pairs
from kimi_vl.model.segments import segment_attention

Grid = tuple[int, int]  # rows, columns of a picture, in patches

# Pictures share a pass through the tower until they fill this many patches: small ones keep the matrix
# products busy together, while large ones go alone, so that their activations are never held at once.
PATCHES_PER_PASS = 4096


def rotary_angles(grid: Grid, head_dim: int, device: torch.device) -> Tensor:
    """Angles of 2-D rotary embedding: x·f0, y·f0, x·f1, y·f1, … with f_i = 10000^(-4i/head_dim).

    Returns: [h*w, head_dim / 2] float32 in raster order.
    """
    h, w = grid
    steps = torch.arange(0, head_dim, 4, dtype=torch.float32, device=device)
    freqs = 1.0 / (10000.0 ** (steps / head_dim))  # [head_dim / 4]
    y, x = torch.meshgrid(
        torch.arange(h, dtype=torch.float32, device=device),
        torch.arange(w, dtype=torch.float32, device=device),
        indexing="ij",
    )
    column_and_row = torch.stack((x.flatten(), y.flatten()), dim=-1)  # [h*w, 2]
    return (freqs[None, :, None] * column_and_row[:, None, :]).flatten(1)


def merge_patches(x: Tensor, grid: Grid, kernel: tuple[int, int]) -> Tensor:
    """[h*w, D] of one picture → [h*w / (kh*kw), kh*kw, D], blocks and their patches in raster order."""
    (h, w), (kh, kw) = grid, kernel
    blocks = x.view(h // kh, kh, w // kw, kw, x.shape[-1]).permute(0, 2, 1, 3, 4)
    return blocks.reshape(h * w // (kh * kw), kh * kw, x.shape[-1])


class Learnable2DInterpPosEmb(nn.Module):
    """A table of position embeddings, resampled bicubically to each picture's grid."""

    def __init__(self, height: int, width: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(height, width, dim))

    def forward(self, grids: Sequence[Grid]) -> Tensor:
        """Returns: [L, D], the pictures' embeddings end to end."""
        resampled = {grid: self.resample(grid) for grid in set(grids)}
        return torch.cat([resampled[grid] for grid in grids])

    def resample(self, grid: Grid) -> Tensor:
        if grid == tuple(self.weight.shape[:2]):
            return self.weight.flatten(0, 1)
        table = self.weight.permute(2, 0, 1).unsqueeze(0)  # [1, D, height, width]
        return F.interpolate(table, size=grid, mode="bicubic").squeeze(0).permute(1, 2, 0).flatten(0, 1)


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
        angles_of = {grid: rotary_angles(grid, self.head_dim, x.device) for grid in set(grids)}
        angles = torch.cat([angles_of[grid] for grid in grids])  # [L, head_dim / 2]
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

    def forward(self, pixel_values: Tensor, image_grid_hws: Tensor) -> list[Tensor]:
        """Encodes pictures, each seen by itself.

        Args:
            pixel_values: [L, 3, patch, patch] in the weights' dtype, pictures end to end, each in raster order.
            image_grid_hws: [N, 2] integers, rows and columns of each picture in patches.

        Returns: one [h*w / (kh*kw), kh*kw, D] per picture.
        Raises: ``ValueError`` if the grids do not fit the patches or cannot be merged.
        """
        grids = self.check_grids(pixel_values, image_grid_hws)
        merged: list[Tensor] = []
        for patches, some in _passes(pixel_values, grids):
            merged += self.encode(patches, some)
        return merged

    def encode(self, pixel_values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """One pass. Only what it returns outlives it, so that the next pass finds the memory free."""
        x = self.encoder(self.patch_embed(pixel_values, grids), grids)
        pictures = x.split([h * w for h, w in grids])
        return [
            merge_patches(picture, grid, self.merge_kernel_size) for picture, grid in zip(pictures, grids, strict=True)
        ]

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
    some: list[Grid] = []
    start = size = 0
    for h, w in grids:
        if some and size + h * w > PATCHES_PER_PASS:
            yield pixel_values[start : start + size], some
            start, some, size = start + size, [], 0
        some.append((h, w))
        size += h * w
    if some:
        yield pixel_values[start : start + size], some
