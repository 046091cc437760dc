"""What is computed again: the same step, less memory, and every expert's load counted once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from weakref import ReferenceType, ref

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import CheckpointPolicy

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train import recompute
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.learning import losses
from kimi_vl.train.learning.balance import loads_of
from kimi_vl.train.learning.learned import Learned
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.recompute import recompute_layers
from tests.conftest import SMALL_CONFIG, random_model
from tests.training import learn, pupil_of, with_picture, words

SAMPLES = (words(60, 1, 20), with_picture(2, (4, 8), "ab"), with_picture(3, (8, 4)), words(33, 4, 8))


def learner(what: str) -> Learner:
    pupil = pupil_of(random_model(config=SMALL_CONFIG), reading=0.5, placing=0.5).train()
    for head in (pupil.reader, pupil.placer):
        torch.nn.init.normal_(head.proj.weight, std=0.02, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.proj.bias)
    recompute_layers(pupil, what)
    return pupil


def step(what: str) -> tuple[float, dict[str, Tensor], Tensor, int]:
    """The loss, gradients, loads, and how many bytes the backward pass was kept for it."""
    pupil, kept = learner(what), {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    before = {id(x) for x in gc.get_objects() if type(x) is Tensor}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learned = learn(pupil, *SAMPLES)
    # Products that are kept lie in caches of Python's, where the hooks do not see them.
    gc.collect()
    cached = [x for x in gc.get_objects() if type(x) is Tensor and x.grad_fn is None and not x.is_meta]
    kept |= {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in cached if id(x) not in before}
    held = sum(kept.values())
    loads = loads_of(learned.routings)
    learned.loss.backward()
    grads = {name: p.grad for name, p in pupil.named_parameters() if p.grad is not None}
    return float(learned.loss.detach()), grads, loads, held


@pytest.mark.parametrize(("what", "share"), [("cheap", 0.6), ("layers", 0.25)])
def test_a_step_is_the_same_and_keeps_less(what: str, share: float) -> None:
    """(H12)"""
    loss, grads, loads, held = step("nothing")
    its_loss, its_grads, its_loads, its_held = step(what)
    assert its_loss == loss
    assert its_grads.keys() == grads.keys()
    assert all(torch.allclose(its_grads[name], grad, rtol=1e-5, atol=1e-8) for name, grad in grads.items())
    assert torch.equal(its_loads, loads)
    places = sum(len(sample.input_ids) for sample in SAMPLES) * SMALL_CONFIG.text_config.num_experts_per_tok
    assert loads.sum(1).tolist() == [places] * len(loads)
    assert its_held < share * held


def test_names_and_answers_stay() -> None:
    plain, wrapped = learner("nothing"), learner("layers")
    assert list(plain.state_dict()) == list(wrapped.state_dict())
    ids = torch.arange(10)
    with torch.no_grad():
        assert torch.equal(logits(plain.model, ids), logits(wrapped.model, ids))


def logits(model: KimiVLForConditionalGeneration, ids: Tensor) -> Tensor:
    out: Tensor = model(ids, [len(ids)]).logits
    return out


def test_what_there_is_to_recompute_is_told() -> None:
    with pytest.raises(ValueError, match="recompute is one of nothing, cheap, layers, not 'all'"):
        recompute_layers(random_model(), "all")


def test_attention_on_a_gpu_is_a_product_that_is_kept() -> None:
    import torch.nn.attention.varlen  # torch has its operator from now on

    assert recompute._policy(None, torch.ops.torch_attn._varlen_attn.default) is CheckpointPolicy.MUST_SAVE
    assert recompute._policy(None, torch.ops.aten.mul.Tensor) is CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.parametrize("rows_at_a_time", [1, 20, 63])
def test_logits_come_in_pieces_where_there_are_many(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    """Loss and gradients are the same, and logits are not kept."""

    def head_of(loss_of: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
        generator = torch.Generator().manual_seed(0)
        head = torch.nn.Linear(16, 500, bias=False)
        torch.nn.init.normal_(head.weight, generator=generator)
        states = torch.randn(64, 16, generator=generator, requires_grad=True)
        targets, weights = torch.randint(0, 500, (64,), generator=generator), torch.rand(64, generator=generator)
        largest = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, tensor.numel() if not isinstance(tensor, torch.nn.Parameter) else 0)
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_of(head, states, targets, weights)
        loss.backward()
        assert states.grad is not None and head.weight.grad is not None
        return loss.detach(), states.grad, head.weight.grad, largest

    *whole, kept = head_of(losses.head_loss)
    assert kept == 64 * 500
    monkeypatch.setattr(losses, "MOST_LOGITS", 64 * 500 - 1)
    monkeypatch.setattr(losses, "LOGITS_OF_A_PIECE", rows_at_a_time * 500)
    *in_pieces, kept = head_of(losses.head_loss)
    for ours, theirs in zip(in_pieces, whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert kept <= 64 * 16


def test_of_a_batch_nothing_stays_but_its_figures(tmp_path: Path) -> None:
    """Pieces that are learned from one after the other take no more memory than one."""
    before: list[ReferenceType[Tensor]] = []

    def forget(pupil: torch.nn.Module, given: object) -> None:
        assert not any(scores() is not None for scores in before)

    def remember(pupil: torch.nn.Module, given: object, learned: Learned) -> None:
        before.extend(ref(routing.scores) for routing in learned.routings)

    pupil = learner("nothing")
    pupil.register_forward_pre_hook(forget)
    pupil.register_forward_hook(remember)
    data = Mixture([Source("words", 1.0, lambda seed, index: words(6, index, 2))], seed=0, batch_size=4, pieces=2)
    train(pupil, data, Schedule(2, peak=1e-3), tmp_path, workers=0)
    assert len(before) == 2 * 2 * 2
