"""Training: nothing peeks across samples, steps are what the papers say, and a stopped run goes on as if unbroken."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.model.moe import Routing
from kimi_vl.train.balance import busiest_share, moe_layers, sequence_balance_loss, update_correction_bias
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.muon import fast_dtype
from kimi_vl.train.optim import MuonAdamW, is_muon, warmup_stable_decay
from kimi_vl.train.packing import IGNORE, Batch, Sample, pack
from kimi_vl.train.reading import ALPHABET, FRAMES_PER_COLUMN, ReadingHead
from kimi_vl.train.state import load_state
from tests.conftest import SMALL_CONFIG, random_model, random_pixels

PLACEHOLDER = SMALL_CONFIG.media_placeholder_token_id
NO_PICTURES = torch.empty(0, 2, dtype=torch.int64)

# As small as it may be and still have every part.
TINY = KimiVLConfig(
    text_config=replace(
        SMALL_CONFIG.text_config,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        num_attention_heads=2,
    ),
    vision_config=replace(SMALL_CONFIG.vision_config, hidden_size=24, intermediate_size=32, num_hidden_layers=1),
    media_placeholder_token_id=PLACEHOLDER,
    torch_dtype="float32",
)


def words(count: int, seed: int, answers: int) -> Sample:
    """A text whose last ``answers`` tokens are to be learnt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (count,), generator=generator)
    return Sample(ids, torch.arange(count) >= count - answers, None, NO_PICTURES)


