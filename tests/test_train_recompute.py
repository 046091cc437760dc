"""Activations that are computed again: the same step, less memory, and every expert's load counted once."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train.balance import loads_of
from kimi_vl.train.learner import Learner
from kimi_vl.train.recompute import recompute_layers
from tests.conftest import SMALL_CONFIG, random_model
from tests.training import learn, pupil_of, with_picture, words

SAMPLES = (words(60, 1, 20), with_picture(2, (4, 8), "ab"), with_picture(3, (8, 4)), words(33, 4, 8))


def learner(what: str) -> Learner:
    pupil = pupil_of(random_model(config=SMALL_CONFIG), reading=0.5).train()
    torch.nn.init.normal_(pupil.reader.proj.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    torch.nn.init.zeros_(pupil.reader.proj.bias)
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
