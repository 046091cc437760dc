"""Muon for the blocks' matrices, AdamW for the rest, on float32 master weights.

In: a model in any float dtype with gradients. Out: its weights moved by one step. The same learning rate serves both
halves. Source: Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kimi_vl.model.attention import MultiHeadLatentAttention
from kimi_vl.train import parallel
from kimi_vl.train.optim.muon import Muon, Rows, check_matrix

# What is no matrix of a block although it has two dimensions.
_ADAMW_ENDINGS = (
    "embed_tokens.weight",
    "head.weight",
    "reader.proj.weight",
    "placer.proj.weight",
)


def is_muon(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and not name.endswith(_ADAMW_ENDINGS)


def _fused(model: nn.Module) -> Iterator[tuple[str, Rows]]:
    """The names of fused matrices, and the rows of each part."""
    for name, module in model.named_modules():
        if isinstance(wqkv := getattr(module, "wqkv", None), nn.Linear):
            yield f"{name}.wqkv.weight".lstrip("."), (wqkv.in_features,) * 3
        if isinstance(module, MultiHeadLatentAttention):
            yield f"{name}.kv_b_proj.weight".lstrip("."), (module.nope_dim, module.v_head_dim)


class MuonAdamW:
    """Updates the parameters of ``model`` that require gradients.

    Its own copies of the weights, their momentum and moments are float32, so that steps smaller than a bfloat16's
    precision are not lost; a weight that is float32 needs no copy. Where a process has only some rows of each weight,
    it moves those.
    """

    def __init__(self, model: nn.Module, *, weight_decay: float = 0.1) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: parallel.part(p.detach()).float() for name, p in self.parameters.items()}
        fused = dict(_fused(model))
        muon: dict[Rows, list[Tensor]] = {}
        adamw: list[Tensor] = []
        for name, parameter in self.parameters.items():
            if is_muon(name, parameter):
                rows = fused.get(name, ())
                check_matrix(parameter.shape, rows)
                muon.setdefault(rows, []).append(self.masters[name])
            else:
                adamw.append(self.masters[name])
        self._optimizers: list[torch.optim.Optimizer] = []
        if muon:
            groups = [{"params": masters, "rows": rows} for rows, masters in muon.items()]
            self._optimizers.append(Muon(groups, weight_decay=weight_decay, **self._shared_out()))
        if adamw:
            optimizer = torch.optim.AdamW(adamw, lr=0.0, weight_decay=weight_decay, betas=(0.9, 0.95), eps=1e-8)
            for master in adamw:
                moments = {kind: torch.zeros_like(master) for kind in ("exp_avg", "exp_avg_sq")}
                optimizer.state[master] = {"step": torch.zeros(()), **moments}
            self._optimizers.append(optimizer)

    def _shared_out(self) -> dict[str, Any]:
        if parallel.world_size() == 1:
            return {}
        from kimi_vl.train.scale.owners import Owners

        return {"orthogonal": Owners({id(self.masters[name]): p.data for name, p in self.parameters.items()})}

    @torch.no_grad()
    def step(self, lr: float, *, max_norm: float = 1.0, skip_above: float = math.inf) -> float:
        """One step at ``lr`` from the gradients, clipped to ``max_norm``, which are then dropped.

        Returns the gradients' norm before clipping. Where that is not finite, or above ``skip_above``, nothing moves.
        A parameter without a gradient, or one of zeros (an expert that nobody chose), stays as it is.
        """
        given = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        lengths, length = parallel.lengths_of(given)
        learned = [name for name, of_one in lengths.items() if of_one]
        grads = _wide([parallel.part(given[name]) for name in learned])
        for parameter in self.parameters.values():
            parameter.grad = None
        if not grads or not length <= min(skip_above, sys.float_info.max):
            return length
        torch._foreach_mul_(grads, min(1.0, max_norm / (length + 1e-6)))
        for name, grad in zip(learned, grads, strict=True):
            self.masters[name].grad = grad
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        self.spread()
        for master in self.masters.values():
            master.grad = None
        return length

    @torch.no_grad()
    def forget(self) -> None:
        """Drops momentum and moments, as if no step had been made."""
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()

    @torch.no_grad()
    def spread(self) -> None:
        """Gives the weights what their copies have."""
        apart = [name for name, p in self.parameters.items() if p.dtype != torch.float32]
        if apart:
            weights = [parallel.part(self.parameters[name]) for name in apart]
            torch._foreach_copy_(weights, [self.masters[name] for name in apart])

    def state_dict(self) -> dict[str, Tensor]:
        """The float32 weights under ``model/PARAMETER``, momentum and moments under ``optimizer/KIND.PARAMETER``.

        They are the optimizer's own: what is read into them is there, once :meth:`spread` has told the model.
        """
        state = {f"model/{name}": self._whole(name, master) for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for optimizer in self._optimizers:
                for kind, value in optimizer.state.get(master, {}).items():
                    state[f"optimizer/{kind}.{name}"] = self._whole(name, value)
        return state

    def _whole(self, name: str, here: Tensor) -> Tensor:
        return parallel.as_part_of(self.parameters[name], here)


def _wide(grads: list[Tensor]) -> list[Tensor]:
    """The same in float32, all by one launch."""
    if all(grad.dtype == torch.float32 for grad in grads):
        return grads
    wide = [torch.empty_like(grad, dtype=torch.float32) for grad in grads]
    torch._foreach_copy_(wide, grads)
    return wide
