"""Several processes, or a batch in pieces: together they take the step that one would take, and stay alike."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from kimi_vl.train import muon, parallel
from kimi_vl.train.data import Mixture, Source
from kimi_vl.train.learned import Pupil
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.packing import Sample
from tests.conftest import random_model
from tests.training import TINY, captioned, image_text_pupil_of, logged, pupil_of, with_picture, words


def conversing(seed: int, index: int) -> Sample:
    """Lines, pictures and texts of many lengths, so that no process has as much to learn from as another."""
    if index % 3 == 0:
        return with_picture(index, (2, 4 + 2 * (index % 4)), "ab" if index % 2 else None)
    return words(4 + 3 * (index % 5), index, 1 + index % 4)


def captioning(seed: int, index: int) -> Sample:
    """Some captions come twice."""
    caption = [3 + index % 5] * (1 + index % 3)
    return captioned(index, (2, 2 + 2 * (index % 3)), caption, "cd" if index % 4 == 1 else None)


KINDS: dict[str, tuple[Callable[[], Pupil], Callable[[int, int], Sample]]] = {
    "answers": (lambda: pupil_of(random_model(config=TINY), reading=0.5), conversing),
    "captions": (lambda: image_text_pupil_of(random_model(config=TINY)), captioning),
}


def run(kind: str, folder: Path, steps: int, pieces: int = 1) -> dict[str, torch.Tensor]:
    make, draw = KINDS[kind]
    torch.manual_seed(0)  # the heads draw their weights from it
    pupil = make()
    data = Mixture([Source(kind, 1.0, draw)], seed=3, batch_size=8, pieces=pieces)
    # In bfloat16 the last bit of a matrix decides on the third digit of its step.
    with patch.object(muon, "fast_dtype", lambda device: torch.float32):
        train(pupil, data, Schedule(steps, peak=1e-2, warmup=1), folder, workers=0)
    return {name: p.detach().contiguous() for name, p in pupil.state_dict().items()}


def agree(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """All weights together to 1e-5 of their norm, and none far off."""
    assert ours.keys() == theirs.keys()
    apart = whole = 0.0
    for name, expected in theirs.items():
        difference = ours[name] - expected
        if name.endswith("wqkv.bias"):
            # A bias of all keys moves no softmax: its gradient is rounding, of which AdamW makes a whole step.
            queries, _, values = difference.chunk(3)
            difference = torch.cat((queries, values))
        assert difference.norm() <= 1e-4 * expected.norm() + 1e-7, name
        apart += float(difference.square().sum())
        whole += float(expected.square().sum())
    assert apart**0.5 <= 1e-5 * whole**0.5


def one_of(rank: int, world_size: int, port: int, folder: Path, kind: str) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= place | {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    torch.set_num_threads(1)
    parallel.join()
    save_file(run(kind, folder / "together", 3), folder / f"{rank}.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_step_as_one_and_stay_alike(tmp_path: Path, world_size: int, kind: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(one_of, args=(world_size, port, tmp_path, kind), nprocs=world_size)
    first, *others = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(world_size))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    agree(first, run(kind, tmp_path / "alone", 3))
    # The first logs and saves, for all.
    for ours, theirs in zip(logged(tmp_path / "together"), logged(tmp_path / "alone"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_batch_in_pieces_is_one_batch(tmp_path: Path) -> None:
    """(H9) Though each piece has its own number of answers, lines and sequences."""
    agree(run("answers", tmp_path / "pieces", 3, pieces=4), run("answers", tmp_path / "whole", 3))
    for ours, theirs in zip(logged(tmp_path / "pieces"), logged(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "pieces", "passes"), [(8, 3, 1), (0, 1, 1), (8, 0, 1), (8, 1, 0)])
def test_a_batch_that_cannot_be_cut_is_refused(batch_size: int, pieces: int, passes: int) -> None:
    with pytest.raises(ValueError, match=r"is not cut evenly|must be at least 1"):
        Mixture([Source("x", 1.0, conversing)], seed=0, batch_size=batch_size, pieces=pieces, passes=passes)
