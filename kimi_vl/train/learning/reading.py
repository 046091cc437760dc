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
from kimi_vl.model.segments import places_from, sent, within
from kimi_vl.model.vision import places_of
from kimi_vl.train.data.characters import ALPHABET, BLANK, CLASS, FRAMES_PER_COLUMN


class ReadingHead(nn.Module):
    def __init__(self, config: MoonViTConfig) -> None:
        super().__init__()
        self.merge_kernel_size = config.merge_kernel_size
        self.proj = nn.Linear(config.hidden_size, FRAMES_PER_COLUMN * (len(ALPHABET) + 1))

    def forward(self, merged: Tensor, grids: Sequence[tuple[int, int]]) -> tuple[Tensor, list[int]]:
        """Merged patches [tokens, 4, D] of pictures → log-probabilities [frames, classes] float32, frames of each."""
        kh, kw = self.merge_kernel_size
        blocks, across = places_of([(h // kh, w // kw) for h, w in grids], merged.device), [w // kw for _, w in grids]
        firsts = sent([0, *itertools.accumulate(across)], merged.device)
        column = firsts.index_select(0, blocks.picture) + blocks.column
        patches = merged.unflatten(1, (kh, kw)).sum(1)  # [tokens, kw, D]
        sums = torch.zeros(sum(across), *patches.shape[1:], dtype=torch.float32, device=merged.device)
        rows = sent([h for h, _ in grids], merged.device).index_select(0, within(across, merged.device)[0])
        means = sums.index_add(0, column, patches.float()) / rows[:, None, None]
        guesses = self.proj(means.to(merged.dtype).flatten(0, 1)).unflatten(-1, (FRAMES_PER_COLUMN, -1))
        return guesses.flatten(0, 1).float().log_softmax(-1), [w * FRAMES_PER_COLUMN for _, w in grids]

    def loss(self, merged: Tensor, grids: Sequence[tuple[int, int]], texts: Sequence[str | None]) -> Tensor:
        """CTC loss summed over those pictures that are single lines of text: scalar float32."""
        tokens = [h * w // merged.shape[1] for h, w in grids]
        lines = [i for i, text in enumerate(texts) if text is not None]
        firsts = [0, *itertools.accumulate(tokens)]
        kept = places_from([firsts[i] for i in lines], [tokens[i] for i in lines], merged.device)
        frames, counts = self(merged.index_select(0, kept), [grids[i] for i in lines])
        line, nth = within(counts, merged.device)
        # A row that filled the gaps in place of zeros would have to gather all their gradients, one by one.
        padded = frames.new_zeros(max(counts) * len(lines), frames.shape[1])
        padded = padded.index_copy(0, nth * len(lines) + line, frames)
        targets = [[CLASS[c] for c in texts[i] or "" if c in CLASS] for i in lines]
        return F.ctc_loss(
            padded.unflatten(0, (-1, len(lines))),  # [longest, N, classes]
            sent(list(itertools.chain(*targets)), frames.device).long(),
            torch.tensor(counts),
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
