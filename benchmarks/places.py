"""How precisely a token of a picture knows where it lies: what a point that the decoder answers is made of.

    python benchmarks/places.py [MODEL] [--screens 80]

Held-out screens of 640×400 pass MoonViT and the projector. From each token's vector, as MoonViT and as the projector
gives it, a small network is taught on three quarters of the screens to tell the hundredth of the picture's height and
width, and asked about the others. Prints for each the shares of tokens that it places within a fortieth of the height
and of the width (a line of text is about as high), and the cross entropy of a hundredth in nats (blind: 4.6).
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl import KimiVL, KimiVLProcessor
from kimi_vl.train.learning.placing import SHARES
from recipes.nano.evaluate import asked, open_model
from recipes.nano.heldout import READ
from recipes.nano.screens.shots import screens

NEAR = 1 / 40
STEPS, TOKENS, RATE = 600, 2048, 2e-3


@torch.no_grad()
def vectors(model: KimiVL, processor: KimiVLProcessor, count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Of each screen: MoonViT's [tokens, 4·D], the projector's [tokens, D], the middles [tokens, 2] in shares of 1."""
    merged, projected, middles = [], [], []
    merge = torch.tensor(processor.image_config.merge_kernel_size)
    for screen in screens("heldout")[:count]:
        inputs = asked([screen.picture()], READ, processor)
        assert inputs.pixel_values is not None
        seen = model.model.vision_tower(inputs.pixel_values, inputs.image_grid_hws)
        merged.append(seen.flatten(1))
        projected.append(model.model.multi_modal_projector(seen))
        rows, columns = (inputs.image_grid_hws[0] // merge).tolist()
        down, across = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        middles.append(torch.cartesian_prod(down, across))
    return merged, projected, middles


def told(vectors: list[Tensor], middles: list[Tensor]) -> tuple[list[float], float]:
    """The shares that are placed near, of height and width, and the cross entropy, on the last quarter of screens."""
    taught = len(vectors) * 3 // 4
    known, where = torch.cat(vectors[:taught]), torch.cat(middles[:taught])
    mean, deviation = known.mean(0), known.std(0) + 1e-6
    torch.manual_seed(0)
    guess = nn.Sequential(nn.Linear(known.shape[1], 256), nn.GELU(), nn.Linear(256, 2 * SHARES))
    optimizer = torch.optim.AdamW(guess.parameters(), lr=RATE, weight_decay=0.05)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)

    def loss(some: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        guesses = guess((some - mean) / deviation).unflatten(1, (2, SHARES))
        return F.cross_entropy(guesses.flatten(0, 1), (there * SHARES).long().flatten()), guesses

    for _ in range(STEPS):
        drawn = torch.randint(0, len(known), (TOKENS,))
        optimizer.zero_grad()
        loss(known[drawn], where[drawn])[0].backward()
        optimizer.step()
        falling.step()
    with torch.no_grad():
        there = torch.cat(middles[taught:])
        cost, guesses = loss(torch.cat(vectors[taught:]), there)
        apart = ((guesses.argmax(-1) + 0.5) / SHARES - there).abs()
    return (apart < NEAR).float().mean(0).tolist(), float(cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--screens", type=int, default=80)
    args = parser.parse_args()
    model = open_model(args.model)
    if not isinstance(model, KimiVL):
        parser.error(f"{args.model} is in 4 bits, MoonViT is as in the original: give that")
    merged, projected, middles = vectors(model, KimiVLProcessor.from_pretrained(args.model), args.screens)
    for name, found in (("MoonViT", merged), ("projector", projected)):
        (down, across), cost = told(found, middles)
        print(f"{name}: {down:.1%} of the height, {across:.1%} of the width, {cost:.2f} nats")


if __name__ == "__main__":
    main()
