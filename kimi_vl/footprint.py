"""How large a Kimi-VL is: parameters, and the memory that weights and cache take.

In: a :class:`KimiVLConfig`. Out: :class:`Footprint`. Arithmetic only: no tensor is made and torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig, MoonViTConfig, TextConfig

# int8 and int4 without the scales that a quantised format adds.
BYTES_PER_PARAMETER = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Footprint:
    """Numbers that a checkpoint stores, by part, and that one text token meets."""

    language_model: int
    vision_tower: int
    projector: int
    active: int  # of the language model for one token, with both embedding tables
    active_without_embeddings: int  # how Moonlight and Kimi-VL are counted in their reports
    cache_per_token: int  # numbers that all layers' latent caches keep of one token

    @property
    def total(self) -> int:
        return self.language_model + self.vision_tower + self.projector

    def weight_bytes(self, precision: str) -> int:
        """Plain parameters times width; ``precision`` is a key of :data:`BYTES_PER_PARAMETER`."""
        return int(self.total * BYTES_PER_PARAMETER[precision])


def footprint(config: KimiVLConfig) -> Footprint:
    """Counts a model of this architecture."""
    text, vision = config.text_config, config.vision_config
    # embed_tokens and lm_head are not tied
    embeddings = 2 * text.vocab_size * text.hidden_size
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    sparse = text.num_hidden_layers - dense
    expert = _mlp(text.hidden_size, text.moe_intermediate_size)
    # its weight and one correction bias an expert
    router = text.n_routed_experts * (text.hidden_size + 1)
    everywhere = (
        text.num_hidden_layers * (_attention(text) + 2 * text.hidden_size)
        + dense * _mlp(text.hidden_size, text.intermediate_size)
        + sparse * (router + text.n_shared_experts * expert)
        + text.hidden_size  # the last norm
    )
    active = everywhere + sparse * text.num_experts_per_tok * expert
    return Footprint(
        language_model=embeddings + everywhere + sparse * text.n_routed_experts * expert,
        vision_tower=_vision_tower(vision),
        projector=_projector(vision, text.hidden_size),
        active=embeddings + active,
        active_without_embeddings=active,
        cache_per_token=text.num_hidden_layers * (text.kv_lora_rank + text.qk_rope_head_dim),
    )


def in_bytes(count: int) -> str:
    """``32.8 GB``; decimal units, as disks and pages of models have them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _attention(text: TextConfig) -> int:
    heads, width, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    q_proj = width * heads * text.qk_head_dim
    kv_a_proj_and_norm = width * (rank + text.qk_rope_head_dim) + rank
    kv_b_proj = rank * heads * (text.qk_nope_head_dim + text.v_head_dim)
    o_proj = heads * text.v_head_dim * width
    return q_proj + kv_a_proj_and_norm + kv_b_proj + o_proj


def _mlp(width: int, inner: int) -> int:
    return 3 * width * inner


def _linear(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out


def _vision_tower(vision: MoonViTConfig) -> int:
    width, inner = vision.hidden_size, vision.intermediate_size
    norm = 2 * width
    layer = 2 * norm + _linear(width, 3 * width) + _linear(width, width) + _linear(width, inner) + _linear(inner, width)
    patches = _linear(3 * vision.patch_size**2, width)
    positions = vision.init_pos_emb_height * vision.init_pos_emb_width * width
    return patches + positions + vision.num_hidden_layers * layer + norm


def _projector(vision: MoonViTConfig, width_out: int) -> int:
    merged = vision.merged_size
    return 2 * vision.hidden_size + _linear(merged, merged) + _linear(merged, width_out)
