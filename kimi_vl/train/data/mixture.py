"""A deterministic mixture of endless sources: sample i of a run is the same whenever and wherever it is asked for.

In: sources, each a function from (seed, index) to a sample. Out: packed batches, step by step. A run resumes by
asking for the next step; there is no cursor to lose.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from kimi_vl.train.data.packing import Batch, Sample, pack
from kimi_vl.train.data.resolution import Resolution

# Batches that are kept to be seen again, where drawing is slower than learning.
_ROUND = 100


@dataclass(frozen=True)
class Source:
    """``draw(seed, index)`` gives a sample; ``weight`` is its share of the mixture, against the others'.

    The weight goes in a line to ``weight_end`` over the run, if that is given. ``contents`` tells apart what ``draw``
    reads: a run goes on with no other.
    """

    name: str
    weight: float
    draw: Callable[[int, int], Sample]
    weight_end: float | None = None
    contents: str | None = None

    def weight_at(self, progress: float) -> float:
        """After that share of the run, 0 to 1."""
        return self.weight if self.weight_end is None else self.weight + progress * (self.weight_end - self.weight)


class Mixture(Dataset[list[Batch]]):
    """Batch ``n`` holds samples ``n * batch_size`` and following, each from a source drawn by its own number.

    Every process gets as many of them, in ``pieces`` that are learned from one after the other. Where weights or the
    pictures' resolution change, they do so from batch to batch over a run of ``steps``.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        batch_size: int,
        pieces: int = 1,
        passes: int = 1,
        steps: int | None = None,
        resolution: Resolution | None = None,
        share: tuple[int, int] = (0, 1),
        cut: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """``share`` (i, n): every n-th sample, from the i-th, is drawn here; ``cut`` is done to what is packed."""
        if not sources or min(source.weight_at(end) for source in sources for end in (0, 1)) <= 0:
            raise ValueError("a mixture needs sources, each with a weight above zero")
        self.changes = resolution is not None or any(source.weight_end is not None for source in sources)
        if self.changes and steps is None:
            raise ValueError("a mixture that changes over a run needs to know its steps")
        if min(passes, pieces) < 1:
            raise ValueError(f"passes and pieces must be at least 1, not {passes} and {pieces}")
        self.first, self.shares = share
        if batch_size < 1 or batch_size % (pieces * self.shares):
            raise ValueError(
                f"a batch of {batch_size} is not cut evenly for {self.shares} processes of {pieces} pieces"
            )
        self.sources, self.seed, self.batch_size = list(sources), seed, batch_size
        self.pieces, self.passes, self.steps, self.resolution = pieces, passes, steps, resolution
        self.cut = cut

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides on the samples and their order, as JSON has it. Pieces and processes do not.

        Nor does the number of steps, unless something changes over the run.
        """
        weights = {
            source.name: source.weight if source.weight_end is None else [source.weight, source.weight_end]
            for source in self.sources
        }
        contents = {f"contents of {source.name}": source.contents for source in self.sources if source.contents}
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "passes": self.passes,
            "sources": weights,
            "resolution": self.resolution and [self.resolution.start, self.resolution.growth],
            "steps": self.steps if self.changes else None,
            **contents,
        }

    def sample(self, index: int) -> Sample:
        progress = self.progress(index // self.batch_size)
        weights = [source.weight_at(progress) for source in self.sources]
        source = Random(f"{self.seed}/{index}").choices(self.sources, weights)[0]
        sample = source.draw(self.seed, index)
        return sample if self.resolution is None else self.resolution.of(sample, progress)

    def progress(self, number: int) -> float:
        """The share of the run, 0 at the first step and 1 at the last, after which a batch is seen for the first time.

        A mixture in which nothing changes stays at its beginning.
        """
        if not self.changes:
            return 0.0
        round_, place = divmod(number, _ROUND)
        first = number if self.passes == 1 else round_ * _ROUND * self.passes + place
        assert self.steps is not None
        return min(1.0, first / max(1, self.steps - 1))

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
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_alone,
            )
        )
        kept: dict[int, list[Batch]] = {}
        for place, number in enumerate(numbers):
            batch = kept.pop(number) if number in kept else next(drawn)
            if last[number] > place:
                kept[number] = batch
            yield batch


def _alone(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C, and a cluster's SIGTERM, reach them too; but they end when whoever trains does, or lets them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
