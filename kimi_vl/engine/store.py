"""A 4-bit checkpoint on disk: its layout, and the way back into memory.

    config.json                        the official one, with quantization_config {quant_method, version}
    vision.safetensors                 MoonViT and projector
    embeddings.safetensors
    layer-00.safetensors …             one decoder layer each
    head.safetensors                   last norm and head
    tokenizer and preprocessor files   as they were
    report.json                        bytes and errors by kind of tensor, and how near answers are if that was checked

A matrix NAME is stored as ``NAME.blocks`` and ``NAME.row_scale`` (see :mod:`kimi_vl.engine.int4`), the experts of a
layer as one stack. ``gate_up_proj`` has sixteen rows of ``gate_proj`` and sixteen of ``up_proj`` in turn. ``kv_b_proj``
is cut into heads: ``.mix`` (its value rows), ``.key`` (its key rows, transposed) and ``.upright`` (its key rows as they
are). Where 4 bits hurt, a second matrix, the rest, holds in 4 bits what the first left over, 8.5 bits a weight in all:
for what every latent passes, the attention's output, embeddings, head, the picture side, and dense layers if they are
a tenth of all layers or more. Then 16 rows of the rest lie behind the same 16 of the first (``blocks``
[..., rows / 16, 2, columns / 128, 1088], ``row_scale`` [2, ..., rows]); only the head's, most of which is never read,
are apart, as ``NAME.rest``. Norms, router and correction bias are float32 under their official names, what else the
picture side has is bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kimi_vl.checkpoint import place, read_json
from kimi_vl.config import KimiVLConfig, TextConfig
from kimi_vl.engine import layout
from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import BLOCK_ROWS
from kimi_vl.engine.linear import QuantizedLinear
from kimi_vl.engine.weight_file import WeightFile
from kimi_vl.engine.weights import (
    DecoderWeights,
    Ends,
    FeedForwardWeights,
    LatentAttentionWeights,
    Layer,
    RoutedWeights,
    SwiGLUWeights,
)
from kimi_vl.model.attention import KV_A_LAYERNORM_EPS, rope_angles
from kimi_vl.model.projector import KimiVLMultiModalProjector
from kimi_vl.model.vision import MoonViT

DECODER = "language_model.model"


def is_quantized(folder: Path) -> bool:
    """Whether a folder is in this layout.

    Raises: ``ValueError`` if it is quantised in another way, or has no ``config.json``.
    """
    return layout.is_quantized(read_json(folder / "config.json"), folder)


def read_decoder(folder: Path, config: KimiVLConfig) -> DecoderWeights:
    """Reads all but the picture side.

    Raises: ``ValueError`` naming the file for what is missing, left over or of a wrong size.
    """
    layers = [read_layer(folder, config, i) for i in range(config.text_config.num_hidden_layers)]
    return DecoderWeights(layers, read_ends(folder, config))


def read_layer(folder: Path, config: KimiVLConfig, index: int) -> Layer:
    """Raises as :func:`read_decoder`."""
    text, prefix = config.text_config, f"{DECODER}.layers.{index}"
    with WeightFile(folder / layout.layer_file(index)) as file:
        return _attention(file, prefix, text), _feed_forward(file, prefix, text, index)


def read_ends(folder: Path, config: KimiVLConfig) -> Ends:
    """Raises as :func:`read_decoder`."""
    text = config.text_config
    size = (text.vocab_size, text.hidden_size)
    with WeightFile(folder / layout.EMBEDDINGS, at_once=False) as file:
        embed = file.matrix(f"{DECODER}.embed_tokens", *size, twice=True)
    with WeightFile(folder / layout.HEAD) as file:
        norm = file.floats(f"{DECODER}.norm.weight", text.hidden_size)
        head = file.matrix("language_model.lm_head", *size)
        rest = file.matrix("language_model.lm_head.rest", *size)
        return Ends(embed, norm, replace(head, rest=rest))


def read_vision(folder: Path, config: KimiVLConfig, backend: Backend) -> tuple[MoonViT, KimiVLMultiModalProjector]:
    """The picture side: its matrices as stored, the rest in float32.

    Raises: ``ValueError`` naming the file for what is missing, left over or of a wrong size.
    """
    with torch.device("meta"):
        modules = nn.ModuleDict(
            {"vision_tower": MoonViT(config.vision_config), "multi_modal_projector": KimiVLMultiModalProjector(config)}
        )
    with WeightFile(folder / layout.VISION, at_once=False) as file:
        for name, module in list(modules.named_modules()):
            if isinstance(module, nn.Linear):
                matrix = file.matrix(name, module.out_features, module.in_features, twice=True)
                bias = file.take(f"{name}.bias", torch.bfloat16, module.out_features).float()
                owner, _, leaf = name.rpartition(".")
                setattr(modules.get_submodule(owner), leaf, QuantizedLinear(matrix, bias, backend))
        for name, planned in modules.state_dict().items():
            place(modules, name, file.take(name, torch.bfloat16, *planned.shape).float())
    modules.eval().requires_grad_(False)
    tower, projector = modules["vision_tower"], modules["multi_modal_projector"]
    assert isinstance(tower, MoonViT) and isinstance(projector, KimiVLMultiModalProjector)
    return tower, projector


def _attention(file: WeightFile, prefix: str, text: TextConfig) -> LatentAttentionWeights:
    heads, width, rank, rope = text.num_attention_heads, text.hidden_size, text.kv_lora_rank, text.qk_rope_head_dim
    attn = f"{prefix}.self_attn"
    return LatentAttentionWeights(
        norm=file.floats(f"{prefix}.input_layernorm.weight", width),
        latent_norm=file.floats(f"{attn}.kv_a_layernorm.weight", rank),
        frequency=rope_angles(torch.ones(1), text)[0],
        q=file.matrix(f"{attn}.q_proj", heads * text.qk_head_dim, width),
        latent=file.matrix(f"{attn}.kv_a_proj_with_mqa", rank + rope, width, twice=True),
        o=file.matrix(f"{attn}.o_proj", width, heads * text.v_head_dim, twice=True),
        mix=file.matrix(f"{attn}.kv_b_proj.mix", text.v_head_dim, rank, heads, twice=True),
        key=file.matrix(f"{attn}.kv_b_proj.key", rank, text.qk_nope_head_dim, heads, twice=True),
        upright=file.matrix(f"{attn}.kv_b_proj.upright", text.qk_nope_head_dim, rank, heads, twice=True),
        eps=text.rms_norm_eps,
        latent_eps=KV_A_LAYERNORM_EPS,
    )


def _feed_forward(file: WeightFile, prefix: str, text: TextConfig, index: int) -> FeedForwardWeights:
    width, inner, experts = text.hidden_size, text.moe_intermediate_size, text.n_routed_experts

    def swiglu(name: str, size: int, *stack: int, twice: bool = False) -> SwiGLUWeights:
        in_turn = 2 * -(-size // BLOCK_ROWS) * BLOCK_ROWS
        return SwiGLUWeights(
            gate_up=file.matrix(f"{name}.gate_up_proj", in_turn, width, *stack, twice=twice),
            down=file.matrix(f"{name}.down_proj", width, size, *stack, twice=twice),
        )

    norm = file.floats(f"{prefix}.post_attention_layernorm.weight", width)
    mlp = f"{prefix}.mlp"
    if not text.is_moe_layer(index):
        dense = swiglu(mlp, text.intermediate_size, twice=layout.dense_twice(text))
        return FeedForwardWeights(norm, text.rms_norm_eps, dense, None)
    routed = RoutedWeights(
        router=file.floats(f"{mlp}.gate.weight", experts, width),
        bias=file.floats(f"{mlp}.gate.e_score_correction_bias", experts),
        experts=swiglu(f"{mlp}.experts", inner, experts),
        chosen=text.num_experts_per_tok,
        groups=text.n_group,
        kept_groups=text.topk_group,
        normalize=text.norm_topk_prob,
        scale=text.routed_scaling_factor,
    )
    shared = swiglu(f"{mlp}.shared_experts", inner * text.n_shared_experts)
    return FeedForwardWeights(norm, text.rms_norm_eps, shared, routed)
