"""4-bit matrices: the format, and the way there and back in plain torch.

    weight[r, c] = (q[r, c] - 8) · scale[r, c // 32] · row_scale[r]      q: 0 … 15, scale: int8, row_scale: float32

that is 4.25 bits a weight and 32 a row. 16 rows × 128 columns make a block of 1,088 bytes, laid out as the native
functions read it: ``scale`` of 4 groups × 16 rows, then for each group of 32 columns ``byte[4][16 rows][4]``, where
byte [j][r][i] holds column 4j + i in its lower half and column 16 + 4j + i in its upper half. Rows are padded to 16,
columns to 128.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 32
BLOCK_ROWS, BLOCK_COLUMNS = 16, 128
BLOCK_BYTES = BLOCK_ROWS * BLOCK_COLUMNS // GROUP + BLOCK_ROWS * BLOCK_COLUMNS // 2


@dataclass(frozen=True, eq=False)
class Int4Matrix:
    """Matrices of one size, [rows, columns] each, stacked along the dimensions before (``...``) if there are any.

    ``rest`` is what these left over, in 4 bits too, for matrices that need 8.5 bits a weight.
    """

    blocks: Tensor  # [..., padded rows / 16, padded columns / 128, 1088] uint8
    row_scale: Tensor  # [..., padded rows] float32
    rows: int
    columns: int
    rest: Int4Matrix | None = None

    def __getitem__(self, index: int) -> Int4Matrix:
        rest = None if self.rest is None else self.rest[index]
        return Int4Matrix(self.blocks[index], self.row_scale[index], self.rows, self.columns, rest)


def pack(q: Tensor, scale: Tensor, row_scale: Tensor, *, rows: int, columns: int) -> Int4Matrix:
    """q [R, C] uint8, scale [R, C / 32] int8, row_scale [R] float32, padded, to blocks."""
    r, c = q.shape[0] // BLOCK_ROWS, q.shape[1] // BLOCK_COLUMNS
    halves = q.reshape(r, BLOCK_ROWS, c, 4, 2, 4, 4)  # (row block, row, column block, group, half, j, i)
    both = halves[..., 0, :, :] | halves[..., 1, :, :] << 4
    nibbles = both.permute(0, 2, 3, 4, 1, 5).reshape(r, c, -1)  # (row block, column block, group j row i)
    scales = scale.view(torch.uint8).reshape(r, BLOCK_ROWS, c, 4).permute(0, 2, 3, 1).reshape(r, c, -1)
    return Int4Matrix(torch.cat((scales, nibbles), dim=-1).contiguous(), row_scale, rows, columns)


def unpack(matrix: Int4Matrix) -> tuple[Tensor, Tensor]:
    """One matrix's q [R, C] uint8 and scale [R, C / 32] int8, padded."""
    r, c, _ = matrix.blocks.shape
    scales, nibbles = matrix.blocks.split((64, 1024), dim=-1)
    scale = scales.reshape(r, c, 4, BLOCK_ROWS).permute(0, 3, 1, 2).reshape(r * BLOCK_ROWS, c * 4)
    both = nibbles.reshape(r, c, 4, 4, BLOCK_ROWS, 4).permute(0, 4, 1, 2, 3, 5)  # (row block, row, c, group, j, i)
    q = torch.stack((both & 15, both >> 4), dim=4)  # (row block, row, c, group, half, j, i)
    return q.reshape(r * BLOCK_ROWS, c * BLOCK_COLUMNS), scale.contiguous().view(torch.int8)


def decode(matrix: Int4Matrix) -> Tensor:
    """One matrix as floats: [rows, columns] float32."""
    q, scale = unpack(matrix)
    step = scale.float() * matrix.row_scale[:, None]
    weights = ((q.float() - 8).unflatten(1, (-1, GROUP)) * step[..., None]).flatten(1)[: matrix.rows, : matrix.columns]
    return weights if matrix.rest is None else weights + decode(matrix.rest)


# How far the largest weight of a group may lie from the lowest level, -8: further in, it is cut off, further out,
# levels are given up.
_LEVELS = (6.0, 6.25, 6.5, 6.75, 7.0, 7.2, 7.4, 7.6, 7.8, 8.0, 8.2, 8.4, 8.6, 8.8, 9.0, 9.25, 9.5, 9.75, 10.0)


@dataclass(frozen=True)
class Loss:
    """What encoding cost: sums over the weights of squared errors and of squares."""

    squared_error: float
    squared: float

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.squared_error + other.squared_error, self.squared + other.squared)

    @property
    def relative(self) -> float:
        """Root of the errors' share, 0 if there was nothing to lose."""
        return math.sqrt(self.squared_error / self.squared) if self.squared else 0.0


