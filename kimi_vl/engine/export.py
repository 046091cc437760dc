"""An official checkpoint to the W4A16 form that vLLM reads, tensor by tensor.

Format ``pack-quantized`` of compressed-tensors (https://github.com/vllm-project/compressed-tensors): of a matrix NAME
[rows, columns] there are

    NAME.weight_packed   [rows, columns / 8] int32    q + 8 of 8 columns, the first in the lowest 4 bits; q: -8 … 7
    NAME.weight_scale    [rows, columns / 32]         weight = q · scale, in the checkpoint's own type
    NAME.weight_shape    [2] int64                    rows, columns

All other tensors are as they were, under their own names, and each expert has its own matrices, as vLLM's loader asks.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kimi_vl.checkpoint import DTYPES, Checkpoint, TensorSpec, stored_dtype, write_checkpoint
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import GROUP, Int4Matrix, Loss, unpack
from kimi_vl.engine.quantize import Kind, Report
from kimi_vl.hub import PROCESSOR_FILES

# What meets few numbers or many decisions: latents, which heads expand again and again, routers, both tables, pictures.
_IGNORED = (
    "re:.*vision_tower.*",
    "re:.*multi_modal_projector.*",
    "re:.*embed_tokens$",
    "re:.*lm_head$",
    "re:.*mlp[.]gate$",
    "re:.*kv_a_proj_with_mqa$",
    "re:.*kv_b_proj$",
)
_PACKED = re.compile(r"[.](q_proj|o_proj|gate_proj|up_proj|down_proj)[.]weight$")
_COPIED = (*PROCESSOR_FILES, "generation_config.json")


def quantization_config() -> dict[str, Any]:
    """What ``config.json`` says of it."""
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
        "dynamic": False,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(_IGNORED),
        "kv_cache_scheme": None,
    }


def export(
    source: Path,
    target: Path,
    backend: Backend,
    *,
    on_parameters: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Writes ``source`` as the folder ``target``, which appears when all of it is written.

    ``on_parameters`` is called with parameters done and in all.

    Raises: ``ValueError`` if ``source`` is no whole checkpoint, is quantised already or has sizes that form no groups,
    or ``target`` exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: name another folder")
    checkpoint = Checkpoint(source)
    _check_groups(checkpoint.config)
    packer = _Packer(checkpoint, backend, on_parameters)
    unfinished = target.absolute().parent / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        whole = unfinished / target.name
        write_checkpoint(
            checkpoint.config, whole, packer.specs, packer.tensor, quantization_config=quantization_config()
        )
        for name in _COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, whole / name)
        whole.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return packer.report


def _check_groups(config: KimiVLConfig) -> None:
    text = config.text_config
    sizes = {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "moe_intermediate_size": text.moe_intermediate_size,
        "num_attention_heads · v_head_dim": text.num_attention_heads * text.v_head_dim,
    }
    for name, size in sizes.items():
        if size % GROUP:
            raise ValueError(f"config.json: {name} of {size} forms no groups of {GROUP}, which this format is made of")


class _Packer:
    """The tensors of the new checkpoint, one at a time in the order of ``specs``."""

    def __init__(self, checkpoint: Checkpoint, backend: Backend, on_parameters: Callable[[int, int], None]) -> None:
        self._checkpoint, self._backend, self._on_parameters = checkpoint, backend, on_parameters
        self._dtype = DTYPES[checkpoint.config.torch_dtype]
        self._total = sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values())
        self._done = 0
        self._made: dict[str, Tensor] = {}
        self.specs: dict[str, TensorSpec] = {}
        for name, shape in checkpoint.shapes.items():
            if not _PACKED.search(name) or not name.startswith("language_model."):
                self.specs[name] = TensorSpec(shape, stored_dtype(name, self._dtype))
                continue
            rows, columns = shape
            self.specs |= {
                f"{name}_packed": TensorSpec((rows, columns // 8), torch.int32),
                f"{name}_scale": TensorSpec((rows, columns // GROUP), self._dtype),
                f"{name}_shape": TensorSpec((2,), torch.int64),
            }
        self.report: Report = {"packed": Kind(), "as it was": Kind()}

    def tensor(self, name: str) -> Tensor:
        if name not in self._made:
            self._make(name)
        return self._made.pop(name)

    def _make(self, name: str) -> None:
        """One tensor as it was, or the three that stand for it."""
        source = name.removesuffix("_packed")
        tensor = next(tensor for _, tensor in self._checkpoint.read([source]))
        if source == name:
            self._made = {name: tensor.to(self.specs[name].dtype)}
            kind, loss = self.report["as it was"], Loss(0.0, 0.0)
        else:
            weights = tensor.float()
            matrix, _ = self._backend.encode(weights)
            packed, scale, loss = pack_groups(weights, steps(matrix).to(self._dtype))
            shape = torch.tensor(weights.shape)
            self._made = {name: packed, f"{source}_scale": scale, f"{source}_shape": shape}
            kind = self.report["packed"]
        kind.add(Kind(tensor.numel(), sum(t.nbytes for t in self._made.values()), loss))
        self._done += tensor.numel()
        self._on_parameters(self._done, self._total)


def steps(matrix: Int4Matrix) -> Tensor:
    """What lies between two levels of each group: [rows, columns / 32] float32."""
    _, scale = unpack(matrix)
    step = scale.float() * matrix.row_scale[:, None]
    return step[: matrix.rows, : matrix.columns // GROUP]


def pack_groups(weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Loss]:
    """weights [rows, columns] float32 to the nearest levels of scale [rows, columns / 32]: packed and scale as they are
    stored, and what was lost."""
    step = scale.float()[..., None]  # [rows, groups, 1]
    groups = weights.unflatten(1, (-1, GROUP))
    q = (groups / step).nan_to_num(0, 0, 0).round().clamp(-8, 7)
    lost = (groups - q * step).double().square().sum()
    nibbles = (q + 8).to(torch.uint8).flatten(1)
    packed = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).contiguous().view(torch.int32)
    return packed, scale, Loss(float(lost), float(weights.double().square().sum()))
