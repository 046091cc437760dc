"""A state that several processes write, each what it has, and any number of them read.

RUN/state-STEP/*.distcp      the tensors, as torch.distributed.checkpoint cuts them
RUN/state-STEP/facts.json    how far the run is, and of which data
RUN/state-STEP/.metadata     which tensor lies where; written last, so that a folder with it is whole
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from kimi_vl.train import parallel
from kimi_vl.train.state import FILE, Progress, read_facts

_METADATA, _FACTS = ".metadata", "facts.json"


class StateFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = frozenset(FileSystemReader(path).read_metadata().state_dict_metadata)
        self.progress: Progress
        self.data: Mapping[str, Any]
        self.progress, self.data = read_facts(json.loads((path / _FACTS).read_text(encoding="utf-8")))

    def read(self, into: Mapping[str, Tensor]) -> None:
        with warnings.catch_warnings():
            # That nobody else is asked is no news.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(dict(into), checkpoint_id=self.path, no_dist=True)


def whole_folders(run: Path) -> list[StateFolder]:
    return [StateFolder(path) for path in run.glob("state-*") if (path / _METADATA).exists()]


def save_folder(run: Path, tensors: Mapping[str, Tensor], progress: Progress, facts: Mapping[str, str]) -> None:
    """Called by all processes together. What was there before goes when this is whole."""
    folder = run / f"state-{progress.step:07}"
    if not parallel.rank():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    dist.barrier()
    save(dict(tensors), checkpoint_id=folder)
    if not parallel.rank():
        for other in run.glob("state-*"):
            if other != folder:
                shutil.rmtree(other)
        (run / FILE).unlink(missing_ok=True)
