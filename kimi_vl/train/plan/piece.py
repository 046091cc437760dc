"""What one process has before it at a time: its share of a piece of a step's batch.

In: a step, a layout, how many pieces. Out: :class:`Piece`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig
from kimi_vl.train.plan.devices import divisors
from kimi_vl.train.scale.layout import Layout


@dataclass(frozen=True)
class Step:
    """What a step learns from. All samples are of one length, which is the dearest way to have so many tokens."""

    samples: int
    length: int  # tokens of each
    picture_share: float = 0.0  # of the tokens that stand for pictures
    picture_tokens: int = 1024  # of each picture

    @property
    def tokens(self) -> int:
        return self.samples * self.length

    def pieces(self, layout: Layout) -> list[int]:
        """In how many it can be cut: none, if there are not as many samples for every group of processes."""
        each, rest = divmod(self.samples, layout.processes // layout.context_parallel)
        return [] if rest or not each else divisors(each)


@dataclass(frozen=True)
class Piece:
    tokens: int  # of the decoder
    row: int  # tokens of the whole row, of which these are a share
    keys: int  # tokens that these look back on, each counted once for each stretch of tokens that does
    pairs: float  # of a token and one that it sees
    patches: int  # of the tower
    patch_pairs: float
    seen: int  # tokens whose next one is learned


def piece_of(config: KimiVLConfig, step: Step, layout: Layout, pieces: int) -> Piece:
    context = layout.context_parallel
    samples = step.samples * context // (layout.processes * pieces)
    row = samples * step.length
    tokens = -(-row // context)
    merged = math.prod(config.vision_config.merge_kernel_size)
    patches = math.ceil(tokens * step.picture_share) * merged
    return Piece(
        tokens=tokens,
        row=row,
        keys=max(_keys(row, step.length, context, process) for process in range(context)),
        pairs=row * (step.length + 1) / 2 / context,
        patches=patches,
        patch_pairs=patches * step.picture_tokens * merged,
        seen=tokens - patches // merged,
    )


def _keys(row: int, length: int, context: int, process: int) -> int:
    """Of a process whose tokens are the ``process``-th of 2 · ``context`` stretches, and the same from the end."""
    keys = 0
    for stretch in (process, 2 * context - 1 - process):
        start, stop = row * stretch // (2 * context), row * (stretch + 1) // (2 * context)
        # From the beginning of its first sample.
        keys += stop - start // length * length
    return keys
