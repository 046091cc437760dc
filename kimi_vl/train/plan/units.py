"""Which weights come together at a time, and what of them one process holds.

In: a config and a layout. Out: as shapes, the units that :mod:`kimi_vl.train.scale.sharding` makes of a model and its
reading and placing heads. Process 0 is counted: where rows are not cut evenly it has as many as any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig, MoonViTConfig, TextConfig
from kimi_vl.train.plan.devices import Group
from kimi_vl.train.scale.layout import Layout

# What the reading head guesses from a column of patches, so many numbers for each of its characters.
READER_ROWS = 4 * 108
# What the placing head guesses from a token: hundredths of the height and of the width.
PLACER_ROWS = 2 * 100


@dataclass(frozen=True)
class Weight:
    """``count`` parameters of one shape."""

    shape: tuple[int, ...]
    count: int = 1
    muon: bool = False

    @property
    def numbers(self) -> int:
        return self.count * math.prod(self.shape)

    def rows(self, processes: int) -> int:
        """Of each that one process holds."""
        return -(-self.shape[0] // processes)

    def here(self, processes: int) -> int:
        """Numbers that one process holds."""
        return self.count * self.rows(processes) * math.prod(self.shape[1:])


@dataclass(frozen=True)
class Unit:
    """Weights that are whole together, ``times`` over in the model, shared out among the processes of a group."""

    weights: tuple[Weight, ...]
    group: Group
    times: int = 1

    @property
    def numbers(self) -> int:
        """Of one when it is whole."""
        return sum(weight.numbers for weight in self.weights)

    @property
    def here(self) -> int:
        """Numbers that a process holds of one."""
        return sum(weight.here(self.group.processes) for weight in self.weights)

    @property
    def here_of_muon(self) -> int:
        return sum(weight.here(self.group.processes) for weight in self.weights if weight.muon)

    @property
    def sent(self) -> int:
        """Numbers that a process gets from others when one becomes whole. Rows are filled up to be cut evenly."""
        return self.here * (self.group.processes - 1)


@dataclass(frozen=True)
class Units:
    root: Unit  # what is used first and last, or once
    layers: tuple[Unit, ...]  # of the tower and the decoder
    experts: tuple[Unit, ...]  # of the decoder's layers, where they are units of their own

    def __iter__(self) -> Iterator[Unit]:
        yield from (self.root, *self.layers, *self.experts)

    @property
    def here(self) -> int:
        """Numbers that a process holds."""
        return sum(unit.times * unit.here for unit in self)

    @property
    def here_of_muon(self) -> int:
        return sum(unit.times * unit.here_of_muon for unit in self)


def units(config: KimiVLConfig, layout: Layout) -> Units:
    """The weights of a model that answers, laid out."""
    text, vision = config.text_config, config.vision_config
    everybody = Group(layout.processes)
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    sparse = text.num_hidden_layers - dense
    experts = _mlp(text.hidden_size, text.moe_intermediate_size, text.n_routed_experts // layout.expert_parallel)
    shared = _mlp(text.hidden_size, text.n_shared_experts * text.moe_intermediate_size)
    moe = (*_attention(text), _matrix(text.n_routed_experts, text.hidden_size), *shared)
    apart: list[Unit] = []
    if layout.expert_parallel > 1:
        same = Group(layout.processes // layout.expert_parallel, layout.expert_parallel)
        apart.append(Unit(experts, same, sparse))
    else:
        moe = (*moe, *experts)
    layers = [
        Unit(_tower_layer(vision), everybody, vision.num_hidden_layers),
        Unit((*_attention(text), *_mlp(text.hidden_size, text.intermediate_size)), everybody, dense),
        Unit(moe, everybody, sparse),
    ]
    return Units(Unit(_root(config), everybody), tuple(layers), tuple(apart))


def _matrix(rows: int, columns: int, count: int = 1) -> Weight:
    return Weight((rows, columns), count, muon=True)


def _linear(rows: int, columns: int) -> tuple[Weight, ...]:
    return _matrix(rows, columns), Weight((rows,))


def _mlp(width: int, inner: int, count: int = 1) -> tuple[Weight, ...]:
    return _matrix(inner, width, 2 * count), _matrix(width, inner, count)


def _attention(text: TextConfig) -> tuple[Weight, ...]:
    """With the layer's two norms."""
    heads, width, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    return (
        _matrix(heads * text.qk_head_dim, width),
        _matrix(rank + text.qk_rope_head_dim, width),
        _matrix(heads * (text.qk_nope_head_dim + text.v_head_dim), rank),
        _matrix(width, heads * text.v_head_dim),
        Weight((rank,)),
        Weight((width,), 2),
    )


def _tower_layer(vision: MoonViTConfig) -> tuple[Weight, ...]:
    width, inner = vision.hidden_size, vision.intermediate_size
    norms = Weight((width,), 4)
    return (
        *_linear(3 * width, width),
        *_linear(width, width),
        *_linear(inner, width),
        *_linear(width, inner),
        norms,
    )


def _root(config: KimiVLConfig) -> tuple[Weight, ...]:
    text, vision = config.text_config, config.vision_config
    width, merged = vision.hidden_size, vision.merged_size
    return (
        Weight((text.vocab_size, text.hidden_size), 2),
        Weight((text.hidden_size,)),
        Weight((width, 3, vision.patch_size, vision.patch_size)),
        Weight((vision.init_pos_emb_height, vision.init_pos_emb_width, width)),
        Weight((width,), 5),  # of the patches' bias, the tower's last norm and the projector's
        *_linear(merged, merged),
        *_linear(text.hidden_size, merged),
        Weight((READER_ROWS, width)),
        Weight((READER_ROWS,)),
        Weight((PLACER_ROWS, text.hidden_size)),
        Weight((PLACER_ROWS,)),
    )
