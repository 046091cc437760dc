"""The one training loop: batch → loss → step → log → save.

A stage gives the learner, what of it may move, the data and the schedule. Stopping at any moment loses at most the
steps since the last save, and a resumed run goes through the same batches as an unbroken one.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from kimi_vl.train import parallel
from kimi_vl.train.balance import busiest_share, idlest_share, loads_of, moe_layers, update_correction_bias
from kimi_vl.train.data import Mixture
from kimi_vl.train.learned import Learned, Pupil
from kimi_vl.train.optim import MuonAdamW, warmup_stable_decay
from kimi_vl.train.packing import Batch, Totals
from kimi_vl.train.state import Progress, load_state, save_state

# A step whose gradient is so many times longer than those before it is a broken sample's or worse, and is left out. The
# lengths of skipped ones count among those of the next, so that a run that has really changed goes on.
_SPIKE, _REMEMBERED = 10.0, 50


@dataclass(frozen=True)
class Schedule:
    """A run of ``steps`` steps; rates per step, ``decay`` the share of steps over which the rate falls to zero."""

    steps: int
    peak: float
    warmup: int = 50
    decay: float = 0.3
    balance_rate: float = 1e-3
    save_every: int = 200
    log_every: int = 1


def train(
    learner: Pupil,
    data: Mixture,
    schedule: Schedule,
    folder: Path,
    *,
    workers: int = 1,
) -> None:
    """Trains until ``schedule.steps``, from ``folder/state.safetensors`` if there is one.

    Logs one JSON object every ``log_every`` steps to ``folder/log.jsonl``. Only parameters that require gradients move.
    Of several processes, the first logs and saves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.safetensors"
    parallel.begin_alike(learner)
    optimizer = MuonAdamW(learner)
    progress = load_state(state, learner, optimizer, data.recipe) if state.exists() else Progress()
    start, norms = progress.step, deque(progress.norms, maxlen=_REMEMBERED)
    (folder / "schedule.json").write_text(json.dumps(asdict(schedule)))
    log_path = folder / "log.jsonl"
    if not parallel.rank():
        # Steps after the last save are done again, and would be told twice.
        told = log_path.read_text().splitlines(keepends=True) if log_path.exists() else []
        log_path.write_text("".join(line for line in told if json.loads(line)["step"] <= start))
    learner.train()
    began = time.monotonic()
    with log_path.open("a") as log:
        for step, batches in enumerate(data.batches(start, schedule.steps, workers=workers), start):
            totals = _over_all(sum((batch.totals for batch in batches), Totals()))
            learned = [_learn(learner, batch, totals) for batch in batches]
            parallel.sum_gradients(optimizer.parameters.values())
            lr = warmup_stable_decay(
                step, peak=schedule.peak, warmup=schedule.warmup, total=schedule.steps, decay=schedule.decay
            )
            most = _SPIKE * median(norms) if len(norms) == _REMEMBERED else math.inf
            norm = optimizer.step(lr, skip_above=most)
            if math.isfinite(norm):
                norms.append(norm)
            load = parallel.total(_loads(learner, learned))
            update_correction_bias(learner.model, load, schedule.balance_rate)
            last = step + 1 == schedule.steps
            if (step + 1) % schedule.log_every == 0 or last:
                figures = _figures(learned)
                if load.any():
                    figures |= {"busiest": float(busiest_share(load)), "idlest": float(idlest_share(load))}
                if not norm <= most:
                    figures["skipped"] = 1.0
                line = {"step": step + 1, "lr": lr, "grad_norm": norm, "seconds": time.monotonic() - began, **figures}
                if not parallel.rank():
                    print(json.dumps(line), file=log, flush=True)
            if parallel.rank():
                continue
            if (step + 1) % schedule.save_every == 0 or last:
                save_state(state, learner, optimizer, Progress(step + 1, tuple(norms)), data.recipe)


def _learn(learner: Pupil, batch: Batch, totals: Totals) -> Learned:
    """Adds the batch's gradients. What it keeps of the graph is gone with it."""
    learned: Learned = learner(batch.to(learner.model.device), totals)
    if learned.loss.requires_grad:
        learned.loss.backward()
    return replace(learned, loss=learned.loss.detach())


def _over_all(mine: Totals) -> Totals:
    sums = parallel.total(torch.tensor([mine.samples, mine.weight, mine.characters], dtype=torch.float64)).tolist()
    return Totals(int(sums[0]), sums[1], int(sums[2]))


def _loads(learner: Pupil, learned: Sequence[Learned]) -> Tensor:
    """[layers, E], nothing where the decoder took no part."""
    layers, experts = len(moe_layers(learner.model)), learner.model.config.text_config.n_routed_experts
    loads = torch.zeros(layers, experts, dtype=torch.int64, device=learner.model.device)
    for one in learned:
        if one.routings:
            loads += loads_of(one.routings)
    return loads


def _figures(learned: Sequence[Learned]) -> dict[str, float]:
    """Summed over a step's batches and all processes, which may not have the same ones."""
    sums: dict[str, float] = {}
    for one in learned:
        for name, value in one.figures.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return parallel.total_by_name(sums)
