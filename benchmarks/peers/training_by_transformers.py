"""Times a training step of Kimi-VL's architecture assembled from `transformers`, samples padded; prints JSON.

    python training_by_transformers.py SAMPLES CONFIG --tower siglip2 --groups 8 --sorted --dtype bfloat16 …

    siglip2    pictures padded to the longest, with a mask: the tower that MoonViT is made from, without rotary
    kimi_k25   transformers' own MoonViT, which pads no pictures
    decoder    DeepseekV3ForCausalLM, texts padded on the right, with a mask

The samples pass in ``--groups``, one after the other, gradients added up; ``--sorted`` groups by length. Padding and
normalising take no part in the time, and only rows with a target go through the head. Runs in an environment of its
own, with torch, transformers and safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from training_step import LEARNING_RATE, arguments, load_samples, measure
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, Siglip2VisionConfig, Siglip2VisionModel
from transformers.models.kimi_k25.configuration_kimi_k25 import Kimi_K25Config, Kimi_K25VisionConfig
from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25MultimodalProjection, Kimi_K25VisionModel

from kimi_vl.train.data.packing import Sample, pack


@dataclass(frozen=True)
class Padded:
    """N samples of up to T tokens, with M pictures of up to L patches."""

    input_ids: Tensor  # [N, T]
    attention_mask: Tensor  # [N, T]
    seen: Tensor  # [n], the places of [N * T] whose next token is learned
    targets: Tensor  # [n]
    weights: Tensor  # [n]
    pixels: Tensor  # [M, L, 588] normalised
    pixel_mask: Tensor  # [M, L]
    grids: Tensor  # [M, 2]


class PaddedTower(nn.Module):
    """Siglip2, and its patches 2 by 2 side by side."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        # its table of positions is a square
        side = int((vision["init_pos_emb_height"] * vision["init_pos_emb_width"]) ** 0.5)
        config = Siglip2VisionConfig(**_sizes(vision), num_patches=side**2, vision_use_head=False)
        self.tower = Siglip2VisionModel(config)

    def forward(self, batch: Padded) -> Tensor:
        """[tokens, 4, D]."""
        mask = batch.pixel_mask
        hidden = self.tower(batch.pixels, pixel_attention_mask=mask, spatial_shapes=batch.grids).last_hidden_state
        pictures = [hidden[i, : h * w].view(h // 2, 2, w // 2, 2, -1) for i, (h, w) in enumerate(batch.grids.tolist())]
        return torch.cat([picture.transpose(1, 2).flatten(2, 3).flatten(0, 1) for picture in pictures])

    def places(self, batch: Padded) -> int:
        return batch.pixel_mask.numel()


class PackedTower(nn.Module):
    """transformers' MoonViT. Its table of positions is of our shape; it resamples a part of it."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        shape = {"pos_emb_height": vision["init_pos_emb_height"], "pos_emb_width": vision["init_pos_emb_width"]}
        self.tower = Kimi_K25VisionModel(Kimi_K25VisionConfig(**_sizes(vision), **shape))
        self.patch_size = vision["patch_size"]

    def forward(self, batch: Padded) -> Tensor:
        """[tokens, 4, D]."""
        patches = batch.pixels[batch.pixel_mask.bool()].unflatten(1, (3, self.patch_size, self.patch_size))
        grids = F.pad(batch.grids, (1, 0), value=1)
        return self.tower(patches, grid_thw=grids).pooler_output

    def places(self, batch: Padded) -> int:
        return int(batch.pixel_mask.sum())


TOWERS = {"siglip2": PaddedTower, "kimi_k25": PackedTower}


class Assembled(nn.Module):
    def __init__(self, config: dict[str, Any], tower: str) -> None:
        super().__init__()
        text, vision = config["text_config"], config["vision_config"]
        unknown = ("torch_dtype", "model_type", "rope_scaling")
        decoder = DeepseekV3Config(
            **{name: value for name, value in text.items() if name not in unknown}, rope_interleave=True
        )
        whole = Kimi_K25Config(
            text_config=decoder,
            vision_config=Kimi_K25VisionConfig(**_sizes(vision)),
            projection_hidden_size=vision["hidden_size"],
        )
        self.placeholder = config["media_placeholder_token_id"]
        self.tower = TOWERS[tower](vision)
        self.projector = Kimi_K25MultimodalProjection(whole)
        self.decoder = DeepseekV3ForCausalLM(decoder)

    def forward(self, batch: Padded) -> Tensor:
        """The weighted sum of the targets' cross entropies."""
        embeds = self.decoder.model.embed_tokens(batch.input_ids)
        if len(batch.grids):
            features = self.projector(self.tower(batch)).squeeze(1)
            embeds = embeds.masked_scatter((batch.input_ids == self.placeholder).unsqueeze(-1), features)
        outputs = self.decoder.model(inputs_embeds=embeds, attention_mask=batch.attention_mask, use_cache=False)
        logits = self.decoder.lm_head(outputs.last_hidden_state.flatten(0, 1).index_select(0, batch.seen))
        return (batch.weights * F.cross_entropy(logits.float(), batch.targets, reduction="none")).sum()


def main() -> None:
    parser = arguments()
    parser.add_argument("--tower", choices=list(TOWERS), required=True)
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--sorted", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    model = Assembled(options.config, options.tower).to(dtype)
    model.train()
    samples = load_samples(options.samples)
    if options.sorted:
        samples.sort(key=lambda sample: len(sample.input_ids))
    each = -(-len(samples) // options.groups)
    batches = [padded(samples[at : at + each], dtype) for at in range(0, len(samples), each)]
    total = sum(float(batch.weights.sum()) for batch in batches)
    optimizers = _optimizers(model)

    def step() -> Tensor:
        losses = []
        for batch in batches:
            loss = model(batch) / total
            loss.backward()
            losses.append(loss.detach())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return torch.stack(losses).sum()

    places = sum(batch.input_ids.numel() + (model.tower.places(batch) if len(batch.grids) else 0) for batch in batches)
    measure(step, model, places, options)


def padded(samples: Sequence[Sample], dtype: torch.dtype) -> Padded:
    packed = pack(samples)
    targets = pad_sequence(list(packed.targets.split(packed.lengths)), batch_first=True, padding_value=-100).flatten()
    seen = (targets != -100).nonzero().squeeze(1)
    ids = pad_sequence(list(packed.input_ids.split(packed.lengths)), batch_first=True)
    tokens = torch.tensor(packed.lengths)
    counts = packed.image_grid_hws.prod(1)
    pixels = torch.zeros(0, 0, 588)
    if packed.pixels is not None:
        pixels = pad_sequence(list(packed.pixels.flatten(1).split(counts.tolist())), batch_first=True)
    return Padded(
        input_ids=ids,
        attention_mask=(torch.arange(ids.shape[1]) < tokens[:, None]).long(),
        seen=seen,
        targets=targets.index_select(0, seen),
        weights=packed.weights,
        pixels=(pixels / 127.5 - 1).to(dtype),
        pixel_mask=(torch.arange(pixels.shape[1]) < counts[:, None]).long(),
        grids=packed.image_grid_hws,
    )


def _optimizers(model: Assembled) -> list[torch.optim.Optimizer]:
    """torch's Muon takes matrices only: the experts, which are one tensor of three dimensions a layer, go to AdamW."""
    no_matrices = ("embed_tokens.weight", "lm_head.weight", "position_embedding.weight")
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and not name.endswith(no_matrices) else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, weight_decay=0.1, betas=(0.9, 0.95)),
    ]


def _sizes(vision: dict[str, Any]) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    return {name: vision[name] for name in names}


if __name__ == "__main__":
    main()
