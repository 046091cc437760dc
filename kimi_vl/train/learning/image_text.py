"""Vision pretraining: MoonViT learns from captions, beside a text encoder and a text decoder that are thrown away.

    pixels ─ MoonViT ─ joined 2x2 ─ seen [tokens, D] ─┬─ mean ──────────────┐
    caption ─ text encoder ─ mean ────────────────────┼─────────────────────┴─ SigLIP loss
    caption ─ text decoder after the picture's seen ──┴─ next tokens ───────── 2 · caption loss
    lines of text ─ reading head on MoonViT's columns ────────────────────────  reading loss

In: :class:`Batch` whose samples are one picture each, and its caption after a first token. Out: :class:`Learned`.
Source: Kimi-VL report (arXiv 2504.07491), section 2.3; CoCa (arXiv 2205.01917). The reading loss is ours: lines are
spelled far sooner with it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.rotary import rotate_pairs
from kimi_vl.model.segments import places_from, segment_attention, sent, within
from kimi_vl.patches import ImageProcessorConfig, normalised
from kimi_vl.train import parallel
from kimi_vl.train.data.packing import Batch, Totals
from kimi_vl.train.learning.learned import Learned, Pupil
from kimi_vl.train.learning.losses import head_loss, siglip_loss
from kimi_vl.train.learning.reading import ReadingHead

CAPTION_WEIGHT = 2.0


@dataclass(frozen=True)
class TextSize:
    """Of each of the two text models."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


class Block(nn.Module):
    """Pre-norm attention within each segment of a packed row, then an MLP."""

    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.heads, dim = size.num_attention_heads, size.hidden_size
        self.norm0, self.norm1 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.wqkv, self.wo = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc0, self.fc1 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, angles: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
        q, k, v = self.wqkv(self.norm0(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
        x = x + self.wo(segment_attention(q, k, v, lengths, scale=q.shape[-1] ** -0.5, causal=causal).flatten(1))
        return x + self.fc1(F.gelu(self.fc0(self.norm1(x)), approximate="tanh"))


class Blocks(nn.Module):
    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.head_dim = size.hidden_size // size.num_attention_heads
        self.layers = nn.ModuleList(Block(size) for _ in range(size.num_hidden_layers))
        self.norm = nn.LayerNorm(size.hidden_size)

    def forward(self, x: Tensor, positions: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=x.device)
        angles = positions.float()[:, None] / 10000.0 ** (steps / self.head_dim)
        for layer in self.layers:
            x = layer(x, angles, lengths, causal=causal)
        return self.norm(x)


class ImageTextLearner(Pupil):
    """The model's tower with all that only this stage needs. The decoder takes no part."""

    # The paper's beginning: sure of nothing, and most pairs are a no.
    begins_at: ClassVar[Mapping[str, float]] = {"log_scale": math.log(10.0), "bias": -10.0}

    def __init__(
        self, model: KimiVLForConditionalGeneration, size: TextSize, images: ImageProcessorConfig, *, reading: float
    ) -> None:
        super().__init__()
        self.model, self.images, self.reading_weight = model, images, reading
        self.reader = ReadingHead(model.config.vision_config)
        self.seen = nn.Linear(model.config.vision_config.merged_size, size.hidden_size)
        self.embed_tokens = nn.Embedding(size.vocab_size, size.hidden_size)
        self.text_encoder, self.text_decoder = Blocks(size), Blocks(size)
        self.head = nn.Linear(size.hidden_size, size.vocab_size, bias=False)
        # Of one number each, since rows are what processes share out.
        self.log_scale = nn.Parameter(torch.full((1,), self.begins_at["log_scale"]))
        self.bias = nn.Parameter(torch.full((1,), self.begins_at["bias"]))
        self.to(model.dtype)

    def forward(self, batch: Batch, totals: Totals) -> Learned:
        """Pictures are told apart from those of the other processes too, but not of a step's other pieces."""
        assert batch.pixels is not None
        # Before the tower, for it has to wait until the device has the captions.
        digests = torch.tensor([_digest(ids.tolist()) for ids in batch.input_ids.cpu().split(batch.lengths)])
        pixels = normalised(batch.pixels, self.images).to(self.model.dtype)
        merged = self.model.vision_tower(pixels, batch.image_grid_hws)  # [tokens, 4, D_vision]
        grids = batch.grids
        counts = [h * w // merged.shape[1] for h, w in grids]
        seen = self.seen(merged.flatten(1))
        words = self.embed_tokens(batch.input_ids)
        contrast = self.contrast(batch, seen, counts, words, digests) / totals.samples
        caption = self.caption(batch, seen, counts, words) / totals.weight
        loss = contrast + CAPTION_WEIGHT * caption
        figures = {"siglip": contrast.detach(), "caption": caption.detach()}
        if self.reading_weight and any(batch.written):
            reading = self.reader.loss(merged, grids, batch.written) / totals.characters
            loss = loss + self.reading_weight * reading
            figures["reading"] = reading.detach()
        return Learned(loss, [], figures)

    def contrast(self, batch: Batch, seen: Tensor, counts: Sequence[int], words: Tensor, digests: Tensor) -> Tensor:
        encoded = self.text_encoder(words, batch.positions, batch.lengths, causal=False)
        texts = parallel.gathered(F.normalize(_means(encoded, batch.lengths)))
        pictures = F.normalize(_means(seen, counts))
        mine, everyones = sent(digests, seen.device), sent(parallel.gathered(digests), seen.device)
        return siglip_loss(pictures, texts, mine[:, None] == everyones, self.log_scale, self.bias)

    def caption(self, batch: Batch, seen: Tensor, counts: Sequence[int], words: Tensor) -> Tensor:
        """Each caption after its picture, in one row."""
        both = [count + length for count, length in zip(counts, batch.lengths, strict=True)]
        firsts = list(itertools.accumulate(both, initial=0))[:-1]
        seen_at = places_from(firsts, counts, seen.device)
        text_at = places_from([f + c for f, c in zip(firsts, counts, strict=True)], batch.lengths, seen.device)
        row = seen.new_empty(sum(both), seen.shape[1]).index_copy(0, seen_at, seen).index_copy(0, text_at, words)
        states = self.text_decoder(row, within(both, seen.device)[1], both, causal=True)
        before = states.index_select(0, text_at.index_select(0, batch.seen))
        return head_loss(self.head, before, batch.targets.index_select(0, batch.seen), batch.weights)


def _digest(ids: Sequence[int]) -> int:
    """Equal captions have equal ones."""
    digest = hashlib.blake2b(array("q", ids).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _means(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """[tokens, D] → the mean of each segment [segments, D] float32."""
    of_segment, _ = within(lengths, x.device)
    sums = torch.zeros(len(lengths), x.shape[1], device=x.device).index_add(0, of_segment, x.float())
    return sums / sent(list(lengths), x.device)[:, None]
