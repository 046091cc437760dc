"""What is asked again and again while a model learns, for whoever watches.

RUN/samples.jsonl        of a handful: step, question, answer, what was wanted, pictures
RUN/samples/N-M.png      their pictures, written once
RUN/log.jsonl            the share of right answers of every exam, as ``right: NAME``

The questions are drawn by themselves: the run's own data does not move on. Knows nothing of how the page looks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from kimi_vl.generate import generate
from kimi_vl.patches import normalised
from kimi_vl.sampling import Sampler, SamplingParams
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train import parallel
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.watching.examining import Exam, share_right
from kimi_vl.train.watching.log import up_to
from kimi_vl.train.watching.watched import RIGHT

_LONGEST = 64  # tokens of an answer


class Showing:
    """Asks ``samples`` and ``exams`` of a learner, and writes what it says to the first into a run's ``folder``."""

    def __init__(
        self,
        folder: Path,
        samples: Sequence[Sample],
        tokenizer: Tokenizer,
        placeholder: int,
        exams: Sequence[Exam] = (),
    ) -> None:
        self.path, self.tokenizer, self.exams = folder / "samples.jsonl", tokenizer, exams
        self.placeholder = placeholder
        # Where a sample has an answer to wait for; of a text all of whose tokens are learned, its second half.
        self.samples = [(sample, _answer(sample)) for sample in samples if sample.answer_mask.any()]
        self.pictures = [_written(folder / "samples", number, s) for number, (s, _) in enumerate(self.samples)]

    def begin(self, step: int) -> None:
        if self.samples:
            up_to(self.path, step)

    def ask(self, learner: Pupil, step: int) -> dict[str, float]:
        assert isinstance(learner, Learner)
        if self.samples:
            self._tell(learner, step)
        with parallel.ready(learner):
            return {f"{RIGHT}{exam.name}": share_right(learner, exam, self.tokenizer) for exam in self.exams}

    def _tell(self, learner: Learner, step: int) -> None:
        told = [
            json.dumps(
                {
                    "step": step,
                    "question": self._words(sample.input_ids[: where.start]),
                    "answer": self._answered(learner, sample, where.start),
                    "wanted": self._words(sample.input_ids[where.start : where.stop]),
                    "pictures": pictures,
                }
            )
            for (sample, where), pictures in zip(self.samples, self.pictures, strict=True)
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in told))

    def _answered(self, learner: Learner, sample: Sample, start: int) -> str:
        """Greedily, over the pictures that are shown before."""
        prompt = sample.input_ids[:start]
        features = int((prompt == self.placeholder).sum())
        sizes = sample.image_grid_hws.prod(1) // _merged(learner)
        seen = int((sizes.cumsum(0) <= features).sum())
        grids = sample.image_grid_hws[:seen]
        pixels: Tensor | None = None
        if sample.pixels is not None and seen:
            pixels = normalised(sample.pixels[: int(grids.prod(1).sum())], learner.images)
        params = SamplingParams(max_new_tokens=_LONGEST)
        sampler = Sampler(prompt.tolist(), self.tokenizer.end_ids, params)
        drawn = generate(learner.model, prompt, pixel_values=pixels, image_grid_hws=grids, sampler=sampler)
        return self._words(torch.tensor([token.id for token in drawn]))

    def _words(self, ids: Tensor) -> str:
        return self.tokenizer.decode(ids.tolist()).strip()


def _merged(learner: Learner) -> int:
    height, width = learner.model.config.vision_config.merge_kernel_size
    return height * width


def _answer(sample: Sample) -> range:
    """The places of the first answer."""
    mask = sample.answer_mask
    start = int(mask.int().argmax())
    after = (~mask[start:]).nonzero()
    stop = start + int(after[0]) if len(after) else len(mask)
    if not start:
        start = stop // 2
    return range(start, stop)


def _written(folder: Path, number: int, sample: Sample) -> list[str]:
    """The sample's pictures as files, as patches have them. Returns their names, seen from the run."""
    if sample.pixels is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    patches = iter(sample.pixels)
    names = []
    for place, (h, w) in enumerate(sample.image_grid_hws.tolist()):
        grid = torch.stack(list(islice(patches, h * w))).unflatten(0, (h, w))  # [h, w, 3, patch, patch]
        rows = grid.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).contiguous()
        path = folder / f"{number}-{place}.png"
        Image.fromarray(rows.numpy()).save(path)
        names.append(f"{folder.name}/{path.name}")
    return names
