"""One safetensors file of a 4-bit checkpoint: its tensors, taken by name, each checked as it is taken.

Files are mapped, so that weights are in memory once, however many processes use them, and what the system needs more
urgently it can take back. What every step reads from end to end is brought there at once, the rest when it is used.
"""

from __future__ import annotations

import json
import mmap
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kimi_vl.engine.int4 import BLOCK_BYTES, BLOCK_COLUMNS, BLOCK_ROWS, Int4Matrix

_MADV_POPULATE_READ = 22  # which the module mmap does not name
_DTYPES = {"U8": torch.uint8, "F32": torch.float32, "BF16": torch.bfloat16}


class WeightFile:
    """Leaving its ``with`` says whether all tensors were taken.

    Raises: ``ValueError`` if it cannot be read, or at the end if it holds what nobody took.
    """

    def __init__(self, path: Path, *, at_once: bool = True) -> None:
        self._path = path
        try:
            with safe_open(path, framework="pt"):  # which checks that offsets and sizes fit the file
                pass
            with path.open("rb") as file:
                head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                # private: whoever writes into a tensor changes no file
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                if at_once:
                    _bring(whole)
                data = torch.frombuffer(whole, dtype=torch.uint8)[file.tell() :]
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
        head.pop("__metadata__", None)
        self._tensors = {name: _tensor(data, **said) for name, said in head.items()}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._tensors:
            raise ValueError(
                f"{self._path} holds tensors that its config.json does not ask for: {sorted(self._tensors)}"
            )

    def take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise ValueError(f"{self._path}: {name} is missing")
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"{self._path}: {name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}")
        if tensor.is_floating_point() and not torch.linalg.vector_norm(tensor).isfinite():
            raise ValueError(f"{self._path}: {name} is not finite: the file is broken, quantise again")
        return tensor

    def floats(self, name: str, *shape: int) -> Tensor:
        return self.take(name, torch.float32, *shape)

    def matrix(self, name: str, rows: int, columns: int, *stack: int, twice: bool = False) -> Int4Matrix:
        """``twice`` is one with a rest."""
        r, c = -(-rows // BLOCK_ROWS), -(-columns // BLOCK_COLUMNS)
        halves = (2,) if twice else ()
        blocks = self.take(f"{name}.blocks", torch.uint8, *stack, r, *halves, c, BLOCK_BYTES)
        row_scale = self.take(f"{name}.row_scale", torch.float32, *halves, *stack, r * BLOCK_ROWS)
        if not (row_scale[0] if twice else row_scale).any() and not name.endswith(".rest"):  # nothing may be left over
            raise ValueError(f"{self._path}: {name} is zero throughout: the file is broken, quantise again")
        if not twice:
            return Int4Matrix(blocks, row_scale, rows, columns)
        first, rest = (Int4Matrix(blocks.select(-3, i), row_scale[i], rows, columns) for i in (0, 1))
        return replace(first, rest=rest)


def _bring(whole: mmap.mmap) -> None:
    """Has all of a file read into memory and mapped, where Linux does that (5.14); elsewhere it comes bit by bit.

    Pages that are met for the first time while a step runs cost it a third of its time and more.
    """
    if sys.platform == "linux":
        for advice in (mmap.MADV_HUGEPAGE, _MADV_POPULATE_READ):
            with suppress(OSError):
                whole.madvise(advice)


def _tensor(data: Tensor, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> Tensor:
    part = data[data_offsets[0] : data_offsets[1]]
    if data_offsets[0] % _DTYPES[dtype].itemsize:
        part = part.clone()
    return part.view(_DTYPES[dtype]).view(shape)
