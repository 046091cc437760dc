"""Samples → one packed row: tokens end to end without padding, next-token targets, all pictures in order.

In: samples as the data makes them. Out: :class:`Batch`. Knows nothing of where samples come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor

from kimi_vl.model.segments import sent, within

IGNORE = -100  # the official config's ignore_index


@dataclass(frozen=True)
class Sample:
    """One conversation or text with its pictures; or, for the tower alone, one picture, and its caption after a token.

    ``written`` is what stands on its only picture, where that is one line of text.
    """

    input_ids: Tensor  # [tokens] int64
    answer_mask: Tensor  # [tokens] bool, what the loss may see
    pixels: Tensor | None  # [L, 3, patch, patch] uint8
    image_grid_hws: Tensor  # [N, 2]
    written: str | None = None


@dataclass(frozen=True)
class Totals:
    """What a step's losses are divided by, over all its batches and processes: so that the sum is one batch's."""

    samples: int = 0
    weight: float = 0.0  # of all targets
    characters: int = 0  # on pictures of lines
    tokens: int = 0
    patches: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Batch:
    input_ids: Tensor  # [T]
    positions: Tensor  # [T], each token's place in its own sample
    targets: Tensor  # [T], the next token of the same sample where the loss sees it, else IGNORE
    seen: Tensor  # [n], where targets are that the loss sees
    weights: Tensor  # [n] float32, what each of these counts: 1 / √m in a sample of m
    lengths: list[int]  # tokens of each sample
    pixels: Tensor | None  # [L, 3, patch, patch] uint8
    image_grid_hws: Tensor  # [N, 2]
    written: list[str | None]  # of each picture

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of each picture in patches."""
        return [(h, w) for h, w in self.image_grid_hws.tolist()]

    @property
    def totals(self) -> Totals:
        """Its own share of them."""
        characters = sum(len(text) for text in self.written if text is not None)
        patches = 0 if self.pixels is None else len(self.pixels)
        return Totals(len(self.lengths), float(self.weights.sum()), characters, len(self.input_ids), patches)

    def to(self, device: torch.device) -> Batch:
        """The same on another device; the grids, which only the host reads, stay."""
        return self._with(lambda tensor: sent(tensor, device))

    def pin_memory(self) -> Batch:
        """The same where a GPU fetches it by itself; named as the data loader wants it."""
        return self._with(Tensor.pin_memory)

    def _with(self, moved: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            input_ids=moved(self.input_ids),
            positions=moved(self.positions),
            targets=moved(self.targets),
            seen=moved(self.seen),
            weights=moved(self.weights),
            pixels=None if self.pixels is None else moved(self.pixels),
        )


def pack(samples: Sequence[Sample]) -> Batch:
    """Lays samples end to end. No target crosses from one sample into the next.

    A sample of n targets weighs √n: by tokens alone a page of a hundred would drown the name of one, and by samples
    alone each letter of the page would count for nothing (InternVL 2.5, arXiv 2412.05271, section 3.3).
    """
    targets, weights = [], []
    written: list[str | None] = []
    for sample in samples:
        following = sample.input_ids.masked_fill(~sample.answer_mask, IGNORE)[1:]
        targets.append(torch.cat((following, following.new_full((1,), IGNORE))))
        count = int((following != IGNORE).sum())
        weights.append(torch.full((count,), max(1, count) ** -0.5))
        written += [sample.written] * len(sample.image_grid_hws)
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    lengths = [len(sample.input_ids) for sample in samples]
    row = torch.cat(targets)
    return Batch(
        input_ids=torch.cat([sample.input_ids for sample in samples]),
        positions=within(lengths, row.device)[1],
        targets=row,
        seen=(row != IGNORE).nonzero().squeeze(1),
        weights=torch.cat(weights),
        lengths=lengths,
        pixels=torch.cat(pixels) if pixels else None,
        image_grid_hws=torch.cat([sample.image_grid_hws for sample in samples]),
        written=written,
    )
