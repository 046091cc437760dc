"""The one training loop: batch → loss → step → log → save.

A stage gives the learner, what of it may move, the data and the schedule. A kill at any moment loses at most the steps
since the last save, and a resumed run goes through the same batches as an unbroken one.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from kimi_vl.train import parallel
from kimi_vl.train.data.mixture import Mixture
from kimi_vl.train.data.packing import Batch, Totals
from kimi_vl.train.learning.balance import busiest_share, idlest_share, loads_of, moe_layers, update_correction_bias
from kimi_vl.train.learning.learned import Learned, Pupil
from kimi_vl.train.optim.muon_adamw import MuonAdamW
from kimi_vl.train.optim.rates import rate
from kimi_vl.train.state import Progress, load_state, save_state, stored_in
from kimi_vl.train.stopping import Stopping
from kimi_vl.train.watching.log import Listener, RunLog


class Show(Protocol):
    """Whoever asks a model questions while it learns."""

    def begin(self, step: int) -> None:
        """The run goes on after ``step`` steps: what was told of later ones will be told again."""

    def ask(self, learner: Pupil, step: int) -> Mapping[str, float]:
        """Figures for the log."""


# A step whose gradient is so many times longer than those before it is a broken sample's or worse, and is left out. The
# lengths of skipped ones count among those of the next, so that a run that has really changed goes on.
_SPIKE, _REMEMBERED = 10.0, 50


@dataclass(frozen=True)
class Schedule:
    """A run of ``steps`` steps, and how fast it learns; see rates.py."""

    steps: int
    peak: float
    warmup: int = 50
    shape: str = "wsd"
    decay: float = 0.3
    floor: float = 0.0
    balance_rate: float = 1e-3
    save_every: int = 200
    log_every: int = 1

    def rate(self, step: int) -> float:
        shape, decay, floor = self.shape, self.decay, self.floor
        return rate(step, peak=self.peak, warmup=self.warmup, total=self.steps, shape=shape, decay=decay, floor=floor)


def train(
    learner: Pupil,
    data: Mixture,
    schedule: Schedule,
    folder: Path,
    *,
    workers: int = 1,
    listener: Listener | None = None,
    show: Show | None = None,
) -> None:
    """Trains until ``schedule.steps``.

    Tells every ``log_every`` steps what :class:`RunLog` has of them. Only parameters that require gradients move. Of
    several processes, the first tells. ``show`` is asked at every save. Goes on from the latest state in ``folder``, if
    there is one. Raises ``KeyboardInterrupt`` after SIGINT or SIGTERM, when the step in hand has been saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = MuonAdamW(learner)
    stored = stored_in(folder)
    progress = Progress() if stored is None else load_state(stored, learner, optimizer, data.recipe)
    start, norms = progress.step, deque(progress.norms, maxlen=_REMEMBERED)
    (folder / "schedule.json").write_text(json.dumps(asdict(schedule) | {"batch_size": data.batch_size}))
    learner.train()
    with ExitStack() as stack:
        stopping = stack.enter_context(Stopping())
        log: RunLog | None = None
        if not parallel.rank():
            path = folder / "log.jsonl"
            log = stack.enter_context(RunLog(path, start=start, steps=schedule.steps, listener=listener))
        if show is not None:
            show.begin(start)
        skipped = 0
        for step, batches in enumerate(data.batches(start, schedule.steps, workers=workers), start):
            totals = _over_all(sum((batch.totals for batch in batches), Totals()))
            learned = [_learn(learner, batch, totals) for batch in batches]
            lr = schedule.rate(step)
            most = _SPIKE * median(norms) if len(norms) == _REMEMBERED else math.inf
            norm = optimizer.step(lr, skip_above=most)
            skipped += not norm <= most
            if math.isfinite(norm):
                norms.append(norm)
            load = parallel.total(torch.stack([loads for _, loads in learned]).sum(0))
            update_correction_bias(learner.model, load, schedule.balance_rate)
            done = step + 1
            if log is not None:
                # Processes that share out a row count its samples each.
                log.count(replace(totals, samples=data.batch_size))
            stops = bool(parallel.total(torch.tensor(stopping.wished, dtype=torch.int32)))
            saves = done % schedule.save_every == 0 or done == schedule.steps
            asked = show.ask(learner, done) if show is not None and saves else {}
            if done % schedule.log_every == 0 or done == schedule.steps or asked:
                figures = {"lr": lr, "grad_norm": norm, **_figures([own for own, _ in learned])}
                if load.any():
                    figures |= {"busiest": float(busiest_share(load)), "idlest": float(idlest_share(load))}
                if skipped:
                    figures["skipped"] = skipped
                if log is not None:
                    log.tell(done, {**figures, **asked})
                skipped = 0
            if saves or stops:
                save_state(folder, learner, optimizer, Progress(done, tuple(norms)), data.recipe)
            if stops:
                raise KeyboardInterrupt


def _learn(learner: Pupil, batch: Batch, totals: Totals) -> tuple[Mapping[str, Tensor], Tensor]:
    """Adds the batch's gradients. Returns its figures and the experts' loads [layers, E]; the rest is gone."""
    learned: Learned = learner(batch.to(learner.model.device), totals)
    if learned.loss.requires_grad:
        learned.loss.backward()
    return learned.figures, _loads(learner, learned)


def _over_all(mine: Totals) -> Totals:
    samples, weight, *counts = parallel.total(torch.tensor(astuple(mine), dtype=torch.float64)).tolist()
    return Totals(int(samples), weight, *map(int, counts))


def _loads(learner: Pupil, learned: Learned) -> Tensor:
    """[layers, E], nothing where the decoder took no part."""
    if learned.routings:
        return loads_of(learned.routings)
    layers, experts = len(moe_layers(learner.model)), learner.model.config.text_config.n_routed_experts
    return torch.zeros(layers, experts, dtype=torch.int64, device=learner.model.device)


def _figures(learned: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Summed over a step's batches and all processes, which may not have the same ones."""
    sums: dict[str, float] = {}
    for figures in learned:
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return parallel.total_by_name(sums)
