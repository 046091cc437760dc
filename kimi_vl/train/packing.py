"""Samples → one packed row: tokens end to end without padding, next-token targets, all pictures in order.

In: samples as the processor makes them. Out: :class:`Batch`. Knows nothing of where samples come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # the official config's ignore_index


@dataclass(frozen=True)
class Sample:
    """One conversation or text, and what may be known of its only picture beside that.

    ``written`` is what stands on it, where that is one line of text; ``named`` what it shows, where that is one thing.
    """

    input_ids: Tensor  # [tokens] int64
    answer_mask: Tensor  # [tokens] bool, what the loss may see
    pixel_values: Tensor | None  # [L, 3, patch, patch]
    image_grid_hws: Tensor  # [N, 2]
    written: str | None = None
    named: str | None = None


@dataclass(frozen=True)
class Batch:
    input_ids: Tensor  # [T]
    targets: Tensor  # [T], the next token of the same sample where the loss sees it, else IGNORE
    lengths: list[int]  # tokens of each sample
    pixel_values: Tensor | None  # [L, 3, patch, patch]
    image_grid_hws: Tensor  # [N, 2]
    written: list[str | None]  # of each picture
    named: list[str | None]


def pack(samples: Sequence[Sample]) -> Batch:
    """Lays samples end to end. No target crosses from one sample into the next."""
    targets = []
    written: list[str | None] = []
    named: list[str | None] = []
    for sample in samples:
        following = sample.input_ids.masked_fill(~sample.answer_mask, IGNORE)[1:]
        targets.append(torch.cat((following, following.new_full((1,), IGNORE))))
        written += [sample.written] * len(sample.image_grid_hws)
        named += [sample.named] * len(sample.image_grid_hws)
    pixels = [sample.pixel_values for sample in samples if sample.pixel_values is not None]
    return Batch(
        input_ids=torch.cat([sample.input_ids for sample in samples]),
        targets=torch.cat(targets),
        lengths=[len(sample.input_ids) for sample in samples],
        pixel_values=torch.cat(pixels) if pixels else None,
        image_grid_hws=torch.cat([sample.image_grid_hws for sample in samples]),
        written=written,
        named=named,
    )
