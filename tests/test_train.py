"""Training: nothing peeks across samples, steps are what the papers say, and a stopped run goes on as if unbroken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.patches import normalised
from kimi_vl.train.data.characters import ALPHABET, FRAMES_PER_COLUMN
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import IGNORE, Batch, Sample, pack
from kimi_vl.train.fused import fuse_experts, fuse_norms
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.learning.losses import siglip_loss
from kimi_vl.train.learning.reading import ReadingHead
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.optim.muon_adamw import MuonAdamW
from kimi_vl.train.state import FILE, StateFile, load_state
from tests.conftest import SMALL_CONFIG, random_model
from tests.training import (
    IMAGES,
    PLACEHOLDER,
    TINY,
    captioned,
    image_text_pupil_of,
    learn,
    logged,
    pupil_of,
    with_picture,
    words,
)

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
def test_the_packed_loss_is_that_of_the_samples_apart(parts: list[Sample]) -> None:
    """Each weighs the root of its targets (H8)."""
    learner = pupil_of(random_model())
    each = [learn(learner, part).figures["text"] for part in parts]
    roots = [math.sqrt(int(part.answer_mask[1:].sum())) for part in parts]
    together = sum(root * float(loss) for root, loss in zip(roots, each, strict=True)) / sum(roots)
    assert float(learn(learner, *parts).figures["text"]) == pytest.approx(together, abs=1e-4)


@torch.inference_mode()
def test_a_new_model_knows_nothing() -> None:
    """(H7) ln V: more would be a wrong start, less would be peeking."""
    model = Model(SMALL_CONFIG)
    model.init_weights(0)
    samples = [words(200, seed, 199) for seed in range(4)] + [with_picture(9)]
    loss = float(learn(pupil_of(model), *samples).figures["text"])
    assert loss == pytest.approx(math.log(SMALL_CONFIG.text_config.vocab_size), abs=0.05)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    samples = [with_picture(0, (2, 8), "ab"), words(9, 1, 4)]
    model = random_model()
    learned = learn(pupil_of(model, reading=3.0, placing=0.7), *samples)
    figures = learned.figures
    alpha = model.config.text_config.aux_loss_alpha
    parts = figures["text"] + 3 * figures["reading"] + 0.7 * figures["placing"] + alpha * figures["balance"]
    assert learned.loss.item() == pytest.approx(float(parts), rel=1e-5)
    assert learn(pupil_of(model), *samples).figures.keys() == {"text", "balance"}


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


def test_every_part_learns_from_text_and_pictures() -> None:
    """(H1, H2) The router too; texts without a picture are in the same batch."""
    learner = pupil_of(random_model(config=TINY), reading=1.0, placing=1.0)
    learn(learner, with_picture(0, (2, 8), "ab"), with_picture(1), words(60, 1, 50)).loss.backward()
    idle = [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


# --- data ------------------------------------------------------------------------------------------------------


def draw_words(seed: int, index: int) -> Sample:
    return words(4 + index % 5, seed * 1000 + index, 2)


def draw_picture(seed: int, index: int) -> Sample:
    return with_picture(seed * 1000 + index, (2, 8), "ab")


def mixture(seed: int = 0) -> Mixture:
    sources = [Source("words", 2.0, draw_words), Source("pictures", 1.0, draw_picture)]
    return Mixture(sources, seed=seed, batch_size=3)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(map(alike, ours, theirs))


def alike(ours: Batch, theirs: Batch) -> bool:
    pixels = [batch.pixels for batch in (ours, theirs)]
    return (
        torch.equal(ours.input_ids, theirs.input_ids)
        and torch.equal(ours.targets, theirs.targets)
        and torch.equal(ours.image_grid_hws, theirs.image_grid_hws)
        and (ours.lengths, ours.written) == (theirs.lengths, theirs.written)
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


@pytest.mark.parametrize("start", [0, 5])
def test_batches_may_come_again_and_are_drawn_once(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """In rounds of four, each seen three times: rounds in their order, their batches in a new one each time."""
    monkeypatch.setattr("kimi_vl.train.data.mixture._ROUND", 4)
    again = Mixture(mixture().sources, seed=0, batch_size=3, passes=3)
    numbers = [again.number_of(step) for step in range(24)]
    assert numbers[:4] == [0, 1, 2, 3]
    assert [sorted(numbers[i : i + 4]) for i in range(0, 24, 4)] == [[0, 1, 2, 3]] * 3 + [[4, 5, 6, 7]] * 3
    drawn: list[int] = []
    draw = Mixture.__getitem__

    def counted(self: Mixture, number: int) -> list[Batch]:
        drawn.append(number)
        return draw(self, number)

    monkeypatch.setattr(Mixture, "__getitem__", counted)
    seen = list(again.batches(start, 24, workers=0))
    assert all(same(batch, mixture()[number]) for batch, number in zip(seen, numbers[start:], strict=True))
    assert sorted(drawn[: len(set(numbers[start:]))]) == sorted(set(numbers[start:]))


def test_a_mixture_follows_its_seed_and_its_weights() -> None:
    assert same(mixture()[2], mixture()[2])
    assert not same(mixture()[2], mixture(1)[2])
    assert not same(mixture()[2], mixture()[3])
    pictures = sum(mixture().sample(i).pixels is not None for i in range(600))
    assert 150 < pictures < 250


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0]])
def test_a_mixture_needs_weights_above_zero(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Mixture([Source("words", weight, draw_words) for weight in weights], seed=0, batch_size=1)


# --- a run -----------------------------------------------------------------------------------------------------


def learner(dtype: torch.dtype = torch.float32, *, std: float = 0.1) -> Learner:
    torch.manual_seed(0)  # the heads draw their weights from it
    return pupil_of(random_model(config=TINY, std=std, dtype=dtype), reading=0.5, placing=0.5)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(tmp_path: Path, dtype: torch.dtype) -> None:
    schedule = Schedule(steps=6, peak=1e-3, warmup=2, save_every=2)
    whole = learner(dtype)
    train(whole, mixture(), schedule, tmp_path / "whole", workers=0)

    class Ending(Mixture):
        def __getitem__(self, number: int) -> list[Batch]:
            if number == 5:  # a step after the last save
                raise StoppedError
            return super().__getitem__(number)

    ending = Ending(mixture().sources, seed=0, batch_size=3)
    with pytest.raises(StoppedError):
        train(learner(dtype), ending, schedule, tmp_path / "parts", workers=0)
    assert [line["step"] for line in logged(tmp_path / "parts")] == [1, 2, 3, 4, 5]
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
    assert load_state(StateFile(tmp_path / FILE), fresh, MuonAdamW(fresh), mixture().recipe).step == 3
    assert all(torch.equal(fresh.state_dict()[name], after[name]) for name in after)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    trained = learner()
    trained.model.language_model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    train(trained, mixture(), Schedule(steps=2, peak=1e-3, warmup=1), tmp_path, workers=0)
    for name, tensor in trained.state_dict().items():
        held = name.startswith("model.language_model.")
        assert torch.equal(before[name], tensor) == held, name


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    train(learner(), mixture(), Schedule(steps=1, peak=1e-3), tmp_path, workers=0)
    other = pupil_of(random_model(), reading=0.5)
    with pytest.raises(ValueError, match="belongs to another model"):
        load_state(StateFile(tmp_path / FILE), other, MuonAdamW(other), mixture().recipe)


def test_the_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    """(J4)"""
    train(learner(), mixture(), Schedule(steps=1, peak=1e-3), tmp_path, workers=0)
    frozen = learner()
    frozen.model.vision_tower.requires_grad_(False)
    with pytest.raises(ValueError, match="the optimizer's state"):
        load_state(StateFile(tmp_path / FILE), frozen, MuonAdamW(frozen), mixture().recipe)


# --- learning --------------------------------------------------------------------------------------------------


def test_the_reading_head_counts_every_way_to_write_a_text() -> None:
    """Two columns of one character: the loss is that of all paths, summed by hand."""
    head = ReadingHead(SMALL_CONFIG.vision_config)
    merged = torch.randn(1, 4, SMALL_CONFIG.vision_config.hidden_size)
    frames = head(merged, [(2, 2)])[0].detach().exp()
    assert frames.shape == (2 * FRAMES_PER_COLUMN, len(ALPHABET) + 1)
    assert torch.allclose(frames.sum(-1), torch.ones(len(frames)))
    a, count = ALPHABET.index("a") + 1, len(frames)
    total = 0.0
    for first in range(count):
        for last in range(first, count):
            run = [frames[t, a] if first <= t <= last else frames[t, 0] for t in range(count)]
            total += math.prod(float(p) for p in run)
    assert head.loss(merged, [(2, 2)], ["a"]).item() == pytest.approx(-math.log(total), rel=1e-4)


def test_reading_is_learnt() -> None:
    torch.manual_seed(0)
    head = ReadingHead(TINY.vision_config)
    texts, grids = ["cat", "on", "moon"], [(2, 4), (2, 2), (4, 6)]
    merged = [torch.randn(h * w // 4, 4, TINY.vision_config.hidden_size) for h, w in grids]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    losses = []
    for _ in range(120):
        loss = head.loss(torch.cat(merged), grids, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert [head.read(picture, grid) for picture, grid in zip(merged, grids, strict=True)] == texts


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
NAMES = [11, 12, 13, 14]
END = SMALL_CONFIG.text_config.eos_token_id


def draw_colour(seed: int, index: int) -> Sample:
    """A picture of one colour, and its name. Shades and sizes differ, so it is the colour that tells."""
    number = index % len(COLOURS)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    h, w = (2 * int(n) for n in torch.randint(1, 4, (2,), generator=generator))
    shade = 0.5 + torch.rand(1, generator=generator) / 2
    pixels = (torch.tensor(COLOURS[number]) * shade).to(torch.uint8).view(1, 3, 1, 1).expand(h * w, 3, 14, 14)
    ids = torch.tensor([*[PLACEHOLDER] * (h * w // 4), 20, NAMES[number], END])
    mask = torch.arange(len(ids)) >= len(ids) - 2
    return Sample(ids, mask, pixels.contiguous(), torch.tensor([[h, w]]))


def shown(sample: Sample) -> torch.Tensor:
    assert sample.pixels is not None
    return normalised(sample.pixels, IMAGES)


def test_the_names_of_colours_are_learnt(tmp_path: Path) -> None:
    model = random_model(config=TINY, std=0.05)
    pupil = pupil_of(model)
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
            logits = model(asked, [len(asked)], pixel_values=shown(sample), image_grid_hws=sample.image_grid_hws).logits
            assert int(logits[-1].argmax()) == NAMES[index % len(NAMES)]


def draw_captioned_colour(seed: int, index: int) -> Sample:
    """The same, with the name as a caption."""
    sample = draw_colour(seed, index)
    ids = torch.tensor([0, NAMES[index % len(NAMES)], 1])
    return replace(sample, input_ids=ids, answer_mask=torch.arange(3) > 0)


def test_a_tower_learns_from_captions(tmp_path: Path) -> None:
    """Both losses fall, and pictures that were never shown lie nearest to their captions."""
    pupil = image_text_pupil_of(random_model(config=TINY, std=0.05))
    pupil.model.language_model.requires_grad_(False)
    data = Mixture([Source("colours", 1.0, draw_captioned_colour)], seed=1, batch_size=8)
    train(pupil, data, Schedule(steps=80, peak=1e-2, warmup=5), tmp_path, workers=0)
    lines = logged(tmp_path)
    assert lines[0]["caption"] > 3.0 and lines[-1]["caption"] < 0.2
    assert lines[-1]["siglip"] < 0.5 * max(line["siglip"] for line in lines[:10])


def test_captions_do_not_see_each_others_pictures() -> None:
    pupil = image_text_pupil_of(random_model(config=TINY), reading=0.0)
    parts = [captioned(0, (2, 4), [3, 4, 1]), captioned(1, (4, 4), [5, 1]), captioned(2, (2, 2), [6, 7, 8, 1])]
    with torch.inference_mode():
        together = learn(pupil, *parts).figures["caption"]
        alone = [learn(pupil, part).figures["caption"] for part in parts]
    roots = [math.sqrt(len(part.input_ids) - 1) for part in parts]
    expected = sum(root * float(loss) for root, loss in zip(roots, alone, strict=True)) / sum(roots)
    assert float(together) == pytest.approx(expected, abs=1e-5)


def test_siglip_is_the_papers() -> None:
    """By hand: two pictures, two texts, cosines 1 and 0, scale 1 and bias -1: logits 0 and -1."""
    eye, scale, bias = torch.eye(2), torch.tensor(0.0), torch.tensor(-1.0)
    apart = siglip_loss(eye, eye, torch.eye(2, dtype=torch.bool), scale, bias)
    assert apart.item() == pytest.approx(2 * math.log(2) + 2 * math.log(1 + math.exp(-1)))
    twins = siglip_loss(eye, eye, torch.ones(2, 2, dtype=torch.bool), scale, bias)
    assert twins.item() == pytest.approx(2 * math.log(2) + 2 * math.log(1 + math.exp(1)))


@pytest.mark.parametrize("fuse", [fuse_experts, fuse_norms])
def test_what_is_fused_gives_the_same_and_learns_the_same(
    fuse: Callable[[Model], None],
) -> None:
    models = [random_model(config=TINY), random_model(config=TINY)]
    fuse(models[1])
    learned = [learn(pupil_of(model), with_picture(0, (2, 8)), words(60, 1, 50)) for model in models]
    for one in learned:
        one.loss.backward()
    assert learned[0].loss.item() == pytest.approx(learned[1].loss.item(), rel=1e-6)
    grads = [{name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in models]
    assert any(".experts.3." in name for name in grads[0])
    for name, grad in grads[0].items():
        assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)