def encode(weights: Tensor) -> tuple[Int4Matrix, Loss]:
    """A matrix [rows, columns] float32 to 4 bits, each group with the scale of least squared error of those tried."""
    rows, columns = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -columns % BLOCK_COLUMNS, 0, -rows % BLOCK_ROWS))
    x = padded.unflatten(1, (-1, GROUP))  # [R, groups, 32]
    most = x.gather(-1, x.abs().argmax(-1, keepdim=True)).squeeze(-1)
    best = torch.full_like(most, -1.0)
    scale = torch.zeros_like(most)
    for level in _LEVELS:
        for sign in (-1.0, 1.0):
            q = (x * (sign * level / most).nan_to_num(0, 0, 0)[..., None]).round().clamp(-8, 7)
            xq, qq = (x * q).sum(-1), (q * q).sum(-1)
            # with the best scale for these levels, xq / qq, the squared error falls by this much
            gain = torch.where(qq > 0, xq * xq / qq, 0)
            better = (gain > best) & (most != 0)
            best, scale = torch.where(better, gain, best), torch.where(better, xq / qq, scale)
    row_scale = scale.abs().amax(1) / 127
    whole = (scale / row_scale[:, None]).nan_to_num(0).round()
    step = whole * row_scale[:, None]
    inverse = torch.where(whole != 0, 1 / step, 0)
    q = (x * inverse[..., None]).round().clamp(-8, 7) + 8
    matrix = pack(q.to(torch.uint8).flatten(1), whole.to(torch.int8), row_scale, rows=rows, columns=columns)
    off = (weights - decode(matrix)).double().square().sum()
    return matrix, Loss(float(off), float(weights.double().square().sum()))


def stack(matrices: list[Int4Matrix]) -> Int4Matrix:
    """Matrices of one size as one."""
    rests = [m.rest for m in matrices if m.rest is not None]
    return Int4Matrix(
        torch.stack([m.blocks for m in matrices]),
        torch.stack([m.row_scale for m in matrices]),
        matrices[0].rows,
        matrices[0].columns,
        stack(rests) if rests else None,
    )


def join(matrices: list[Int4Matrix]) -> Int4Matrix:
    """Matrices one below the other. The rows of each but the last are a multiple of 16."""
    assert all(m.rows % BLOCK_ROWS == 0 for m in matrices[:-1])
    rests = [m.rest for m in matrices if m.rest is not None]
    return Int4Matrix(
        torch.cat([m.blocks for m in matrices]),
        torch.cat([m.row_scale for m in matrices]),
        sum(m.rows for m in matrices),
        matrices[0].columns,
        join(rests) if rests else None,
    )


def in_turn(first: Int4Matrix, second: Int4Matrix) -> Int4Matrix:
    """Sixteen rows of one, sixteen of the other: [..., rows, columns] and the same to [..., 2 · padded rows, columns].

    Those that are read together lie together: memory gives long stretches faster than short ones.
    """
    blocks = torch.stack((first.blocks, second.blocks), dim=-3).flatten(-4, -3)
    scales = [m.row_scale.unflatten(-1, (-1, BLOCK_ROWS)) for m in (first, second)]
    rest = None if first.rest is None or second.rest is None else in_turn(first.rest, second.rest)
    row_scale = torch.stack(scales, dim=-2).flatten(-3)
    return Int4Matrix(blocks, row_scale, row_scale.shape[-1], first.columns, rest)


def by_turns(y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """What such a matrix made, [T, 2 · padded rows], as what each made, [T, rows]."""
    first, second = y.unflatten(1, (-1, 2, BLOCK_ROWS)).unbind(2)
    return first.flatten(1)[:, :rows], second.flatten(1)[:, :rows]


def rows_of(matrix: Int4Matrix, index: Tensor) -> Tensor:
    """Single rows as floats, without touching others: index [n] int64 → [n, columns] float32."""
    blocks = matrix.blocks[index // BLOCK_ROWS]  # [n, column blocks, 1088]
    n, c, _ = blocks.shape
    row = index % BLOCK_ROWS
    scales, nibbles = blocks.split((64, 1024), dim=-1)
    each = torch.arange(n)
    scale = scales.reshape(n, c, 4, BLOCK_ROWS)[each, :, :, row].view(torch.int8)  # [n, c, 4]
    both = nibbles.reshape(n, c, 4, 4, BLOCK_ROWS, 4)[each, :, :, :, row]  # [n, c, group, j, i]
    q = torch.stack((both & 15, both >> 4), dim=3).flatten(3).float() - 8  # [n, c, group, 32]
    step = scale.float() * matrix.row_scale[index][:, None, None]
    rows = (q * step[..., None]).flatten(1)[:, : matrix.columns]
    return rows if matrix.rest is None else rows + rows_of(matrix.rest, index)


def likeliest(found: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The blocks of 16 in each row of ``found`` [T, rows] with the largest numbers: [T, blocks] int32, and all of their
    places, [T, 16 · blocks] int64."""
    by_block = found.unflatten(1, (-1, BLOCK_ROWS)).amax(2)
    wanted = by_block.topk(min(blocks, by_block.shape[1]), sorted=False).indices
    places = wanted[..., None] * BLOCK_ROWS + torch.arange(BLOCK_ROWS)
    return wanted.to(torch.int32), places.flatten(1)
