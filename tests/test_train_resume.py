"""A run that was killed goes on as if it had not been, and notices when it cannot."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kimi_vl.train import loop, parallel
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Batch, Sample
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.scale.layout import Layout
from tests.conftest import random_model
from tests.training import (
    ALONE,
    TINY,
    entered,
    exactly,
    free_port,
    laid_out,
    logged,
    pupil_of,
    start,
    with_picture,
    words,
)

STEPS = 24


def draw(seed: int, index: int) -> Sample:
    return with_picture(index, (2, 4), "ab") if index % 3 == 0 else words(4 + index % 5, index, 2)


class StoppedError(Exception):
    pass


def run(
    folder: Path,
    *,
    seed: int = 3,
    steps: int = STEPS,
    pause: float = 0.0,
    passes: int = 2,
    until: int = STEPS,
    layout: Layout = ALONE,
) -> None:
    def slowly(seed: int, index: int) -> Sample:
        time.sleep(pause)
        if index >= 4 * until:
            raise StoppedError
        return draw(seed, index)

    torch.manual_seed(0)
    torch.set_num_threads(1)
    pupil = pupil_of(random_model(config=TINY), reading=0.5, placing=0.5)
    cut, share = laid_out(pupil, layout), layout.share_of_samples(parallel.rank())
    data = Mixture([Source("all", 1.0, slowly)], seed=seed, batch_size=4, passes=passes, share=share, cut=cut)
    train(pupil, data, Schedule(steps, peak=1e-3, warmup=2, save_every=3), folder, workers=0)


def killed(rank: int, folder: Path) -> None:
    run(folder, pause=0.01)


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, wherever SIGKILL met it (J5)."""
    run(tmp_path / "whole")
    parts, r = tmp_path / "parts", random.Random(7)
    for _ in range(3):
        context = start(killed, (parts,), 1, join=False)
        assert context is not None
        (process,) = context.processes
        until = time.monotonic() + 60
        wanted = len(logged(parts)) + r.randint(1, 6)
        while len(logged(parts)) < wanted and process.is_alive() and time.monotonic() < until:
            time.sleep(r.random() / 50)
        assert process.is_alive() and process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert 0 < len(logged(parts)) < STEPS
    with (parts / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "te')  # as far as a kill in the middle of a line lets it come
    run(parts)
    assert logged(parts) == logged(tmp_path / "whole")
    ours, theirs = (load_file(folder / "state.safetensors") for folder in (parts, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not list(parts.glob("*.tmp"))


def one_of(rank: int, port: int, folder: Path, layout: Layout, until: int) -> None:
    with entered(rank, layout.processes, port), exactly(), suppress(StoppedError):
        run(folder, steps=12, until=until, layout=layout)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Alone, by two that share out experts, by four that share out rows, and alone again."""
    parts = tmp_path / "parts"
    with exactly():
        run(tmp_path / "whole", steps=12)
        with suppress(StoppedError):
            run(parts, steps=12, until=3)
        for layout, until in ((Layout(2, expert_parallel=2), 6), (Layout(4, context_parallel=2), 9)):
            start(one_of, (free_port(), parts, layout, until), layout.processes)
            assert len(logged(parts)) == until
            assert [path.name for path in parts.glob("state*")] == [f"state-{until:07}"]
        run(parts, steps=12)
    assert [path.name for path in parts.glob("state*")] == ["state.safetensors"]
    for ours, theirs in zip(logged(parts), logged(tmp_path / "whole"), strict=True):
        assert ours["text"] == pytest.approx(theirs["text"], rel=1e-5), ours["step"]


@pytest.mark.parametrize(("wish", "told"), [({"seed": 4}, "seed 3, not 4"), ({"passes": 1}, "passes 2, not 1")])
def test_a_run_of_other_data_is_no_run_to_go_on_with(tmp_path: Path, wish: dict[str, Any], told: str) -> None:
    run(tmp_path, steps=1)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=told):
        run(tmp_path, steps=2, **wish)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_spike_moves_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose pixels make the gradient a hundred times as long, among usual ones."""
    monkeypatch.setattr(loop, "_REMEMBERED", 5)
    pupil = pupil_of(random_model(config=TINY))
    spiked = 8
    weights: dict[int, torch.Tensor] = {}

    class Spiking(Mixture):
        def __getitem__(self, number: int) -> list[Batch]:
            weights[number] = pupil.model.language_model.lm_head.weight.detach().clone()
            (batch,) = super().__getitem__(number)
            return [replace(batch, weights=batch.weights * 1000) if number == spiked else batch]

    monkeypatch.setattr(loop, "_over_all", lambda totals: replace(totals, weight=4.0))
    data = Spiking([Source("all", 1.0, draw)], seed=3, batch_size=4)
    train(pupil, data, Schedule(12, peak=1e-3, warmup=1), tmp_path, workers=0)
    norms = [line["grad_norm"] for line in logged(tmp_path)]
    assert norms[spiked] > 100 * max(norms[:spiked])
    assert torch.equal(weights[spiked], weights[spiked + 1])
    assert not torch.equal(weights[spiked + 1], weights[spiked + 2])
    assert [line["step"] for line in logged(tmp_path) if line.get("skipped")] == [spiked + 1]
