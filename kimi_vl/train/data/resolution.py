"""Pictures that are seen small first and whole later, so that most of what a tower learns early costs little.

In: a :class:`Sample` of one picture and its caption, and how far the run is. Out: the same with the picture smaller.
Conversations are not made smaller: they hold a placeholder for every merged patch. The report's tower learns at a
resolution that grows (Kimi-VL report, arXiv 2504.07491, section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL import Image

from kimi_vl.patches import ImageProcessorConfig, cut_bytes, fit, joined
from kimi_vl.train.data.characters import FRAMES_PER_COLUMN, frames_needed
from kimi_vl.train.data.packing import Sample


@dataclass(frozen=True)
class Resolution:
    """The share of a picture's sides: ``start`` at first, growing in a line to 1 over the share ``growth`` of a run."""

    start: float
    growth: float
    images: ImageProcessorConfig

    def share(self, progress: float) -> float:
        """After that share of the run, 0 to 1."""
        return self.start + (1 - self.start) * min(1.0, progress / self.growth)

    def of(self, sample: Sample, progress: float) -> Sample:
        """The sample as it is seen after that share of the run; the very same where its picture cannot be smaller.

        Sides keep their proportion, and neither falls below one merge block: a line that is one block high stays. So
        does a line whose characters would get too few of the reading head's frames.
        """
        share = self.share(progress)
        if sample.pixels is None or share >= 1:
            return sample
        ((h, w),) = sample.image_grid_hws.tolist()
        size = self.images.patch_size
        down, across = self.images.merge_kernel_size
        share = max(share, down / h, across / w)
        width, height = round(w * size * share), round(h * size * share)
        small, grid = fit(joined(sample.pixels, h, w).resize((width, height), Image.Resampling.BICUBIC), self.images)
        frames = grid.w * FRAMES_PER_COLUMN
        if (grid.h, grid.w) == (h, w) or (sample.written is not None and frames < frames_needed(sample.written)):
            return sample
        pixels = cut_bytes(small.tobytes(), grid.h, grid.w, self.images)
        return replace(sample, pixels=pixels, image_grid_hws=torch.tensor([[grid.h, grid.w]]))
