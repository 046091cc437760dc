"""A deterministic mixture of endless sources: sample i of a run is the same whenever and wherever it is asked for.

In: sources, each a function from (seed, index) to a sample. Out: packed batches, step by step. A run resumes by
asking for the next step; there is no cursor to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from kimi_vl.train.packing import Batch, Sample, pack

# Batches that are kept to be seen again, where drawing is slower than learning.
_ROUND = 100


@dataclass(frozen=True)
class Source:
    """``draw(seed, index)`` gives a sample; ``weight`` is its share of the mixture, against the others'."""

    name: str
    weight: float
    draw: Callable[[int, int], Sample]


class Mixture(Dataset[list[Batch]]):
    """Batch ``n`` holds samples ``n * batch_size`` and following, each from a source drawn by its own number.

    Every process gets as many of them, in ``pieces`` that are learned from one after the other.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        batch_size: int,
        pieces: int = 1,
        passes: int = 1,
        share: tuple[int, int] = (0, 1),
        cut: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """``share`` (i, n): every n-th sample, from the i-th, is drawn here; ``cut`` is done to what is packed."""
        if not sources or min(source.weight for source in sources) <= 0:
            raise ValueError("a mixture needs sources, each with a weight above zero")
        if min(passes, pieces) < 1:
            raise ValueError(f"passes and pieces must be at least 1, not {passes} and {pieces}")
        self.first, self.shares = share
        if batch_size < 1 or batch_size % (pieces * self.shares):
            raise ValueError(
                f"a batch of {batch_size} is not cut evenly for {self.shares} processes of {pieces} pieces"
            )
        self.sources, self.seed, self.batch_size = list(sources), seed, batch_size
        self.pieces, self.passes, self.cut = pieces, passes, cut

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides on the order of samples, as JSON has it. Pieces and processes do not."""
        sources = {source.name: source.weight for source in self.sources}
        return {"seed": self.seed, "batch_size": self.batch_size, "passes": self.passes, "sources": sources}

    def sample(self, index: int) -> Sample:
        weights = [source.weight for source in self.sources]
        source = Random(f"{self.seed}/{index}").choices(self.sources, weights)[0]
        return source.draw(self.seed, index)

    def __getitem__(self, number: int) -> list[Batch]:
        """What is drawn of a batch here."""
        first, step = number * self.batch_size, self.shares * self.pieces
        starts = (first + self.first + piece * self.shares for piece in range(self.pieces))
        batches = (pack([self.sample(i) for i in range(start, first + self.batch_size, step)]) for start in starts)
        return [batch if self.cut is None else self.cut(batch) for batch in batches]

    def number_of(self, step: int) -> int:
        """What a step sees. With several passes, ``_ROUND`` batches come that often, each time in a new order."""
        if self.passes == 1:
            return step
        round_, within = divmod(step, _ROUND * self.passes)
        pass_, place = divmod(within, _ROUND)
        order = Random(f"{self.seed}/pass/{round_}/{pass_}").sample(range(_ROUND), _ROUND) if pass_ else range(_ROUND)
        return round_ * _ROUND + order[place]

    def batches(self, start: int, stop: int, *, workers: int) -> Iterator[list[Batch]]:
        """The batches of steps ``start`` to ``stop``, each drawn once, ahead, in ``workers`` processes."""
        numbers = [self.number_of(step) for step in range(start, stop)]
        last = {number: place for place, number in enumerate(numbers)}
        drawn = iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=list(dict.fromkeys(numbers)),
                num_workers=workers,
                prefetch_factor=8 if workers else None,
                worker_init_fn=_one_thread,
            )
        )
        kept: dict[int, list[Batch]] = {}
        for place, number in enumerate(numbers):
            batch = kept.pop(number) if number in kept else next(drawn)
            if last[number] > place:
                kept[number] = batch
            yield batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
