"""config.json as the official checkpoint, transformers and we ourselves write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from kimi_vl.checkpoint import read_config
from kimi_vl.config import KimiVLConfig, MoonViTConfig, TextConfig, a3b
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from tests.conftest import GOLDEN, SMALL_CONFIG


@pytest.mark.parametrize("config", [a3b(), SMALL_CONFIG, read_config(GOLDEN)])
def test_a_config_comes_back(config: KimiVLConfig) -> None:
    assert KimiVLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def official() -> dict[str, Any]:
    return json.loads(json.dumps(a3b().to_dict()))


def test_the_real_config_has_the_published_sizes() -> None:
    with torch.device("meta"):
        model = Model(a3b())
    tensors = model.state_dict()
    assert len(tensors) == 5679 - 27  # without the rotary tables
    parts = {"language_model": 15.96, "vision_tower": 0.417, "multi_modal_projector": 0.031}
    for part, billions in parts.items():
        size = sum(t.numel() for name, t in tensors.items() if name.startswith(part))
        assert round(size / 1e9, 2 if billions > 1 else 3) == billions


def test_names_and_shapes_are_the_official_ones() -> None:
    with torch.device("meta"):
        shapes = {name: list(t.shape) for name, t in Model(a3b()).state_dict().items()}
    layer = "language_model.model.layers"
    assert shapes[f"{layer}.0.mlp.gate_proj.weight"] == [11264, 2048]
    assert shapes[f"{layer}.26.mlp.experts.63.down_proj.weight"] == [2048, 1408]
    assert shapes[f"{layer}.1.mlp.shared_experts.up_proj.weight"] == [2816, 2048]
    assert shapes[f"{layer}.1.mlp.gate.e_score_correction_bias"] == [64]
    assert shapes[f"{layer}.5.self_attn.q_proj.weight"] == [3072, 2048]
    assert shapes[f"{layer}.5.self_attn.kv_a_proj_with_mqa.weight"] == [576, 2048]
    assert shapes[f"{layer}.5.self_attn.kv_a_layernorm.weight"] == [512]
    assert shapes[f"{layer}.5.self_attn.kv_b_proj.weight"] == [4096, 512]
    assert shapes[f"{layer}.5.self_attn.o_proj.weight"] == [2048, 2048]
    assert shapes["language_model.lm_head.weight"] == [163840, 2048]
    assert shapes["vision_tower.patch_embed.pos_emb.weight"] == [64, 64, 1152]
    assert shapes["vision_tower.patch_embed.proj.weight"] == [1152, 3, 14, 14]
    assert shapes["vision_tower.encoder.blocks.26.wqkv.bias"] == [3456]
    assert shapes["vision_tower.encoder.blocks.0.mlp.fc1.weight"] == [1152, 4304]
    assert shapes["vision_tower.encoder.final_layernorm.bias"] == [1152]
    assert shapes["multi_modal_projector.linear_2.weight"] == [2048, 4608]
    assert f"{layer}.0.mlp.experts.0.up_proj.weight" not in shapes


def test_the_text_config_needs_no_model_type() -> None:
    raw = official()
    raw["text_config"].pop("model_type", None)
    assert KimiVLConfig.from_dict(raw) == a3b()
    raw["text_config"]["model_type"] = "deepseek_v3"
    assert KimiVLConfig.from_dict(raw) == a3b()


def test_the_form_of_transformers_5() -> None:
    raw = official()
    del raw["text_config"]["rope_theta"], raw["torch_dtype"]
    raw["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 50000.0}
    raw["dtype"] = "float16"
    config = KimiVLConfig.from_dict(raw)
    assert (config.text_config.rope_theta, config.torch_dtype) == (50000.0, "float16")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("text_config", "q_lora_rank", 1536),
        ("text_config", "rope_scaling", {"type": "yarn", "factor": 40}),
        ("text_config", "attention_bias", True),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "scoring_func", "softmax"),
        ("text_config", "topk_method", "greedy"),
        ("text_config", "moe_layer_freq", 2),
        ("text_config", "tie_word_embeddings", True),
        ("text_config", "num_nextn_predict_layers", 1),
        ("text_config", "num_key_value_heads", 4),
        ("text_config", "hidden_size", 0),
        ("text_config", "hidden_size", "2048"),
        ("text_config", "vocab_size", True),
        ("text_config", "kv_lora_rank", 1.5),
        ("text_config", "qk_rope_head_dim", 63),
        ("text_config", "num_experts_per_tok", 65),
        ("text_config", "n_group", 5),
        ("text_config", "rope_parameters", {"rope_type": "yarn", "rope_theta": 50000.0}),
        ("text_config", "rope_theta", "800000"),
        ("text_config", "rms_norm_eps", None),
        ("text_config", "norm_topk_prob", 1),
        ("text_config", "first_k_dense_replace", -1),
        ("text_config", "eos_token_id", [163585]),
        ("text_config", "routed_scaling_factor", float("nan")),
        ("vision_config", "patch_size", -14),
        ("vision_config", "merge_kernel_size", 2),
        ("vision_config", "merge_kernel_size", ["a", "b"]),
        ("vision_config", "num_attention_heads", 5),
        ("vision_config", "merge_kernel_size", [2]),
        ("vision_config", "merge_kernel_size", [0, 2]),
        ("", "media_placeholder_token_id", 163840),
        ("", "media_placeholder_token_id", "163605"),
        ("", "torch_dtype", "int8"),
    ],
)
def test_a_wrong_value_is_named(part: str, name: str, value: object) -> None:
    raw = official()
    (raw[part] if part else raw)[name] = value
    # Some faults are told by what they come to: experts out of groups, and the width over the heads.
    said = {
        "rope_parameters": "rope_type='yarn'",
        "n_group": "experts cannot form 5 equal groups",
        "num_attention_heads": "over 5 heads",
    }
    with pytest.raises(ValueError, match=said.get(name, name)):
        KimiVLConfig.from_dict(raw)


def test_the_defaults_are_the_published_model() -> None:
    assert (TextConfig(), MoonViTConfig()) == (a3b().text_config, a3b().vision_config)
    assert (a3b().media_placeholder_token_id, a3b().torch_dtype) == (163605, "bfloat16")
