"""GGUF files of Kimi-VL's shape with random weights, as llama.cpp's converter and quantiser lay them out.

    python random_gguf.py decoder config.json DST       architecture deepseek2, Q4_0, head Q6_K
    python random_gguf.py pictures config.json DST      MoonViT and projector (kimivl), float16

In: the ``config.json`` of a Kimi-VL. Out: a file that llama.cpp and ik_llama.cpp open. Runs in the peers' environment:
it needs gguf and numpy only. A block's 4-bit numbers have a mean of −0.5 steps, so each block's scale is given a random
sign: the weights' mean is zero, as real ones' is, and tokens route differently.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

_Q4_0_STEPS = 4.64  # standard deviation of q - 8, for q drawn from 0 to 15
_Q6_K_STEPS = 18.5 * 64  # of (q - 32) · 64, for q drawn from 0 to 63
_DEVIATION = 0.02  # as kimi-vl init draws weights
# Larger, for tokens to stay apart: what attention adds is nearly the same for all, and would soon route them alike.
_DEVIATION_OF_EMBEDDINGS = 10.0
_NORMS = ("norm.weight", "ln.weight", "ln1.weight", "ln2.weight")
_RANDOM = np.random.Generator(np.random.SFC64(0))


_Tensor = tuple[str, tuple[int, ...], Kind]


def main() -> None:
    part, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    config = json.loads(source.read_text())
    if part == "decoder":
        text = config["text_config"]
        _write(target, "deepseek2", lambda writer: _write_fields(writer, text), list(_tensors(text)))
    else:
        vision, wide = config["vision_config"], config["text_config"]["hidden_size"]
        tensors = list(_picture_tensors(vision, wide))
        _write(target, "clip", lambda writer: _write_picture_fields(writer, vision, wide), tensors)


def _write(target: Path, architecture: str, fields: Callable[[gguf.GGUFWriter], None], tensors: list[_Tensor]) -> None:
    partial = target.with_name(target.name + ".partial")
    writer = gguf.GGUFWriter(partial, architecture)
    fields(writer)
    for name, shape, kind in tensors:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        in_bytes = (*shape[:-1], shape[-1] // block * size)
        numbers = {Kind.F32: np.float32, Kind.F16: np.float16}.get(kind, np.uint8)
        of_info = in_bytes if numbers is np.uint8 else shape
        writer.add_tensor_info(name, of_info, np.dtype(numbers), int(np.prod(in_bytes)), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape, kind in tensors:
        writer.write_tensor_data(_values(name, shape, kind))
    writer.close()
    partial.rename(target)


def _write_fields(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(rope)
    writer.add_kv_lora_rank(latent)
    writer.add_key_length(latent + rope)
    writer.add_value_length(latent)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    _write_vocabulary(writer, config)


def _write_vocabulary(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The 256 bytes and names without meaning: only ids are ever given to the model."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + n) for n in range(256 - len(plain))]
    words = [chr(byte) for byte in plain] + others
    words += [f"<{n}>" for n in range(len(words), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges([f"{words[0]} {words[1]}"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def _tensors(config: dict[str, Any]) -> Iterator[_Tensor]:
    wide, heads = config["hidden_size"], config["num_attention_heads"]
    latent, nope, rope, value = (
        config[name] for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    experts, narrow = config["n_routed_experts"], config["moe_intermediate_size"]
    shared = narrow * config["n_shared_experts"]
    yield "token_embd.weight", (config["vocab_size"], wide), Kind.Q4_0
    yield "output_norm.weight", (wide,), Kind.F32
    yield "output.weight", (config["vocab_size"], wide), Kind.Q6_K
    for layer in range(config["num_hidden_layers"]):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", (wide,), Kind.F32
        yield at + "attn_q.weight", (heads * (nope + rope), wide), Kind.Q4_0
        yield at + "attn_kv_a_mqa.weight", (latent + rope, wide), Kind.Q4_0
        yield at + "attn_kv_a_norm.weight", (latent,), Kind.F32
        yield at + "attn_k_b.weight", (heads, latent, nope), Kind.Q4_0
        yield at + "attn_v_b.weight", (heads, value, latent), Kind.Q4_0
        yield at + "attn_output.weight", (wide, heads * value), Kind.Q4_0
        yield at + "ffn_norm.weight", (wide,), Kind.F32
        if layer < config["first_k_dense_replace"]:
            yield from _feed_forward(at + "ffn_{}.weight", (), wide, config["intermediate_size"])
            continue
        yield at + "ffn_gate_inp.weight", (experts, wide), Kind.F32
        yield at + "exp_probs_b.bias", (experts,), Kind.F32
        yield from _feed_forward(at + "ffn_{}_exps.weight", (experts,), wide, narrow)
        yield from _feed_forward(at + "ffn_{}_shexp.weight", (), wide, shared)


def _feed_forward(name: str, several: tuple[int, ...], wide: int, narrow: int) -> Iterator[_Tensor]:
    for part in ("gate", "up"):
        yield name.format(part), (*several, narrow, wide), Kind.Q4_0
    yield name.format("down"), (*several, wide, narrow), Kind.Q4_0


def _write_picture_fields(writer: gguf.GGUFWriter, config: dict[str, Any], wide: int) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.KIMIVL)
    writer.add_vision_projection_dim(wide)
    writer.add_vision_image_size(config["init_pos_emb_height"] * config["patch_size"])
    writer.add_vision_patch_size(config["patch_size"])
    writer.add_vision_embedding_length(config["hidden_size"])
    writer.add_vision_feed_forward_length(config["intermediate_size"])
    writer.add_vision_block_count(config["num_hidden_layers"])
    writer.add_vision_head_count(config["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(True)
    writer.add_vision_projector_scale_factor(config["merge_kernel_size"][0])


def _picture_tensors(config: dict[str, Any], wide: int) -> Iterator[_Tensor]:
    size, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    merged = size * config["merge_kernel_size"][0] * config["merge_kernel_size"][1]
    yield "v.patch_embd.weight", (size, 3, patch, patch), Kind.F16
    yield "v.patch_embd.bias", (size,), Kind.F32
    positions = config["init_pos_emb_height"] * config["init_pos_emb_width"]
    yield "v.position_embd.weight", (positions, size), Kind.F32
    for layer in range(config["num_hidden_layers"]):
        at = f"v.blk.{layer}."
        yield from _norm(at + "ln1", size)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(at + part, size, size)
        yield from _norm(at + "ln2", size)
        yield from _linear(at + "ffn_up", size, inner)
        yield from _linear(at + "ffn_down", inner, size)
    yield from _norm("v.post_ln", size)
    yield from _norm("mm.input_norm", size)
    yield from _linear("mm.1", merged, merged)
    yield from _linear("mm.2", merged, wide)


def _norm(name: str, size: int) -> Iterator[_Tensor]:
    yield name + ".weight", (size,), Kind.F32
    yield name + ".bias", (size,), Kind.F32


def _linear(name: str, inputs: int, outputs: int) -> Iterator[_Tensor]:
    yield name + ".weight", (outputs, inputs), Kind.F16
    yield name + ".bias", (outputs,), Kind.F32


def _values(name: str, shape: tuple[int, ...], kind: Kind) -> np.ndarray:
    if name.endswith(_NORMS):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if kind in (Kind.F32, Kind.F16):
        return _RANDOM.normal(0, _DEVIATION, shape).astype(np.float32 if kind == Kind.F32 else np.float16)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    deviation = _DEVIATION_OF_EMBEDDINGS if name == "token_embd.weight" else _DEVIATION
    count = int(np.prod(shape)) // block
    blocks = np.frombuffer(bytearray(_RANDOM.bytes(count * size)), np.uint8).reshape(count, size)
    if kind == Kind.Q4_0:
        sign = np.where(blocks[:, 0] & 1, 1, -1)
        blocks[:, :2] = (sign * deviation / _Q4_0_STEPS).astype("<f2")[:, None].view(np.uint8)
    else:
        signs = np.where(blocks[:, -18:-2] & 1, 64, -64).astype(np.int8)
        blocks[:, -18:-2] = signs.view(np.uint8)
        blocks[:, -2:] = np.full((count, 1), deviation / _Q6_K_STEPS, "<f2").view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


if __name__ == "__main__":
    main()
