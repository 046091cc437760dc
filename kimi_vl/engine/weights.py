"""What the decoder is made of, in 4 bits: the nouns that the functions of this folder take.

D is the model's width, H its heads, E its experts. All other tensors are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kimi_vl.engine.int4 import Int4Matrix


@dataclass(frozen=True, eq=False)
class LatentAttentionWeights:
    """The attention half. ``kv_b_proj`` is cut into heads.

    Its key rows are there in both directions: answers take their queries to latents, prompts their latents to keys.
    """

    norm: Tensor  # [D]
    latent_norm: Tensor  # [rank]
    frequency: Tensor  # [rope / 2], radians a position
    q: Int4Matrix  # [H · (nope + rope), D]
    latent: Int4Matrix  # [rank + rope, D]
    o: Int4Matrix  # [D, H · value]
    mix: Int4Matrix  # H of [value, rank]
    key: Int4Matrix  # H of [rank, nope]
    upright: Int4Matrix  # H of [nope, rank]
    eps: float
    latent_eps: float

    @property
    def heads(self) -> int:
        return self.key.blocks.shape[0]

    @property
    def rank(self) -> int:
        return self.key.rows

    @property
    def nope(self) -> int:
        return self.key.columns

    @property
    def rope(self) -> int:
        return self.latent.rows - self.rank

    @property
    def value(self) -> int:
        return self.mix.rows


@dataclass(frozen=True, eq=False)
class SwiGLUWeights:
    """One feed-forward network, or several of one size stacked."""

    gate_up: Int4Matrix  # sixteen rows of gate, sixteen of up in turn: [2 · padded inner, D]
    down: Int4Matrix  # [D, inner]


@dataclass(frozen=True, eq=False)
class RoutedWeights:
    """The router and the experts that it chooses from."""

    router: Tensor  # [E, D]
    bias: Tensor  # [E]
    experts: SwiGLUWeights  # E of them
    chosen: int
    groups: int
    kept_groups: int
    normalize: bool
    scale: float


@dataclass(frozen=True, eq=False)
class FeedForwardWeights:
    """The feed-forward half: what all tokens pass, and the experts if the layer has any."""

    norm: Tensor  # [D]
    eps: float
    shared: SwiGLUWeights  # in a dense layer, all of it
    routed: RoutedWeights | None


@dataclass(frozen=True, eq=False)
class Ends:
    """What stands before and behind the layers."""

    embed: Int4Matrix  # [V, D]
    norm: Tensor  # [D]
    head: Int4Matrix  # [V, D]


Layer = tuple[LatentAttentionWeights, FeedForwardWeights]


@dataclass(frozen=True, eq=False)
class DecoderWeights:
    """The decoder in 4 bits."""

    layers: list[Layer]
    ends: Ends


@dataclass(frozen=True)
class Segment:
    """The next tokens of one sequence within a step."""

    pages: tuple[int, ...]  # where in the cache the sequence lies, 64 tokens a page
    start: int  # position of the first: so many are in the cache already
    tokens: int
    is_prompt: bool  # attends in the plain form of MLA, else in the absorbed one
