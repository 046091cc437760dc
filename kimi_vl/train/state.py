"""Save and resume: everything that the next step depends on, in one safetensors file.

Weights (with what no gradient moves, such as the correction bias), optimizer state by parameter name, how far the run
is, and of which data it is. The data needs no cursor of its own; see data.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from kimi_vl.train.optim import MuonAdamW


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and the gradients' norms of the last of them."""

    step: int = 0
    norms: tuple[float, ...] = ()


def save_state(
    path: Path, learner: nn.Module, optimizer: MuonAdamW, progress: Progress, data: Mapping[str, Any]
) -> None:
    """Writes the state, and of which ``data`` (as JSON has it) the run is. A file is replaced only by a whole one."""
    tensors = {f"model/{name}": t for name, t in learner.state_dict().items()}
    tensors |= {f"optimizer/{name}": t for name, t in optimizer.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    metadata = {"progress": json.dumps(asdict(progress)), "data": json.dumps(data)}
    save_file({name: t.contiguous() for name, t in tensors.items()}, whole, metadata=metadata)
    whole.replace(path)


def load_state(path: Path, learner: nn.Module, optimizer: MuonAdamW, data: Mapping[str, Any]) -> Progress:
    """Puts a state back, so that the run goes on.

    Returns how far it is. Raises ``ValueError`` if it is another model's, or a run of other data than ``data``.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        metadata = file.metadata()
        begun = json.loads(metadata["data"])
        for name, value in data.items():
            if begun.get(name) != value:
                raise ValueError(
                    f"{path}: the run was begun with {name} {begun.get(name)}, not {value}: go on with that, or in a "
                    f"new folder"
                )
        weights = {n.removeprefix("model/"): file.get_tensor(n) for n in names if n.startswith("model/")}
        mismatch = set(weights) ^ set(learner.state_dict())
        if mismatch:
            raise ValueError(f"{path}: belongs to another model, these names differ: {sorted(mismatch)[:8]}")
        with torch.no_grad():
            learner.load_state_dict(weights)
        prefix = "optimizer/"
        optimizer.load_state_dict({n.removeprefix(prefix): file.get_tensor(n) for n in names if n.startswith(prefix)})
    progress = json.loads(metadata["progress"])
    return Progress(progress["step"], tuple(progress["norms"]))


def load_weights(path: Path, learner: nn.Module) -> None:
    """Starts a new stage from another's weights; a head that the other stage did not have stays as it is.

    Raises ``ValueError`` if anything of the model itself is missing.
    """
    with safe_open(path, framework="pt") as file:
        found = set(file.keys())
        absent = [name for name in learner.state_dict() if f"model/{name}" not in found]
        if any(name.startswith("model.") for name in absent):
            raise ValueError(f"{path} lacks {[name for name in absent if name.startswith('model.')][:8]}")
        with torch.no_grad():
            for name, tensor in learner.state_dict().items():
                if name not in absent:
                    tensor.copy_(file.get_tensor(f"model/{name}"))
