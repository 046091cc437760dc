"""The optimizer: every step is what the papers say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kimi_vl.model.attention import MultiHeadLatentAttention
from kimi_vl.train.optim import muon
from kimi_vl.train.optim.muon import check_matrix
from kimi_vl.train.optim.muon_adamw import MuonAdamW, is_muon
from kimi_vl.train.optim.rates import rate
from tests.conftest import random_model
from tests.training import TINY, pupil_of


def naive_orthogonal(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps on the short side (arXiv 2502.16982, section 2.1)."""
    x = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
@torch.no_grad()
def test_muon_is_the_papers(
    shape: tuple[int, int], dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounding of bfloat16, which the five steps multiply, differs from CPU to CPU."""
    monkeypatch.setattr(muon, "fast_dtype", lambda device: dtype)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    optimizer, lr = MuonAdamW(layer, weight_decay=0.1), 0.02
    momentum = torch.zeros(shape)
    for step in range(4):
        before = layer.weight.clone()
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(step)) / 100
        layer.weight.grad = grad.clone()
        assert optimizer.step(lr) == pytest.approx(float(grad.norm()))
        # Nesterov's look ahead. Its scale is lost in the first division, so an average serves as well as a sum.
        momentum = 0.95 * momentum + 0.05 * grad
        update = 0.2 * math.sqrt(max(shape)) * naive_orthogonal(0.05 * grad + 0.95 * momentum)
        expected = -lr * (update + 0.1 * before)
        assert (layer.weight - before - expected).norm() < tolerance * expected.norm()
        # About the size of AdamW's updates, whatever the shape.
        assert 0.1 < float(update.square().mean().sqrt()) < 0.4
    assert layer.weight.grad is None


def test_the_rest_is_adamw() -> None:
    layer = nn.LayerNorm(5)
    twin = nn.Parameter(layer.weight.detach().clone())
    ours = MuonAdamW(layer)
    theirs = torch.optim.AdamW([twin], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(5):
        grad = torch.randn(5, generator=torch.Generator().manual_seed(step)) / 10
        layer.weight.grad, layer.bias.grad, twin.grad = grad.clone(), torch.zeros(5), grad.clone()
        ours.step(0.01)
        theirs.step()
        assert torch.allclose(layer.weight, twin, atol=1e-6)


def test_the_length_of_bfloat16_gradients_is_told_exactly() -> None:
    layer = nn.LayerNorm(3, dtype=torch.bfloat16)
    layer.weight.grad = torch.tensor([1.0, 1.0, 1.0], dtype=torch.bfloat16)
    layer.bias.grad = torch.zeros(3, dtype=torch.bfloat16)
    assert MuonAdamW(layer).step(0.1) == pytest.approx(math.sqrt(3), rel=1e-6)


def test_gradients_are_clipped_together() -> None:
    layer = nn.LayerNorm(3)
    optimizer = MuonAdamW(layer)
    layer.weight.grad, layer.bias.grad = torch.tensor([30.0, 0, 0]), torch.tensor([0, 40.0, 0])
    assert optimizer.step(0.1) == pytest.approx(50.0)
    state = optimizer.state_dict()
    assert state["optimizer/exp_avg.weight"][0].item() == pytest.approx(0.1 * 0.6, rel=1e-4)
    assert state["optimizer/exp_avg.bias"][1].item() == pytest.approx(0.1 * 0.8, rel=1e-4)


def test_matrices_of_blocks_go_to_muon_each_expert_by_itself() -> None:
    """(J2)"""
    learner = pupil_of(random_model(config=TINY), reading=1.0, placing=1.0)
    muon = {name for name, p in learner.named_parameters() if is_muon(name, p)}
    experts = {f"model.language_model.model.layers.1.mlp.experts.{e}.up_proj.weight" for e in range(4)}
    assert experts <= muon
    assert "model.language_model.model.layers.1.mlp.gate.weight" in muon
    assert all(dict(learner.named_parameters())[name].ndim == 2 for name in muon)
    rest = {name for name, _ in learner.named_parameters()} - muon
    for part in (
        "embed_tokens.weight",
        "lm_head.weight",
        "pos_emb.weight",
        "patch_embed.proj.weight",
        "reader.",
        "placer.",
    ):
        assert any(part in name for name in rest)
    assert all(
        name.endswith(("bias", "norm.weight", "norm0.weight", "norm1.weight", "layernorm.weight"))
        for name in rest
        if not name.endswith(("embed_tokens.weight", "lm_head.weight", "emb.weight", "proj.weight", "scale"))
    )


def test_an_expert_that_nobody_chose_stays_as_it_is() -> None:
    pair = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    before = [p.detach().clone() for p in pair.parameters()]
    optimizer = MuonAdamW(pair)
    next(pair.parameters()).grad = torch.ones(4, 4)
    optimizer.step(0.1)
    first, second = pair.parameters()
    assert not torch.equal(first, before[0])
    assert torch.equal(second, before[1])


def test_bfloat16_weights_add_up_steps_too_small_for_them() -> None:
    layer = nn.LayerNorm(4, dtype=torch.bfloat16)  # weights of 1, beside which 0.001 is rounded off
    optimizer = MuonAdamW(layer, weight_decay=0.0)
    for step in range(30):
        layer.weight.grad = torch.ones(4, dtype=torch.bfloat16) / 10
        layer.bias.grad = torch.zeros(4, dtype=torch.bfloat16)
        optimizer.step(1e-3)
        assert step or torch.equal(layer.weight, torch.ones(4, dtype=torch.bfloat16))
    assert layer.weight.dtype == torch.bfloat16
    assert (layer.weight.float() - 0.97).abs().max() < 0.005


@given(step=st.integers(0, 99), warmup=st.integers(0, 20), decay=st.floats(0, 0.7), floor=st.floats(0, 0.5))
@settings(max_examples=60)
def test_the_rate_goes_up_level_and_down(step: int, warmup: int, decay: float, floor: float) -> None:
    def at(step: int) -> float:
        return rate(step, peak=2.0, warmup=warmup, total=100, decay=decay, floor=floor)

    assert 0 < at(step) <= 2.0
    assert (at(step + 1) >= at(step)) if step + 1 < warmup else True
    assert (at(step) == pytest.approx(2.0)) if warmup <= step < 100 - round(100 * decay) else True
    assert at(100) == pytest.approx(2.0 * floor)


def test_the_cosine_falls_along_half_a_wave() -> None:
    def at(step: int) -> float:
        return rate(step, peak=2e-5, warmup=10, total=110, shape="cosine", floor=0.1)

    assert [at(0), at(9)] == pytest.approx([2e-6, 2e-5])
    # A tenth stays; of the rest cos² of a quarter of a turn.
    assert [at(10), at(60), at(110)] == pytest.approx([2e-5, (0.1 + 0.9 / 2) * 2e-5, 2e-6])
    assert at(35) == pytest.approx(2e-5 * (0.1 + 0.9 * math.cos(math.pi / 8) ** 2))
    with pytest.raises(ValueError, match="shape is one of wsd, cosine, not 'step'"):
        rate(0, peak=1.0, warmup=0, total=1, shape="step")


def test_queries_keys_and_values_are_matrices_of_their_own() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wqkv = nn.Linear(4, 12, bias=False)

    fused = Fused()
    apart = nn.ModuleList([nn.Linear(4, 4, bias=False) for _ in range(3)])
    grad = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) / 10
    grad[4:8] *= 100  # were it one matrix, this part would leave the others next to nothing
    with torch.no_grad():
        for part, layer, of_part in zip(fused.wqkv.weight.chunk(3), apart, grad.chunk(3), strict=True):
            next(layer.parameters()).copy_(part)
            next(layer.parameters()).grad = of_part.clone()
    fused.wqkv.weight.grad = grad.clone()
    MuonAdamW(fused).step(0.1)
    MuonAdamW(apart).step(0.1)
    assert torch.allclose(fused.wqkv.weight, torch.cat(list(apart.parameters())), atol=1e-5)


def test_keys_and_values_of_all_heads_are_two_matrices() -> None:
    """kv_b_proj has the keys of a head above its values, then those of the next (J3)."""
    attention = random_model(config=TINY).language_model.model.layers[0].self_attn
    assert isinstance(attention, MultiHeadLatentAttention)
    nope, v, heads = attention.nope_dim, attention.v_head_dim, attention.num_heads
    weight = attention.kv_b_proj.weight
    of_head = [part for _ in range(heads) for part in ([0] * nope + [1] * v)]
    places = [[row for row, part in enumerate(of_head) if part == wanted] for wanted in (0, 1)]
    grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 10
    grad[places[0]] *= 100
    apart = nn.ModuleList([nn.Linear(weight.shape[1], len(rows), bias=False) for rows in places])
    with torch.no_grad():
        for rows, parameter in zip(places, apart.parameters(), strict=True):
            parameter.copy_(weight[rows])
            parameter.grad = grad[rows].clone()
    weight.grad = grad.clone()
    MuonAdamW(attention).step(0.1)
    MuonAdamW(apart).step(0.1)
    for rows, parameter in zip(places, apart.parameters(), strict=True):
        assert torch.allclose(weight[rows], parameter, atol=1e-5)


@pytest.mark.parametrize(("shape", "rows"), [((4,), ()), ((4, 4, 4), ()), ((10, 4), (2, 1))])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...], rows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not one matrix"):
        check_matrix(shape, rows)
