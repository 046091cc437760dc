"""Teaching the tower to read before the decoder listens: characters straight from MoonViT's columns of patches.

Every column of patches gives ``FRAMES_PER_COLUMN`` places, at each of which one character or a blank is guessed, and
connectionist temporal classification (CTC) sums over all ways to line the guesses up with the text. The head is
thrown away after training; what stays is a tower whose features spell.
Source: Graves et al., Connectionist Temporal Classification (ICML 2006).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import MoonViTConfig

FRAMES_PER_COLUMN = 4
BLANK = 0
# Any other character is left out of the target.
ALPHABET = "".join(map(chr, range(32, 127))) + "“”‘’–—…é£€©°"
_CLASS = {character: i + 1 for i, character in enumerate(ALPHABET)}


class ReadingHead(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.merge_kernel_size = config.merge_kernel_size
        self.proj = nn.Linear(config.hidden_size, FRAMES_PER_COLUMN * (len(ALPHABET) + 1))
        nn.init.normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, merged: Tensor, grid: tuple[int, int]) -> Tensor:
        """One picture's merged patches [h*w/4, 4, D] → log-probabilities [frames, classes] float32."""
        (h, w), (kh, kw) = grid, self.merge_kernel_size
        columns = merged.unflatten(0, (h // kh, w // kw)).unflatten(2, (kh, kw)).mean((0, 2))  # [w/kw, kw, D]
        guesses = self.proj(columns.flatten(0, 1)).unflatten(-1, (FRAMES_PER_COLUMN, -1))
        return guesses.flatten(0, 1).float().log_softmax(-1)

    def loss(self, merged: Sequence[Tensor], grids: Sequence[tuple[int, int]], texts: Sequence[str]) -> Tensor:
        """CTC loss per character, over pictures of single lines and what is written on them: scalar float32."""
        frames = [self(picture, grid) for picture, grid in zip(merged, grids, strict=True)]
        counts = torch.tensor([len(f) for f in frames])
        # Row by row from one tensor: padding each picture would cost a pass over all of them in the backward.
        place = torch.arange(int(counts.max()))[:, None]
        rows = (counts.cumsum(0) - counts + place).where(place < counts, 0)  # [longest, N]
        targets = [torch.tensor([_CLASS[c] for c in text if c in _CLASS]) for text in texts]
        losses = F.ctc_loss(
            torch.cat(frames)[rows],  # [longest, N, classes]
            torch.cat(targets),
            counts,
            torch.tensor([len(t) for t in targets]),
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        )
        return losses / max(1, sum(len(t) for t in targets))

    @torch.no_grad()
    def read(self, merged: Tensor, grid: tuple[int, int]) -> str:
        """The likeliest guess at each place, repeats and blanks taken out."""
        best = torch.unique_consecutive(self(merged, grid).argmax(-1)).tolist()
        return "".join(ALPHABET[i - 1] for i in best if i != BLANK)
