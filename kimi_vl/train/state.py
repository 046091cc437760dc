"""Save and resume: everything that the next step depends on.

RUN/state.safetensors    of a process that is alone: one file
RUN/state-STEP/          of several: each writes what it has; see :mod:`kimi_vl.train.scale.checkpoint`

Either holds weights (what no gradient moves too, such as the correction bias) as ``model/NAME``, the optimizer's state
by parameter name, how far the run is, and of which data it is; and can be read by any number of processes. The data
needs no cursor of its own; see data.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kimi_vl.checkpoint import Checkpoint
from kimi_vl.train import parallel
from kimi_vl.train.optim.muon_adamw import MuonAdamW

FILE = "state.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and the gradients' norms of the last of them."""

    step: int = 0
    norms: tuple[float, ...] = ()


class Stored(Protocol):
    """A saved state, opened."""

    @property
    def names(self) -> frozenset[str]: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def data(self) -> Mapping[str, Any]: ...

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fills tensors, or this process's rows of them, with what is stored under their names."""


class StateFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt") as file:
            self.names = frozenset(file.keys())
            metadata = file.metadata()
        try:
            self.progress, self.data = read_facts(metadata)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no state of a run: it does not say how far the run is") from error

    @torch.no_grad()
    def read(self, into: Mapping[str, Tensor]) -> None:
        with safe_open(self.path, framework="pt") as file:
            for name, tensor in into.items():
                if tensor.ndim:
                    parallel.part(tensor).copy_(file.get_slice(name)[parallel.rows_here(tensor)])
                else:
                    tensor.copy_(file.get_tensor(name))


class StoredModel:
    """A model folder in the official layout, opened as the state of a run that has not begun."""

    def __init__(self, folder: Path) -> None:
        self._checkpoint = Checkpoint(folder)
        self.names = frozenset(f"model/model.{name}" for name in self._checkpoint.shapes)
        self.progress = Progress()
        self.data: Mapping[str, Any] = {}

    @torch.no_grad()
    def read(self, into: Mapping[str, Tensor]) -> None:
        wanted = {name.removeprefix("model/model."): tensor for name, tensor in into.items()}
        for name, whole in self._checkpoint.read(wanted):
            parallel.part(wanted[name]).copy_(whole[parallel.rows_here(wanted[name])])


def facts(progress: Progress, data: Mapping[str, Any]) -> dict[str, str]:
    """What is stored beside the tensors."""
    return {"progress": json.dumps(asdict(progress)), "data": json.dumps(data)}


def read_facts(stored: Mapping[str, str]) -> tuple[Progress, Mapping[str, Any]]:
    progress = json.loads(stored["progress"])
    return Progress(progress["step"], tuple(progress["norms"])), json.loads(stored["data"])


def stored_in(folder: Path) -> Stored | None:
    """The latest state of a run, if it has one."""
    found: list[Stored] = [StateFile(folder / FILE)] if (folder / FILE).exists() else []
    if any(folder.glob("state-*")):
        from kimi_vl.train.scale.checkpoint import whole_folders

        found += whole_folders(folder)
    return max(found, key=lambda stored: stored.progress.step, default=None)


def save_state(
    folder: Path, learner: nn.Module, optimizer: MuonAdamW, progress: Progress, data: Mapping[str, Any]
) -> None:
    """Writes the state, and of which ``data`` (as JSON has it) the run is. An earlier one goes when this is whole."""
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(learner, optimizer).items()}
    if parallel.world_size() > 1:
        from kimi_vl.train.scale.checkpoint import save_folder

        save_folder(folder, tensors, progress, facts(progress, data))
        return
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{FILE}.tmp"
    save_file(tensors, whole, metadata=facts(progress, data))
    whole.replace(folder / FILE)
    for earlier in folder.glob("state-*"):
        shutil.rmtree(earlier)


def load_state(stored: Stored, learner: nn.Module, optimizer: MuonAdamW, data: Mapping[str, Any]) -> Progress:
    """Puts a state back, so that the run goes on.

    Returns how far it is. Raises ``ValueError`` if it is another model's, or a run of other data than ``data``.
    """
    for name, value in data.items():
        if stored.data.get(name) != value:
            raise ValueError(
                f"the run was begun with {name} {stored.data.get(name)}, not {value}: go on with that, or in a new "
                f"folder"
            )
    into = _tensors(learner, optimizer)
    differ = sorted(stored.names ^ parallel.everyones(into))
    if weights := [name for name in differ if name.startswith("model/")]:
        raise ValueError(f"the state belongs to another model, these names differ: {weights[:8]}")
    if differ:
        raise ValueError(f"the optimizer's state is of other parameters, these differ: {differ[:8]}")
    stored.read(into)
    optimizer.spread()
    return stored.progress


def load_weights(stored: Stored, learner: nn.Module) -> set[str]:
    """Starts a new stage from another's weights. Returns the names of those that the other stage did not have.

    Raises ``ValueError`` if anything of the model itself is missing.
    """
    into = {f"model/{name}": tensor for name, tensor in learner.state_dict().items()}
    absent = {name.removeprefix("model/") for name in into if name not in stored.names}
    if lacking := sorted(name for name in absent if name.startswith("model.")):
        raise ValueError(f"the state to start from lacks {lacking[:8]}")
    stored.read({name: tensor for name, tensor in into.items() if name in stored.names})
    return absent


def _tensors(learner: nn.Module, optimizer: MuonAdamW) -> dict[str, Tensor]:
    """Everything that is saved, the weights that move as the optimizer has them."""
    return {f"model/{name}": tensor for name, tensor in learner.state_dict().items()} | optimizer.state_dict()
