"""The formula against the module's own tensors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from kimi_vl.config import KimiVLConfig, a3b, nano
from kimi_vl.footprint import footprint
from kimi_vl.model.attention import LatentCache
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from tests.conftest import GOLDEN_CONFIG

_ALL_DENSE = replace(nano(), text_config=replace(nano().text_config, first_k_dense_replace=9))


def _stored(config: KimiVLConfig) -> dict[str, int]:
    with torch.device("meta"):
        tensors = KimiVLForConditionalGeneration(config).state_dict()
    return {name: tensor.numel() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "config", [nano(), GOLDEN_CONFIG, a3b(), _ALL_DENSE], ids=["nano", "golden", "a3b", "all dense"]
)
def test_counts_what_a_checkpoint_stores(config: KimiVLConfig) -> None:
    stored = _stored(config)

    def part(prefix: str) -> int:
        return sum(count for name, count in stored.items() if name.startswith(prefix))

    counts = footprint(config)
    assert counts.language_model == part("language_model.")
    assert counts.vision_tower == part("vision_tower.")
    assert counts.projector == part("multi_modal_projector.")
    assert counts.total == sum(stored.values())


@pytest.mark.parametrize("config", [nano(), GOLDEN_CONFIG, a3b()], ids=["nano", "golden", "a3b"])
def test_active_is_all_but_the_experts_a_token_does_not_reach(config: KimiVLConfig) -> None:
    text, stored = config.text_config, _stored(config)
    of_experts = sum(count for name, count in stored.items() if ".mlp.experts." in name)
    idle = of_experts // text.n_routed_experts * (text.n_routed_experts - text.num_experts_per_tok)
    embeddings = sum(count for name, count in stored.items() if "embed_tokens" in name or "lm_head" in name)
    counts = footprint(config)
    assert counts.active == counts.language_model - idle
    assert counts.active_without_embeddings == counts.active - embeddings


def test_the_published_sizes() -> None:
    counts = footprint(a3b())
    assert [round(n / 1e9, 2) for n in (counts.language_model, counts.active_without_embeddings)] == [15.96, 2.24]
    assert [round(n / 1e9, 3) for n in (counts.vision_tower, counts.projector)] == [0.417, 0.031]
    assert counts.weight_bytes("bfloat16") == 2 * counts.total
    assert counts.weight_bytes("int4") == counts.total // 2


def test_the_cache_is_as_wide_as_the_real_one() -> None:
    cache = LatentCache(nano().text_config, dtype=torch.float32, device=torch.device("cpu"))
    layers = nano().text_config.num_hidden_layers
    kept = sum(
        part[0].numel()
        for layer in range(layers)
        for part in cache.extend(layer, torch.zeros(1, 64), torch.zeros(1, 16))
    )
    assert footprint(nano()).cache_per_token == kept


def test_needs_no_torch() -> None:
    code = "import sys, kimi_vl.footprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
