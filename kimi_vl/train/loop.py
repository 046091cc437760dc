"""The one training loop: batch → loss → step → log → save.

A stage gives the learner, what of it may move, the data and the schedule. Stopping at any moment loses at most the
steps since the last save, and a resumed run goes through the same batches as an unbroken one.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from kimi_vl.train import parallel
from kimi_vl.train.balance import update_correction_bias
from kimi_vl.train.data import Mixture
from kimi_vl.train.learned import Pupil
from kimi_vl.train.optim import MuonAdamW, warmup_stable_decay
from kimi_vl.train.state import load_state, save_state


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

    Logs one JSON object per step to ``folder/log.jsonl``. Only parameters that require gradients move. Of several
    processes, the first logs (its own share's losses) and saves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.safetensors"
    parallel.begin_alike(learner)
    optimizer = MuonAdamW(learner)
    start = load_state(state, learner, optimizer) if state.exists() else 0
    (folder / "schedule.json").write_text(json.dumps(asdict(schedule)))
    log_path = folder / "log.jsonl"
    if not parallel.rank():
        # Steps after the last save are done again, and would be told twice.
        told = log_path.read_text().splitlines(keepends=True) if log_path.exists() else []
        log_path.write_text("".join(line for line in told if json.loads(line)["step"] <= start))
    learner.train()
    began = time.monotonic()
    with log_path.open("a") as log:
        for step, batch in enumerate(data.batches(start, schedule.steps, workers=workers), start):
            learned = learner(batch.to(learner.model.device))
            if learned.loss.requires_grad:
                learned.loss.backward()
            parallel.average_gradients(optimizer.parameters.values())
            lr = warmup_stable_decay(
                step, peak=schedule.peak, warmup=schedule.warmup, total=schedule.steps, decay=schedule.decay
            )
            norm = optimizer.step(lr)
            if learned.routings:
                update_correction_bias(learner.model, learned.routings, schedule.balance_rate)
            if parallel.rank():
                continue
            last = step + 1 == schedule.steps
            if (step + 1) % schedule.log_every == 0 or last:
                figures = {name: float(value) for name, value in learned.figures.items()}
                line = {"step": step + 1, "lr": lr, "grad_norm": norm, "seconds": time.monotonic() - began, **figures}
                print(json.dumps(line), file=log, flush=True)
            if (step + 1) % schedule.save_every == 0 or last:
                save_state(state, learner, optimizer, step + 1)