def with_picture(
    seed: int, grid: tuple[int, int] = (2, 4), written: str | None = None, named: str | None = None
) -> Sample:
    pixels, hws = random_pixels([grid], seed)
    text = words(6, seed, 3)
    run = torch.full((grid[0] * grid[1] // 4,), PLACEHOLDER)
    ids, mask = torch.cat((run, text.input_ids)), torch.cat((run < 0, text.answer_mask))
    return Sample(ids, mask, pixels, hws, written, named)


NAMEABLE = {"cat": [1, 2], "black cat": [3, 1, 2], "tulip": [4]}


def pupil_of(model: Model, *, text: float = 0.0, reading: float = 0.0, naming: float = 0.0) -> Learner:
    return Learner(model, NAMEABLE, text_weight=text, reading_weight=reading, naming_weight=naming)


samples = st.lists(
    st.one_of(
        st.builds(words, st.integers(2, 12), st.integers(0, 99), st.integers(1, 2)),
        st.builds(with_picture, st.integers(0, 99)),
    ),
    min_size=1,
    max_size=5,
)


# --- packing ---------------------------------------------------------------------------------------------------


@given(parts=samples)
@settings(max_examples=40)
def test_no_target_crosses_from_one_sample_into_the_next(parts: list[Sample]) -> None:
    batch = pack(parts)
    assert batch.lengths == [len(part.input_ids) for part in parts]
    start = 0
    for part in parts:
        ids, mask = part.input_ids.tolist(), part.answer_mask.tolist()
        targets = batch.targets[start : start + len(ids)].tolist()
        assert batch.input_ids[start : start + len(ids)].tolist() == ids
        assert targets == [ids[i + 1] if i + 1 < len(ids) and mask[i + 1] else IGNORE for i in range(len(ids))]
        start += len(ids)
    assert PLACEHOLDER not in batch.targets
    assert sum(part.image_grid_hws.shape[0] for part in parts) == len(batch.image_grid_hws) == len(batch.written)


@given(parts=samples)
@settings(max_examples=15)
@torch.inference_mode()
def test_the_packed_loss_weighs_each_answer_by_the_root_of_its_length(parts: list[Sample]) -> None:
    learner = pupil_of(random_model(), text=1.0, reading=0.0)
    each = [learner(pack([part])).figures["text"] for part in parts]
    counts = [int((pack([part]).targets != IGNORE).sum()) for part in parts]
    roots = [math.sqrt(n) for n in counts]
    expected = sum(loss * root for loss, root in zip(each, roots, strict=True)) / sum(roots)
    assert learner(pack(parts)).figures["text"] == pytest.approx(expected, abs=1e-4)


@torch.inference_mode()
def test_a_new_model_knows_nothing() -> None:
    """ln V: more would be a wrong start, less would be peeking."""
    model = Model(SMALL_CONFIG)
    model.init_weights(0)
    batch = pack([words(200, seed, 199) for seed in range(4)] + [with_picture(9)])
    loss = pupil_of(model, text=1.0, reading=0.0)(batch).figures["text"]
    assert loss == pytest.approx(math.log(SMALL_CONFIG.text_config.vocab_size), abs=0.05)


def test_each_weight_scales_its_part() -> None:
    batch = pack([with_picture(0, (2, 8), "ab"), with_picture(1, named="tulip"), words(9, 1, 4)])
    model = random_model()
    learned = pupil_of(model, text=2.0, reading=3.0, naming=5.0)(batch)
    figures = learned.figures
    alpha = model.config.text_config.aux_loss_alpha
    parts = 2 * figures["text"] + 3 * figures["reading"] + 5 * figures["naming"]
    assert learned.loss.item() == pytest.approx(parts + alpha * figures["balance"], rel=1e-5)
    assert set(pupil_of(model, reading=1.0)(batch).figures) == {"reading"}
    assert set(pupil_of(model, naming=1.0)(batch).figures) == {"naming"}


def test_a_batch_in_which_no_loss_sees_anything_moves_nothing(tmp_path: Path) -> None:
    silent = Mixture([Source("silent", 1.0, lambda seed, index: words(6, index, 0))], seed=1, batch_size=2)
    trained, fresh = learner(), learner()
    train(trained, silent, Schedule(steps=2, peak=1e-2, warmup=1), tmp_path, workers=0)
    bias = "e_score_correction_bias"
    before, after = fresh.state_dict(), trained.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after if not name.endswith(bias))


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    optimizer = MuonAdamW(model)
    (model(torch.ones(1, 3)).sum() * float("nan")).backward()
    assert math.isnan(optimizer.step(0.1))
    assert torch.equal(model.weight, before)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step(0.1)
    assert model.weight.isfinite().all()
    assert not torch.equal(model.weight, before)


def test_names_are_learnt(tmp_path: Path) -> None:
    colours = {"cat": -1.0, "black cat": 0.0, "tulip": 1.0}

    def draw(seed: int, index: int) -> Sample:
        name = list(colours)[index % 3]
        sample = with_picture(index, named=name)
        return replace(sample, pixel_values=torch.full((8, 3, 14, 14), colours[name]))

    pupil = pupil_of(random_model(config=TINY, std=0.05), naming=1.0)
    pupil.model.language_model.requires_grad_(False)
    pupil.model.language_model.lm_head.requires_grad_(True)
    pupil.reader.requires_grad_(False)
    train(
        pupil, Mixture([Source("names", 1.0, draw)], seed=1, batch_size=6), Schedule(60, 1e-2, 5), tmp_path, workers=0
    )
    losses = [line["naming"] for line in logged(tmp_path)]
    assert losses[0] == pytest.approx(math.log(3), abs=0.4)
    assert losses[-1] < 0.2


def test_every_part_learns_from_text_and_pictures() -> None:
    learner = pupil_of(random_model(config=TINY), text=1.0, reading=1.0, naming=1.0)
    batch = pack([with_picture(0, (2, 8), "ab"), with_picture(1, named="cat"), words(60, 1, 50)])
    learner(batch).loss.backward()
    idle = [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


# --- optimizer -------------------------------------------------------------------------------------------------


def naive_orthogonal(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps on the short side (arXiv 2502.16982, section 2.1)."""
    x = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).to(fast_dtype(matrix.device))
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        b = torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315)  # rounded once, as any fused product is
        x = torch.addmm(x, b, x, beta=3.4445)
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).float()


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
@torch.no_grad()
def test_muon_is_the_papers(shape: tuple[int, int]) -> None:
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
        assert (layer.weight - before - expected).norm() < 0.01 * expected.norm()
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


def test_gradients_are_clipped_together() -> None:
    layer = nn.LayerNorm(3)
    optimizer = MuonAdamW(layer)
    layer.weight.grad, layer.bias.grad = torch.tensor([30.0, 0, 0]), torch.tensor([0, 40.0, 0])
    assert optimizer.step(0.1) == pytest.approx(50.0)
    state = optimizer.state_dict()
    assert state["exp_avg.weight"][0].item() == pytest.approx(0.1 * 0.6, rel=1e-4)
    assert state["exp_avg.bias"][1].item() == pytest.approx(0.1 * 0.8, rel=1e-4)


def test_matrices_of_blocks_go_to_muon_each_expert_by_itself() -> None:
    learner = pupil_of(random_model(config=TINY), text=1.0, reading=1.0)
    muon = {name for name, p in learner.named_parameters() if is_muon(name, p)}
    experts = {f"model.language_model.model.layers.1.mlp.experts.{e}.up_proj.weight" for e in range(4)}
    assert experts <= muon
    assert "model.language_model.model.layers.1.mlp.gate.weight" in muon
    assert all(dict(learner.named_parameters())[name].ndim == 2 for name in muon)
    rest = {name for name, _ in learner.named_parameters()} - muon
    for part in ("embed_tokens.weight", "lm_head.weight", "pos_emb.weight", "patch_embed.proj.weight", "reader.proj"):
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


@given(step=st.integers(0, 99), warmup=st.integers(0, 20), decay=st.floats(0, 0.7))
@settings(max_examples=60)
def test_the_rate_goes_up_level_and_down(step: int, warmup: int, decay: float) -> None:
    def rate(at: int) -> float:
        return warmup_stable_decay(at, peak=2.0, warmup=warmup, total=100, decay=decay)

    assert 0 < rate(step) <= 2.0
    assert (rate(step + 1) >= rate(step)) if step + 1 < warmup else True
    assert (rate(step) == 2.0) if warmup <= step < 100 - round(100 * decay) else True
    assert rate(100) == 0.0


# --- balance ---------------------------------------------------------------------------------------------------


def routing(scores: Sequence[Sequence[float]], chosen: Sequence[Sequence[int]]) -> Routing:
    values, idx = torch.tensor(scores), torch.tensor(chosen)
    return Routing(values, idx, values.gather(1, idx))


def test_the_balance_loss_is_one_when_even() -> None:
    even = routing([[0.5] * 4] * 4, [[0, 1], [2, 3], [1, 2], [3, 0]])
    assert sequence_balance_loss([even, even], [4]).item() == pytest.approx(1.0)
    assert busiest_share([even]) == pytest.approx(1.0)


def test_the_balance_loss_grows_with_unevenness() -> None:
    """By hand: all go to experts 0 and 1, which have 0.4 of the score each; 2 * 0.4 + 2 * 0.4."""
    uneven = routing([[0.8, 0.8, 0.2, 0.2]] * 3, [[0, 1]] * 3)
    assert sequence_balance_loss([uneven], [3]).item() == pytest.approx(1.6)
    assert busiest_share([uneven]) == pytest.approx(2.0)


def test_balance_is_judged_in_each_sequence() -> None:
    """Two sequences that are uneven the other way round are not even together."""
    scores = [[0.8, 0.2]] * 2 + [[0.2, 0.8]] * 2
    both = routing(scores, [[0], [0], [1], [1]])
    assert sequence_balance_loss([both], [4]).item() == pytest.approx(1.0)
    assert sequence_balance_loss([both], [2, 2]).item() == pytest.approx(1.6)


def test_the_bias_moves_towards_those_who_got_less() -> None:
    model = random_model(config=TINY)
    (moe,) = moe_layers(model)
    before = moe.gate.e_score_correction_bias.clone()
    update_correction_bias(model, [routing([[0.5] * 4] * 3, [[0, 1], [0, 2], [0, 1]])], 0.01)
    expected = before + torch.tensor([-0.01, -0.01, 0.01, 0.01])  # loads 3, 2, 1, 0 about a mean of 1.5
    assert torch.allclose(moe.gate.e_score_correction_bias, expected)


def test_the_bias_evens_out_a_router_that_prefers_one_expert() -> None:
    model = random_model(config=TINY)
    (moe,) = moe_layers(model)
    x = torch.randn(200, TINY.text_config.hidden_size, generator=torch.Generator().manual_seed(0)) + 0.3
    with torch.no_grad():
        moe.gate.e_score_correction_bias.zero_()
        moe.gate.weight[0] += 0.3
        start = busiest_share([moe.gate(x)])
        for _ in range(300):
            update_correction_bias(model, [moe.gate(x)], 0.005)
        assert busiest_share([moe.gate(x)]) < 1.15 < 1.4 < start


# --- data ------------------------------------------------------------------------------------------------------


def draw_words(seed: int, index: int) -> Sample:
    return words(4 + index % 5, seed * 1000 + index, 2)


def draw_picture(seed: int, index: int) -> Sample:
    return with_picture(seed * 1000 + index, (2, 8), "ab", "cat" if index % 2 else "tulip")


def mixture(seed: int = 0) -> Mixture:
    sources = [Source("words", 2.0, draw_words), Source("pictures", 1.0, draw_picture)]
    return Mixture(sources, seed=seed, batch_size=3)


def same(ours: Batch, theirs: Batch) -> bool:
    pixels = [batch.pixel_values for batch in (ours, theirs)]
    return (
        torch.equal(ours.input_ids, theirs.input_ids)
        and torch.equal(ours.targets, theirs.targets)
        and torch.equal(ours.image_grid_hws, theirs.image_grid_hws)
        and (ours.lengths, ours.written, ours.named) == (theirs.lengths, theirs.written, theirs.named)
        and (pixels[0] is pixels[1] is None or torch.equal(pixels[0], pixels[1]))  # type: ignore[arg-type]
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_a_batch_is_the_same_whoever_draws_it(workers: int, start: int) -> None:
    expected = [mixture()[number] for number in range(start, 6)]
    drawn = list(mixture().batches(start, 6, workers=workers))
    assert len(drawn) == len(expected)
    assert all(same(ours, theirs) for ours, theirs in zip(drawn, expected, strict=True))


def test_a_mixture_follows_its_seed_and_its_weights() -> None:
    assert same(mixture()[2], mixture()[2])
    assert not same(mixture()[2], mixture(1)[2])
    assert not same(mixture()[2], mixture()[3])
    pictures = sum(mixture().sample(i).pixel_values is not None for i in range(600))
    assert 150 < pictures < 250


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0]])
def test_a_mixture_needs_weights_above_zero(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Mixture([Source("words", weight, draw_words) for weight in weights], seed=0, batch_size=1)


# --- a run -----------------------------------------------------------------------------------------------------


def learner(dtype: torch.dtype = torch.float32, *, std: float = 0.1) -> Learner:
    torch.manual_seed(0)  # the reading head draws its weights from it
    return pupil_of(random_model(config=TINY, std=std, dtype=dtype), text=1.0, reading=0.5, naming=0.5)


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(tmp_path: Path, dtype: torch.dtype) -> None:
    schedule = Schedule(steps=6, peak=1e-3, warmup=2, save_every=2)
    whole = learner(dtype)
    train(whole, mixture(), schedule, tmp_path / "whole", workers=0)

    def stop(step: int) -> None:
        if step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(learner(dtype), mixture(), schedule, tmp_path / "parts", workers=0, on_save=stop)
    resumed = learner(dtype, std=0.5)  # what it starts from does not matter
    train(resumed, mixture(), schedule, tmp_path / "parts", workers=0)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert [line["step"] for line in logged(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6]


def test_a_run_moves_everything_and_saves_it(tmp_path: Path) -> None:
    trained, fresh = learner(), learner()
    train(trained, mixture(), Schedule(steps=3, peak=1e-3, warmup=1), tmp_path, workers=0)
    before, after = fresh.state_dict(), trained.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert all(".experts." in name for name in set(after) - moved)  # nobody may have chosen one
    assert len(moved) > 0.9 * len(after)
    assert load_state(tmp_path / "state.safetensors", fresh, MuonAdamW(fresh)) == 3
    assert all(torch.equal(fresh.state_dict()[name], after[name]) for name in after)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    trained = learner()
    trained.model.language_model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    train(trained, mixture(), Schedule(steps=2, peak=1e-3, warmup=1), tmp_path, workers=0)
    for name, tensor in trained.state_dict().items():
        held = name.startswith("model.language_model.") and not name.endswith("_bias")
        assert torch.equal(before[name], tensor) == held, name


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    train(learner(), mixture(), Schedule(steps=1, peak=1e-3), tmp_path, workers=0)
    other = pupil_of(random_model(), text=1.0, reading=0.5)
    with pytest.raises(ValueError, match="belongs to another model"):
        load_state(tmp_path / "state.safetensors", other, MuonAdamW(other))


def test_the_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    train(learner(), mixture(), Schedule(steps=1, peak=1e-3), tmp_path, workers=0)
    frozen = learner()
    frozen.model.vision_tower.requires_grad_(False)
    with pytest.raises(ValueError, match="the optimizer's state"):
        load_state(tmp_path / "state.safetensors", frozen, MuonAdamW(frozen))


# --- learning --------------------------------------------------------------------------------------------------


def test_the_reading_head_counts_every_way_to_write_a_text() -> None:
    """Two columns of one character: the loss is that of all paths, summed by hand."""
    head = ReadingHead(SMALL_CONFIG.vision_config)
    merged = torch.randn(1, 4, SMALL_CONFIG.vision_config.hidden_size)
    frames = head(merged, (2, 2)).detach().exp()
    assert frames.shape == (2 * FRAMES_PER_COLUMN, len(ALPHABET) + 1)
    assert torch.allclose(frames.sum(-1), torch.ones(len(frames)))
    a, count = ALPHABET.index("a") + 1, len(frames)
    total = 0.0
    for first in range(count):
        for last in range(first, count):
            run = [frames[t, a] if first <= t <= last else frames[t, 0] for t in range(count)]
            total += math.prod(float(p) for p in run)
    assert head.loss([merged], [(2, 2)], ["a"]).item() == pytest.approx(-math.log(total), rel=1e-4)


def test_reading_is_learnt() -> None:
    torch.manual_seed(0)
    head = ReadingHead(TINY.vision_config)
    texts, grids = ["cat", "on", "moon"], [(2, 4), (2, 2), (4, 6)]
    merged = [torch.randn(h * w // 4, 4, TINY.vision_config.hidden_size) for h, w in grids]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    losses = []
    for _ in range(120):
        loss = head.loss(merged, grids, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert [head.read(picture, grid) for picture, grid in zip(merged, grids, strict=True)] == texts


COLOURS = [(1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0), (1.0, 1.0, -1.0)]
NAMES = [11, 12, 13, 14]
END = SMALL_CONFIG.text_config.eos_token_id


def draw_colour(seed: int, index: int) -> Sample:
    """A picture of one colour, and its name. Shades and sizes differ, so it is the colour that tells."""
    number = index % len(COLOURS)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    h, w = (2 * int(n) for n in torch.randint(1, 4, (2,), generator=generator))
    shade = 0.5 + torch.rand(1, generator=generator) / 2
    pixels = (torch.tensor(COLOURS[number]) * shade).view(1, 3, 1, 1).expand(h * w, 3, 14, 14)
    ids = torch.tensor([*[PLACEHOLDER] * (h * w // 4), 20, NAMES[number], END])
    mask = torch.arange(len(ids)) >= len(ids) - 2
    return Sample(ids, mask, pixels.contiguous(), torch.tensor([[h, w]]))


def test_the_names_of_colours_are_learnt(tmp_path: Path) -> None:
    model = random_model(config=TINY, std=0.05)
    pupil = pupil_of(model, text=1.0, reading=0.0)
    pupil.reader.requires_grad_(False)
    data = Mixture([Source("colours", 1.0, draw_colour)], seed=1, batch_size=8)
    train(pupil, data, Schedule(steps=60, peak=1e-2, warmup=5), tmp_path, workers=0)
    losses = [line["text"] for line in logged(tmp_path)]
    assert losses[0] > 3.0
    assert losses[-1] < 0.1
    model.eval()
    with torch.inference_mode():
        for index in range(8):
            sample = draw_colour(99, index)  # shades that were never shown
            asked = sample.input_ids[:-2]
            logits = model(
                asked, [len(asked)], pixel_values=sample.pixel_values, image_grid_hws=sample.image_grid_hws
            ).logits
            assert int(logits[-1].argmax()) == NAMES[index % len(NAMES)]
