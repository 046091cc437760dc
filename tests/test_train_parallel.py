"""Several processes: together they take the step that one would take, and stay alike."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from kimi_vl.train import parallel
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.packing import Sample
from tests.conftest import random_model
from tests.training import TINY, pupil_of, with_picture, words


def draw(seed: int, index: int) -> Sample:
    """Pictures and texts in turn, by twos, so that each of two processes has as many answers of either."""
    return with_picture(index, (2, 4)) if index // 2 % 2 else words(8, index, 3)


def run(folder: Path, steps: int) -> dict[str, torch.Tensor]:
    pupil = pupil_of(random_model(config=TINY))
    data = Mixture([Source("both", 1.0, draw)], seed=3, batch_size=8)
    train(pupil, data, Schedule(steps, peak=1e-2, warmup=1), folder, workers=0)
    return {name: p.detach().contiguous() for name, p in pupil.named_parameters()}


def one_of_two(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    parallel.join()
    for steps in (1, 4):
        save_file(run(folder / f"together{steps}", steps), folder / f"{rank}-{steps}.safetensors")


def test_two_processes_step_as_one_and_stay_alike(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(one_of_two, args=(port, tmp_path), nprocs=2)
    for steps in (1, 4):
        first, second = (load_file(tmp_path / f"{rank}-{steps}.safetensors") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        # The first logs and saves, for both.
        assert len((tmp_path / f"together{steps}" / "log.jsonl").read_text().splitlines()) == steps
    # One step only: what differs by rounding may choose other experts in the next.
    together, alone = load_file(tmp_path / "0-1.safetensors"), run(tmp_path / "alone", 1)
    start = {name: p.detach() for name, p in pupil_of(random_model(config=TINY)).named_parameters()}
    for name, expected in alone.items():
        if not name.startswith("reader."):  # drawn anew by each process, and without a gradient
            moved = (expected - start[name]).norm()
            assert (together[name] - expected).norm() <= 0.02 * moved + 1e-6, name
