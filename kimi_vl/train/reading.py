"""Teaching the tower to read before the decoder listens: characters straight from MoonViT's columns of patches.

Every column of patches gives ``FRAMES_PER_COLUMN`` places, at each of which one character or a blank is guessed, and
connectionist temporal classification (CTC) sums over all ways to line the guesses up with the text. The head is
thrown away after training; what stays is a tower whose features spell.
Source: Graves et al., Connectionist Temporal Classification (ICML 2006).
"""

from __future__ import annotations

import itertools
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


def frames_needed(text: str) -> int:
    """Enough for each of its characters and a blank on either side: with fewer, repeated ones may find no room."""
    return 2 * sum(character in _CLASS for character in text) + 1


class ReadingHead(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.merge_kernel_size = config.merge_kernel_size
        self.proj = nn.Linear(config.hidden_size, FRAMES_PER_COLUMN * (len(ALPHABET) + 1))

    def forward(self, merged: Tensor, grids: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Merged patches [tokens, 4, D] of pictures → log-probabilities [frames, classes] float32, frames of each."""
        kh, kw = self.merge_kernel_size
        columns, rows, first = [], [], 0
        for h, w in grids:
            place = torch.arange(w // kw).repeat(h // kh)
            columns.append(first + place)
            rows.append(torch.full((w // kw,), float(h // kh * kh)))
            first += w // kw
        column = torch.cat(columns).to(merged.device)
        patches = merged.unflatten(1, (kh, kw)).sum(1)  # [tokens, kw, D]
        sums = torch.zeros(first, *patches.shape[1:], dtype=torch.float32, device=merged.device)
        means = sums.index_add(0, column, patches.float()) / torch.cat(rows).to(merged.device)[:, None, None]
        guesses = self.proj(means.to(merged.dtype).flatten(0, 1)).unflatten(-1, (FRAMES_PER_COLUMN, -1))
        return guesses.flatten(0, 1).float().log_softmax(-1), [w * FRAMES_PER_COLUMN for _, w in grids]

    def loss(self, merged: Tensor, grids: Sequence[Sequence[int]], texts: Sequence[str | None]) -> Tensor:
        """CTC loss summed over those pictures that are single lines of text: scalar float32."""
        tokens = [h * w // merged.shape[1] for h, w in grids]
        lines = [i for i, text in enumerate(texts) if text is not None]
        firsts = [0, *itertools.accumulate(tokens)]
        kept = torch.cat([torch.arange(firsts[i], firsts[i + 1]) for i in lines])
        frames, frame_counts = self(merged.index_select(0, kept.to(merged.device)), [grids[i] for i in lines])
        counts = torch.tensor(frame_counts)
        # Row by row from one tensor: padding each picture would cost a pass over all of them in the backward.
        place = torch.arange(int(counts.max()))[:, None]
        rows = (counts.cumsum(0) - counts + place).where(place < counts, 0)  # [longest, N]
        targets = [torch.tensor([_CLASS[c] for c in texts[i] or "" if c in _CLASS]) for i in lines]
        return F.ctc_loss(
            frames[rows.to(frames.device)],  # [longest, N, classes]
            torch.cat(targets).to(frames.device),
            counts,
            torch.tensor([len(t) for t in targets]),
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        )

    @torch.no_grad()
    def read(self, merged: Tensor, grid: tuple[int, int]) -> str:
        """The likeliest guess at each place of one picture, repeats and blanks taken out."""
        best = torch.unique_consecutive(self(merged, [grid])[0].argmax(-1)).tolist()
        return "".join(ALPHABET[i - 1] for i in best if i != BLANK)
