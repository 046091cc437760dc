"""Muon for the blocks' matrices, AdamW for the rest, on float32 master weights.

In: a model in any float dtype with gradients. Out: its weights moved by one step. The same learning rate serves both
halves. Source: Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from kimi_vl.model.attention import MultiHeadLatentAttention
from kimi_vl.train.muon import Muon

# What is no matrix of a block although it has two dimensions.
_ADAMW_ENDINGS = (
    "embed_tokens.weight",
    "head.weight",
    "reader.proj.weight",
)


def is_muon(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and not name.endswith(_ADAMW_ENDINGS)


def _fused(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names of fused matrices, and the rows of each part; see :class:`Muon`."""
    for name, module in model.named_modules():
        if isinstance(wqkv := getattr(module, "wqkv", None), nn.Linear):
            yield f"{name}.wqkv.weight".lstrip("."), (wqkv.in_features,) * 3
        if isinstance(module, MultiHeadLatentAttention):
            yield f"{name}.kv_b_proj.weight".lstrip("."), (module.nope_dim, module.v_head_dim)


class MuonAdamW:
    """Updates the parameters of ``model`` that require gradients.

    Weights stay in the model's dtype; the optimizer's own copy, its momentum and moments are float32, so that
    steps smaller than a bfloat16's precision are not lost.
    """

    def __init__(self, model: nn.Module, *, weight_decay: float = 0.1) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()}
        fused = dict(_fused(model))
        muon: dict[tuple[int, ...], list[Tensor]] = {}
        for name, master in self.masters.items():
            if is_muon(name, master):
                muon.setdefault(fused.get(name, ()), []).append(master)
        adamw = [m for name, m in self.masters.items() if not is_muon(name, m)]
        self._optimizers: list[torch.optim.Optimizer] = []
        if muon:
            groups = [{"params": masters, "rows": rows} for rows, masters in muon.items()]
            self._optimizers.append(Muon(groups, weight_decay=weight_decay))
        if adamw:
            self._optimizers.append(
                torch.optim.AdamW(adamw, lr=0.0, weight_decay=weight_decay, betas=(0.9, 0.95), eps=1e-8)
            )

    @torch.no_grad()
    def step(self, lr: float, *, max_norm: float = 1.0, skip_above: float = math.inf) -> float:
        """One step at ``lr`` from the gradients, clipped to ``max_norm``, which are then dropped.

        Returns the gradients' norm before clipping. Where that is not finite, or above ``skip_above``, nothing moves.
        A parameter without a gradient (an expert that nobody chose) stays as it is.
        """
        learned = [name for name, p in self.parameters.items() if p.grad is not None]
        grads = [p.grad.float() for p in self.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        for parameter in self.parameters.values():
            parameter.grad = None
        length = float(norm)
        if not grads or not length <= min(skip_above, sys.float_info.max):
            return length
        torch._foreach_mul_(grads, min(1.0, max_norm / (length + 1e-6)))
        for name, grad in zip(learned, grads, strict=True):
            self.masters[name].grad = grad
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        torch._foreach_copy_(list(self.parameters.values()), list(self.masters.values()))
        for master in self.masters.values():
            master.grad = None
        return length

    def state_dict(self) -> dict[str, Tensor]:
        """Masters and moments under ``KIND.PARAMETER``, so that a resumed run finds each by name."""
        state = {f"master.{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for optimizer in self._optimizers:
                for kind, value in optimizer.state.get(master, {}).items():
                    state[f"{kind}.{name}"] = value
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ``ValueError`` if the state belongs to other parameters."""
        missing = [name for name in self.masters if f"master.{name}" not in state]
        unknown = [
            key for key in state if key.startswith("master.") and key.removeprefix("master.") not in self.masters
        ]
        if missing or unknown:
            raise ValueError(f"the optimizer's state lacks {missing} and does not know {unknown}")
        for optimizer in self._optimizers:
            names = {id(m): name for name, m in self.masters.items()}
            kinds = ("momentum_buffer",) if isinstance(optimizer, Muon) else _ADAMW_STATE
            for group in optimizer.param_groups:
                for master in group["params"]:
                    name = names[id(master)]
                    master.copy_(state[f"master.{name}"])
                    self.parameters[name].copy_(master)
                    held = {kind: state[f"{kind}.{name}"] for kind in kinds if f"{kind}.{name}" in state}
                    if held:
                        optimizer.state[master] = held


_ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")


def warmup_stable_decay(step: int, *, peak: float, warmup: int, total: int, decay: float) -> float:
    """The learning rate of ``step``: up over ``warmup`` steps, level, down to zero over the last ``decay`` share."""
    if step < warmup:
        return peak * (step + 1) / warmup
    falling = max(1, round(total * decay))
    return peak * min(1.0, max(0, total - step) / falling)
