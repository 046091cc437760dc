"""What a step of training is said to take, held against what small steps really take."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from kimi_vl.config import KimiVLConfig, a3b, nano
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train import parallel
from kimi_vl.train.data.packing import Sample, pack
from kimi_vl.train.learning import losses
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.optim.muon_adamw import MuonAdamW, is_muon
from kimi_vl.train.plan import planned
from kimi_vl.train.plan import work as working
from kimi_vl.train.plan.activations import activations
from kimi_vl.train.plan.piece import Piece, Step, piece_of
from kimi_vl.train.plan.traffic import transfers
from kimi_vl.train.plan.units import units
from kimi_vl.train.plan.work import work
from kimi_vl.train.recompute import RECOMPUTE, recompute_layers
from kimi_vl.train.scale import owners
from kimi_vl.train.scale.context import share_of
from kimi_vl.train.scale.layout import Layout
from tests.conftest import GOLDEN_CONFIG, SMALL_CONFIG, random_model
from tests.training import (
    IMAGES,
    PLACEHOLDER,
    TINY,
    entered,
    exactly,
    free_port,
    laid_out,
    pupil_of,
    start,
    with_picture,
    words,
)

# Wide enough that activations are not lost among indices.
WIDE = KimiVLConfig(
    text_config=replace(
        SMALL_CONFIG.text_config,
        vocab_size=256,
        hidden_size=96,
        intermediate_size=384,
        moe_intermediate_size=64,
        num_hidden_layers=4,
        kv_lora_rank=32,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=24,
    ),
    vision_config=replace(SMALL_CONFIG.vision_config, hidden_size=64, intermediate_size=192, num_hidden_layers=3),
    media_placeholder_token_id=PLACEHOLDER,
)
KINDS: dict[str, tuple[Sample, ...]] = {
    "text": (words(700, 1, 700), with_picture(2, (12, 8)), words(833, 4, 833)),
    "pictures": (words(60, 1, 20), with_picture(2, (32, 32)), with_picture(3, (32, 32))),
}


def piece_with(*samples: Sample) -> Piece:
    """The piece that samples are, with as many pairs as a counter sees that knows nothing of causality."""
    batch = pack(samples)
    patches = batch.image_grid_hws.prod(1)
    tokens = len(batch.input_ids)
    return Piece(
        tokens=tokens,
        row=tokens,
        keys=tokens,
        pairs=sum(length**2 for length in batch.lengths),
        patches=int(patches.sum()),
        patch_pairs=int(patches.square().sum()),
        seen=len(batch.seen),
    )


def recomputing(what: str) -> Learner:
    pupil = pupil_of(random_model(config=WIDE, dtype=torch.bfloat16)).train()
    recompute_layers(pupil, what)
    return pupil


# ---- what there is of a model ----


@pytest.mark.parametrize("config", [a3b(), nano(), GOLDEN_CONFIG], ids=["a3b", "nano", "golden"])
def test_every_parameter_is_in_a_unit(config: KimiVLConfig) -> None:
    with torch.device("meta"):
        pupil = Learner(KimiVLForConditionalGeneration(config), IMAGES)
    found = units(config, Layout())
    named = dict(pupil.named_parameters())
    assert found.here == sum(p.numel() for p in named.values())
    assert found.here_of_muon == sum(p.numel() for name, p in named.items() if is_muon(name, p))


def test_the_planner_knows_what_others_do() -> None:
    assert (working.MOST_LOGITS, working.LOGITS_OF_A_PIECE) == (losses.MOST_LOGITS, losses.LOGITS_OF_A_PIECE)
    assert planned.AT_A_TIME == owners.AT_A_TIME


def test_needs_no_torch() -> None:
    code = "import sys, kimi_vl.train.plan.choice; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- one process ----

_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop_count,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop_count,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", RECOMPUTE)
def test_operations_are_those_that_a_step_takes(what: str, kind: str) -> None:
    def formula(count: Any, shapes: int) -> Any:
        return lambda *given, out_shape=None, **_: count(*given[:shapes])

    counted = {op: formula(count, 4 if "backward" in str(op) else 3) for op, count in _ATTENTION.items()}
    pupil, batch = recomputing(what), pack(KINDS[kind])
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        pupil(batch, batch.totals).loss.backward()
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(by_kind[op] for op in _ATTENTION)
    found = work(WIDE, piece_with(*KINDS[kind]), what)
    assert found.products == pytest.approx(sum(by_kind.values()) - attention, rel=0.001)
    assert found.tower_attention + found.decoder_attention == pytest.approx(attention, rel=0.001)


def test_many_logits_are_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = piece_with(*KINDS["text"])
    logits = piece.seen * WIDE.text_config.vocab_size
    once = work(WIDE, piece, "nothing").products
    monkeypatch.setattr(working, "MOST_LOGITS", logits - 1)
    assert work(WIDE, piece, "nothing").products - once == 2 * logits * WIDE.text_config.hidden_size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", RECOMPUTE)
def test_as_much_is_kept_for_the_backward_pass_as_is_said(what: str, kind: str) -> None:
    """Where layers keep next to nothing, what is round them counts."""
    pupil, batch = recomputing(what), pack(KINDS[kind])
    weights = {parameter.untyped_storage().data_ptr() for parameter in pupil.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = {id(x) for x in gc.get_objects() if type(x) is Tensor}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learned = pupil(batch, batch.totals)
    # Products that are kept lie in caches of Python's, where the hooks do not see them.
    gc.collect()
    for x in gc.get_objects():
        if type(x) is Tensor and x.grad_fn is None and not x.is_meta and id(x) not in before:
            keep(x)
    assert learned.loss.requires_grad
    piece = piece_with(*KINDS[kind])
    logarithms = 4 * piece.seen * WIDE.text_config.vocab_size
    found = activations(WIDE, piece, what, spread=False, attended=4)
    assert found.kept + logarithms == pytest.approx(sum(kept.values()), rel=0.035 if what == "layers" else 0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", RECOMPUTE)
def test_a_step_comes_to_the_peak_that_is_said(what: str, kind: str) -> None:
    """Beside weights and their gradients. Every allocation is counted."""
    pupil, batch = recomputing(what), pack(KINDS[kind])
    pupil(batch, batch.totals).loss.backward()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        pupil(batch, batch.totals).loss.backward()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    there = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        there += event.nbytes()
        most = max(most, there)
    found = activations(WIDE, piece_with(*KINDS[kind]), what, spread=False, attended=4)
    assert found.kept + max(found.working, found.logits) == pytest.approx(most, rel=0.085 if what == "layers" else 0.03)


# ---- several processes ----

# Neither is cut evenly.
UNEVEN = replace(TINY, text_config=replace(TINY.text_config, kv_lora_rank=21, moe_intermediate_size=17))
SAMPLES, LENGTH, PICTURE = 8, 8, 2  # samples of a group, tokens of each, and of its picture
CASES = [
    *((Layout(2), "nothing"), (Layout(2, expert_parallel=2), "layers"), (Layout(2, context_parallel=2), "cheap")),
    *((Layout(4), "cheap"), (Layout(4, expert_parallel=2), "nothing"), (Layout(4, expert_parallel=4), "cheap")),
    *((Layout(4, 2, 2), "layers"), (Layout(4, 4, 1), "nothing")),
]


def place_of(layout: Layout, what: str) -> str:
    return f"{layout.processes}-{layout.context_parallel}-{layout.expert_parallel}-{what}"


def step_of(layout: Layout) -> Step:
    groups = layout.processes // layout.context_parallel
    return Step(SAMPLES * groups, LENGTH, picture_share=PICTURE / LENGTH, picture_tokens=PICTURE)


# What FSDP calls; older releases of torch have other names for it.
GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
REDUCE = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"


@contextmanager
def counting(sent: Counter[str], straight: str) -> Iterator[None]:
    """Bytes that go out. What goes ``straight`` to its receiver counts with what a process sends to itself."""
    real = {name: getattr(dist, name) for name in (GATHER, REDUCE, "all_to_all_single", "all_gather", "all_reduce")}

    def gather(output_tensor: Tensor, input_tensor: Tensor, *a: Any, **k: Any) -> Any:
        sent["weights"] += output_tensor.nbytes - input_tensor.nbytes
        return real[GATHER](output_tensor, input_tensor, *a, **k)

    def reduce(output: Tensor, input: Tensor, *a: Any, **k: Any) -> Any:
        sent["gradients"] += input.nbytes - output.nbytes
        return real[REDUCE](output, input, *a, **k)

    def all_to_all_single(output: Tensor, input: Tensor, *a: Any, **k: Any) -> Any:
        sent[straight] += input.nbytes if input.is_floating_point() else 0
        return real["all_to_all_single"](output, input, *a, **k)

    def all_gather(parts: list[Tensor], mine: Tensor, *a: Any, **k: Any) -> Any:
        sent["context"] += (len(parts) - 1) * mine.nbytes
        return real["all_gather"](parts, mine, *a, **k)

    def all_reduce(tensor: Tensor, *a: Any, **k: Any) -> Any:
        processes = dist.get_world_size(k.get("group"))
        sent["context"] += 2 * tensor.nbytes * (processes - 1) // processes
        return real["all_reduce"](tensor, *a, **k)

    mine = (gather, reduce, all_to_all_single, all_gather, all_reduce)
    with ExitStack() as stack:
        for name, counted in zip(real, mine, strict=True):
            stack.enter_context(patch.object(dist, name, counted))
        yield


def one_of(rank: int, processes: int, port: int, folder: Path) -> None:
    with entered(rank, processes, port):
        for layout, what in CASES:
            if layout.processes == processes:
                figures = measured(layout, what, rank)
                (folder / f"{place_of(layout, what)}-{rank}.json").write_text(json.dumps(figures))


def measured(layout: Layout, what: str, rank: int) -> dict[str, int]:
    """What this process holds and sends in a step."""
    pupil = pupil_of(random_model(config=UNEVEN))
    recompute_layers(pupil, what)
    laid_out(pupil, layout)
    optimizer = MuonAdamW(pupil)
    group, _ = layout.share_of_samples(rank)
    batch = pack([with_picture(SAMPLES * group + i) for i in range(SAMPLES)])
    totals = batch.totals
    if layout.context_parallel > 1:
        place = rank % layout.context_parallel
        batch = share_of(batch, place, layout.context_parallel, placeholder=PLACEHOLDER, merged=4)
    sent: Counter[str] = Counter()
    with counting(sent, "experts"):
        pupil(batch, totals).loss.backward()
    grads = [parallel.part(p.grad) for p in pupil.parameters() if p.grad is not None]
    stepping: Counter[str] = Counter()
    with counting(stepping, "muon"), exactly():
        optimizer.step(1e-3)
    moments = [
        value for one in optimizer._optimizers for state in one.state.values() for value in state.values() if value.ndim
    ]
    return {
        "weights": sum(parallel.part(p).nbytes for p in pupil.parameters()),
        "gradients": sum(grad.nbytes for grad in grads),
        "moments": sum(value.nbytes for value in moments),
        **{f"sent {kind}": bytes_ for kind, bytes_ in sent.items()},
        "sent muon": stepping["muon"],
    }


def test_what_each_of_several_holds_and_sends_is_what_is_said(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for processes in (2, 4):
        # They are started once for all cases, for that takes longer than a case.
        start(one_of, (processes, free_port(), tmp_path), processes)
    for layout, what in CASES:
        place = place_of(layout, what)
        found = [json.loads((tmp_path / f"{place}-{rank}.json").read_text()) for rank in range(layout.processes)]
        with subtests.test("memory", case=place):
            check_memory(found, layout, what)
        with subtests.test("transfers", case=place):
            check_transfers(found, layout, what)


def check_memory(found: list[dict[str, int]], layout: Layout, what: str) -> None:
    kept = activations(UNEVEN, piece_of(UNEVEN, step_of(layout), layout, 1), what, spread=False)
    said = planned.memory(units(UNEVEN, layout), layout, kept, 1)
    for kind in ("weights", "gradients", "moments"):
        assert found[0][kind] == max(one[kind] for one in found) == getattr(said, kind), kind


def check_transfers(found: list[dict[str, int]], layout: Layout, what: str) -> None:
    """Whom a place goes to is the router's choice, so that of experts only the sum is known: all that is sent."""
    piece = piece_of(UNEVEN, step_of(layout), layout, 1)
    said: Counter[str] = Counter()
    for each in transfers(UNEVEN, units(UNEVEN, layout), layout, piece, 1, what, number=4):
        said[each.kind] += round(each.sent)
    for one in found:
        assert one["sent weights"] == said["weights"]
        assert one["sent gradients"] == said["gradients"]
        assert one.get("sent context", 0) == pytest.approx(said["context"], rel=0.001)
    size = layout.expert_parallel
    sent = sum(one.get("sent experts", 0) for one in found)
    assert sent == pytest.approx(layout.processes * said["experts"] * size / max(1, size - 1), rel=0.001)
    # Matrices go to their owners, with what an owner has of its own; rows are not cut evenly.
    sent = sum(one["sent muon"] for one in found)
    assert sent == pytest.approx(
        layout.processes * sum(8 * unit.times * unit.here_of_muon for unit in units(UNEVEN, layout)), rel=0.05
    )


def test_a_piece_is_what_its_processes_have() -> None:
    """The keys of a stretch are those of its samples up to its end."""
    step = Step(samples=4, length=8)
    alone = piece_of(TINY, step, Layout(), 2)
    assert (alone.tokens, alone.row, alone.keys, alone.pairs) == (16, 16, 16, 2 * 36)
    # Stretches of 4: the first and the last of two samples, of which the last looks back on all of its own.
    shared = piece_of(TINY, step, Layout(2, context_parallel=2), 2)
    assert (shared.tokens, shared.row, shared.keys, shared.pairs) == (8, 16, 12, 36)
    assert math.isclose(piece_of(TINY, step, Layout(4), 1).pairs * 4, alone.pairs * 2)
