"""What a process sends to others in a step.

    weights    for every piece, those of the root once, of a layer twice: forward and backward     ring
    gradients  for every piece, in float32                                                         ring
    experts    places to their experts and back, and the gradients of both                         all to all
    context    latents of a row's tokens, the router's choices, pictures' features                 ring
    muon       directions and, in float32, updates, once a step                                    all to all

Whatever of a layer is computed again is sent again, weights apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig
from kimi_vl.train.plan.devices import Device, Group, all_to_all_seconds, ring_seconds
from kimi_vl.train.plan.piece import Piece
from kimi_vl.train.plan.units import Units
from kimi_vl.train.scale.layout import Layout

_WIDE = 4
_INDEX = 8


@dataclass(frozen=True)
class Transfer:
    """Bytes that one process sends of a kind, while it receives as many."""

    kind: str
    group: Group
    sent: float

    def seconds(self, device: Device) -> float:
        way = all_to_all_seconds if self.kind in ("experts", "muon") else ring_seconds
        return way(self.sent, self.group, device)


def transfers(
    config: KimiVLConfig, units: Units, layout: Layout, piece: Piece, pieces: int, recompute: str, *, number: int = 2
) -> list[Transfer]:
    """``number`` is the width of a weight that is computed with, and of a direction that is sent."""
    context, experts = Group(layout.context_parallel), Group(layout.expert_parallel)
    found = [
        Transfer("experts", experts, pieces * _experts(config, layout, piece, recompute, number)),
        Transfer("context", context, pieces * _context(config, layout, piece, recompute, number)),
    ]
    for unit in units:
        passes = 1 if unit is units.root else 2
        sent = unit.times * unit.sent * pieces
        others = (unit.group.processes - 1) / unit.group.processes
        found += [
            Transfer("weights", unit.group, number * passes * sent),
            Transfer("gradients", unit.group, _WIDE * sent),
            Transfer("muon", unit.group, (number + _WIDE) * unit.times * unit.here_of_muon * others),
        ]
    return [transfer for transfer in found if transfer.sent]


def _experts(config: KimiVLConfig, layout: Layout, piece: Piece, recompute: str, number: int) -> float:
    text, size = config.text_config, layout.expert_parallel
    layers = text.num_hidden_layers - min(text.first_k_dense_replace, text.num_hidden_layers)
    exchanges = layers * (4 if recompute == "nothing" else 6)
    return exchanges * piece.tokens * text.num_experts_per_tok * text.hidden_size * number * (size - 1) / size


def _context(config: KimiVLConfig, layout: Layout, piece: Piece, recompute: str, number: int) -> float:
    """A gradient is summed over all before each takes its own: that is sent twice."""
    text, others = config.text_config, layout.context_parallel - 1
    layers = text.num_hidden_layers
    sparse = layers - min(text.first_k_dense_replace, layers)
    latents = (text.kv_lora_rank + text.qk_rope_head_dim) * number
    scores, choice = text.n_routed_experts * _WIDE, text.num_experts_per_tok * (_INDEX + _WIDE)
    features = piece.patches // math.prod(config.vision_config.merge_kernel_size) * text.hidden_size * number
    of_token = layers * latents * (3 if recompute == "nothing" else 4) + sparse * (3 * scores + choice)
    return others * (piece.tokens * of_token + 3 * features)


def sharing(units: Units) -> Iterator[tuple[Group, int]]:
    """Groups of processes that share matrices out, and how many numbers of them one process holds."""
    yield units.root.group, sum(unit.times * unit.here_of_muon for unit in (units.root, *units.layers))
    for unit in units.experts:
        yield unit.group, unit.times * unit.here_of_muon
