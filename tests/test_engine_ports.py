"""Failures that people reported on ports and quantised models, each with the right behaviour; its case in brackets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kimi_vl import KimiVL, Reply
from kimi_vl.checkpoint import Checkpoint, save_model
from kimi_vl.config import a3b, nano
from kimi_vl.engine import reference
from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.weights import RoutedWeights, Segment, SwiGLUWeights
from kimi_vl.hub import NANO
from kimi_vl.model import moe
from tests.conftest import random_model
from tests.engines import LINE, LINE_SAYS, PROCESSOR, noise
from tests.layers import matrix


@pytest.fixture(scope="module")
def exact() -> KimiVL:
    return KimiVL.from_pretrained("nano", dtype="float32")


def logits(model: EngineModel, ids: Tensor) -> Tensor:
    pages = tuple(range(-(-len(ids) // PAGE)))
    x = model.run(model.embed(ids), [Segment(pages, 0, len(ids), True)], model.new_cache(len(pages)))
    return model.logits(x)


def test_text_alone_is_what_the_exact_model_says(nano4: EngineModel, exact: KimiVL) -> None:
    """(G1) Before any picture: every position of a text, and the likeliest token of most."""
    ids = torch.tensor(
        PROCESSOR.tokenizer.encode("The shell reads a line, and the words of it are the arguments. " * 3)
    )
    found = logits(nano4, ids).log_softmax(-1)
    with torch.inference_mode():
        wanted = exact.model(ids, [len(ids)]).logits.log_softmax(-1)
    divergence = (wanted.exp() * (wanted - found)).sum(-1)
    assert float(divergence.mean()) < 0.15
    assert float((found.argmax(-1) == wanted.argmax(-1)).float().mean()) > 0.65


@pytest.mark.parametrize(("groups", "kept"), [(1, 1), (4, 2), (2, 1)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [1.0, 2.446])
def test_every_option_of_the_router_is_that_of_the_exact_model(
    groups: int, kept: int, normalize: bool, scale: float
) -> None:
    """(G2) The bias chooses but does not count, the chosen share one, then comes the scale."""
    torch.manual_seed(0)
    config = replace(
        nano().text_config,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_group=groups,
        topk_group=kept,
        norm_topk_prob=normalize,
        routed_scaling_factor=scale,
    )
    x, router, bias = torch.randn(50, 32), torch.randn(8, 32), torch.randn(8) / 3
    wanted = moe.route(x @ router.T, bias, config)
    no_experts = SwiGLUWeights(matrix(1, 1), matrix(1, 1))
    chosen, weight = reference.route(x, RoutedWeights(router, bias, no_experts, 3, groups, kept, normalize, scale))
    order = wanted.topk_idx.argsort(-1)
    assert torch.equal(chosen, wanted.topk_idx.gather(1, order))
    assert torch.allclose(weight, wanted.topk_weight.gather(1, order), atol=1e-6)
    unbiased = moe.route(x @ router.T, torch.zeros(8), config)
    assert not torch.equal(chosen, unbiased.topk_idx.sort(-1).values), "the bias decides"
    assert float(weight.sum(-1).std()) < 1e-5 if normalize else float(weight.sum(-1).std()) > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (30, 14), (60, 300), (448, 224), (700, 500)], ids=str)
def test_the_tower_sees_what_the_exact_one_sees(nano4: EngineModel, exact: KimiVL, size: tuple[int, int]) -> None:
    """(G3) The position table, of 16 × 32 patches, is shrunk, stretched or neither."""
    inputs = PROCESSOR([{"role": "user", "content": [{"image": noise(0, *size)}]}])
    assert inputs.pixel_values is not None
    h, w = inputs.image_grid_hws[0].tolist()
    found = nano4.image_features(inputs.pixel_values, (h, w))
    with torch.inference_mode():
        wanted = exact.model.image_features(inputs.pixel_values, inputs.image_grid_hws)
    # bfloat16 in keys and values, or all of the tower
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


def test_routers_norms_and_the_picture_side_keep_their_precision(nano4: EngineModel) -> None:
    """(G4) To the bit."""
    source = Checkpoint(NANO)
    weights = dict(source.read(source.shapes))
    for prefix, module in (("vision_tower", nano4.tower), ("multi_modal_projector", nano4.projector)):
        for name, kept in module.state_dict().items():
            assert torch.equal(kept.float(), weights[f"{prefix}.{name}"].float()), name
    for index, (attention, feed_forward) in enumerate(nano4.decoder.layers):
        of_layer = f"language_model.model.layers.{index}"
        assert torch.equal(attention.norm, weights[f"{of_layer}.input_layernorm.weight"].float())
        if feed_forward.routed is not None:
            gate = f"{of_layer}.mlp.gate"
            assert torch.equal(feed_forward.routed.router, weights[f"{gate}.weight"].float())
            assert torch.equal(feed_forward.routed.bias, weights[f"{gate}.e_score_correction_bias"].float())
    assert feed_forward.routed is not None


def test_every_layer_of_four_bits_is_near_the_exact_one(nano4: EngineModel, exact: KimiVL) -> None:
    """(G4) Fed with what the exact model feeds it, so that no layer hides behind another."""
    ids = torch.tensor(PROCESSOR.tokenizer.encode("A pipeline is a sequence of one or more commands."))
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, made: seen.append((given[0], made[0])))
        for layer in exact.model.language_model.model.layers
    ]
    with torch.inference_mode():
        exact.model(ids, [len(ids)])
    for hook in hooks:
        hook.remove()
    for (attention, feed_forward), (before, after) in zip(nano4.decoder.layers, seen, strict=True):
        x = before.clone()
        cache = torch.zeros(1, PAGE, attention.rank + attention.rope, dtype=torch.bfloat16)
        nano4.backend.latent_attention(x, attention, [Segment((0,), 0, len(ids), True)], cache)
        nano4.backend.feed_forward(x, feed_forward)
        assert float((x - after).norm() / (after - before).norm()) < 0.2


def shape(colour: str, is_round: bool) -> Image.Image:
    image = Image.new("RGB", (84, 84), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if is_round else draw.rectangle)((12, 12, 72, 72), fill=colour)
    return image


def test_an_output_that_is_all_equal_or_repeats_would_be_seen(nano4: EngineModel) -> None:
    """(G4) Pictures are answered in their own words; logits are finite, and differ by much."""
    read, name = "Read the text.", "What is this?"
    for image, question, says in (
        (LINE, read, LINE_SAYS),
        (LINE.crop((0, 0, 132, LINE.height)), read, "Turn left at the"),
        (shape("red", True), name, "red circle"),
        (shape("blue", False), name, "blue square"),
        (shape("green", True), name, "green circle"),
    ):
        messages = [{"role": "user", "content": [{"image": image}, question]}]
        assert Reply(Engine(nano4), PROCESSOR, messages).answer.text == says
    rows = logits(nano4, torch.tensor(PROCESSOR.tokenizer.encode(LINE_SAYS)))
    assert rows.isfinite().all()
    assert float(rows.std(-1).min()) > 0.5
    assert float((rows.amax(-1) - rows.median(-1).values).min()) > 3
    assert len(set(rows.argmax(-1).tolist())) > len(rows) // 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_types_of_weights_are_quantised_alike(nano4: EngineModel, tmp_path: Path, dtype: torch.dtype) -> None:
    """(B15) A checkpoint in float16 or float32 reads the line."""
    model = KimiVL.from_pretrained("nano").model.to(dtype)
    save_model(model, tmp_path / "other")
    quantize(tmp_path / "other", tmp_path / "other4", backend())
    messages = [{"role": "user", "content": [{"image": LINE}, "Read the text."]}]
    assert Reply(Engine.from_pretrained(tmp_path / "other4"), PROCESSOR, messages).answer.text == LINE_SAYS


def test_attention_of_the_official_sizes_runs(tmp_path: Path) -> None:
    """(G7) Heads, latents and rotary part of Kimi-VL-A3B in a narrow model, and with another base of its angles."""
    official = a3b().text_config
    names = ("num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    sizes = {name: getattr(official, name) for name in names}
    text = replace(nano().text_config, num_hidden_layers=2, **sizes)
    ids = torch.arange(100)
    found, wanted = [], []
    for theta in (text.rope_theta, 10.0):
        model = random_model(config=replace(nano(), text_config=replace(text, rope_theta=theta)), std=0.05)
        folder = tmp_path / str(theta)
        save_model(model, folder)
        quantize(folder, tmp_path / f"{theta}-4", backend())
        found.append(logits(EngineModel.from_folder(tmp_path / f"{theta}-4", backend()), ids))
        with torch.inference_mode():
            wanted.append(model(ids, [100]).logits)
    for i in range(2):
        near, far = ((found[i] - other).norm() / other.norm() for other in (wanted[i], wanted[1 - i]))
        assert float(near) < 0.3
        assert float(far) > 1.1 * float(near)
