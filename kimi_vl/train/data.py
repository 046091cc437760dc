"""A deterministic mixture of endless sources: sample i of a run is the same whenever and wherever it is asked for.

In: sources, each a function from (seed, index) to a sample. Out: packed batches, by number. A run resumes by
asking for the next number; there is no cursor to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch.utils.data import DataLoader, Dataset

from kimi_vl.train import parallel
from kimi_vl.train.packing import Batch, Sample, pack


@dataclass(frozen=True)
class Source:
    """``draw(seed, index)`` gives a sample; ``weight`` is its share of the mixture, against the others'."""

    name: str
    weight: float
    draw: Callable[[int, int], Sample]


class Mixture(Dataset[Batch]):
    """Batch ``n`` holds samples ``n * batch_size`` and following, each from a source drawn by its own number."""

    def __init__(self, sources: Sequence[Source], *, seed: int, batch_size: int) -> None:
        if not sources or min(source.weight for source in sources) <= 0:
            raise ValueError("a mixture needs sources, each with a weight above zero")
        self.sources, self.seed, self.batch_size = list(sources), seed, batch_size
        self.rank, self.world_size = parallel.rank(), parallel.world_size()

    def sample(self, index: int) -> Sample:
        weights = [source.weight for source in self.sources]
        source = Random(f"{self.seed}/{index}").choices(self.sources, weights)[0]
        return source.draw(self.seed, index)

    def __getitem__(self, number: int) -> Batch:
        """This process's share of the batch: every ``world_size``-th sample of it."""
        first = number * self.batch_size
        return pack([self.sample(i) for i in range(first + self.rank, first + self.batch_size, self.world_size)])

    def batches(self, start: int, stop: int, *, workers: int) -> Iterator[Batch]:
        """Batches ``start`` to ``stop``, drawn ahead in ``workers`` processes."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            prefetch_factor=8 if workers else None,
            worker_init_fn=_one_thread,
        )
        return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
