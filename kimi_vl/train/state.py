"""Save and resume: everything that the next step depends on, in one safetensors file.

Weights (with what no gradient moves, such as the correction bias), optimizer state by parameter name, and the
step's number. The data needs no state of its own; see data.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from kimi_vl.train.optim import MuonAdamW


def save_state(path: Path, learner: nn.Module, optimizer: MuonAdamW, step: int) -> None:
    """Writes the state after ``step`` steps; a file of that name is replaced only by a whole one."""
    tensors = {f"model/{name}": t for name, t in learner.state_dict().items()}
    tensors |= {f"optimizer/{name}": t for name, t in optimizer.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    save_file({name: t.contiguous() for name, t in tensors.items()}, whole, metadata={"step": str(step)})
    whole.replace(path)


def load_state(path: Path, learner: nn.Module, optimizer: MuonAdamW) -> int:
    """Puts a state back, so that the run goes on.

    Returns the number of steps done. Raises ``ValueError`` if it is another model's.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        step = int(file.metadata()["step"])
        weights = {n.removeprefix("model/"): file.get_tensor(n) for n in names if n.startswith("model/")}
        mismatch = set(weights) ^ set(learner.state_dict())
        if mismatch:
            raise ValueError(f"{path}: belongs to another model, these names differ: {sorted(mismatch)[:8]}")
        with torch.no_grad():
            learner.load_state_dict(weights)
        prefix = "optimizer/"
        optimizer.load_state_dict({n.removeprefix(prefix): file.get_tensor(n) for n in names if n.startswith(prefix)})
    return step


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
