"""Where nano's decoder looks while it reads held-out lines: of each layer, the best head's attention on the spot.

    python benchmarks/reading_attention.py MODEL [--count 60]

The spot is where the next token stands, by the share of the line's characters before it, and 1.2 columns of merged
patches to either side; the attention is that of the place that foretells the token, the right ones being before it. A
layer that points there leaves the layers above it to tell which characters they are. `recipes.nano.fetch` comes first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from unittest.mock import patch

import torch
from torch import Tensor

from kimi_vl import KimiVL
from kimi_vl.model.attention import MultiHeadLatentAttention
from kimi_vl.patches import normalised
from kimi_vl.train.data.packing import pack
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.heldout import READ, WrittenLine, lines
from recipes.nano.samples import PICTURES, of_conversation, tokenizer

_EITHER_SIDE = 1.2  # columns
_MARGIN = 4  # pixels beside the letters
_MERGED = PICTURES.merge_kernel_size[1]
_COLUMN = _MERGED * PICTURES.patch_size  # pixels


class Watched:
    """Attention as it is, whose scores are kept: [layers, H, T, T] of the one sample that passes."""

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def attend(self, layer: MultiHeadLatentAttention, x: Tensor, angles: Tensor, lengths: Sequence[int]) -> Tensor:
        keys, values = layer.expand(*layer.latents(x, angles))
        queries = torch.cat(layer.queries(x, angles), dim=-1)
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * layer.scale
        seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril()
        self.layers.append(scores.masked_fill(~seen, float("-inf")).softmax(-1))
        return layer.o_proj(torch.einsum("hqk,khd->qhd", self.layers[-1], values).flatten(1))


@torch.inference_mode()
def on_the_spot(model: KimiVL, line: WrittenLine) -> Tensor:
    """Each answer token's share of attention there: [tokens, layers, H]."""
    sample = of_conversation(Conversation((line.image,), (Turn(READ, line.text),)))
    batch, watched = pack([sample]), Watched()
    assert batch.pixels is not None
    features = model.model.image_features(normalised(batch.pixels, PICTURES), batch.image_grid_hws)
    with patch.object(MultiHeadLatentAttention, "attend_packed", lambda *of: watched.attend(*of)):
        model.model.hidden(model.model.embed(batch.input_ids, features), batch.positions, batch.lengths)
    picture = (batch.input_ids == tokenizer().media_pad_id).nonzero().squeeze(1)
    columns = torch.arange(len(picture)) % (batch.grids[0][1] // _MERGED) + 0.5
    attention, before, shares = torch.stack(watched.layers), 0, []
    for place in sample.answer_mask.nonzero().squeeze(1).tolist()[:-1]:  # all but the end of the turn
        said = len(tokenizer().decode([int(batch.input_ids[place])]))
        middle = (before + said / 2) / len(line.text)
        x = (_MARGIN + middle * (line.image.width - 2 * _MARGIN)) / _COLUMN
        spot = picture[(columns - x).abs() <= _EITHER_SIDE]
        shares.append(attention[:, :, place - 1, spot].sum(-1))
        before += said
    return torch.stack(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    model = KimiVL.from_pretrained(args.model, dtype="float32")
    best = torch.cat([on_the_spot(model, line) for line in lines(args.count)]).mean(0).amax(-1)
    print(json.dumps({"model": args.model, "lines": args.count, "layers": [round(x, 3) for x in best.tolist()]}))


if __name__ == "__main__":
    main()
