"""An official checkpoint to 4 bits, one decoder layer at a time.

Never more than one kind of a layer's matrices is in memory as floats. Every layer is a file, so a run that was ended
goes on at the layer where it stood. The layout is that of :mod:`kimi_vl.engine.store`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kimi_vl.checkpoint import Checkpoint, files_of
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine import layout, store
from kimi_vl.engine.agreement import Agreement
from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix, Loss, decode, in_turn, join, stack
from kimi_vl.hub import PROCESSOR_FILES

# Rows of the vocabulary that are floats at a time.
_ROWS_AT_ONCE = 8192
_PROJECTIONS = ("gate", "up", "down")
_COPIED = (*PROCESSOR_FILES, "generation_config.json")


@dataclass
class Kind:
    """What became of all tensors of one kind."""

    parameters: int = 0
    bytes: int = 0
    loss: Loss = field(default_factory=lambda: Loss(0.0, 0.0))

    def add(self, other: Kind) -> None:
        self.parameters += other.parameters
        self.bytes += other.bytes
        self.loss += other.loss

    @property
    def bits(self) -> float:
        return 8 * self.bytes / self.parameters


Report = dict[str, Kind]


def quantize(
    source: Path,
    target: Path,
    backend: Backend,
    *,
    on_parameters: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Writes ``source`` in 4 bits as the folder ``target``, which appears when all of it is written.

    What an ended run had finished is taken up again, unless the source has changed since.
    ``on_parameters`` is called with parameters done and in all.

    Raises: ``ValueError`` if ``source`` is no whole checkpoint, is quantised already, has a matrix of zeros or what is
    not finite, or ``target`` exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists: name another folder")
    checkpoint = Checkpoint(source)
    total = sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values())
    unfinished = target.absolute().parent / f".{target.name}.unfinished"
    _prepare(unfinished, source)
    report: Report = {}
    done = 0
    for name, make in _files(checkpoint, backend).items():
        path = unfinished / name
        if not path.exists():
            tensors, kinds = make()
            half = path.with_suffix(".partial")
            save_file(tensors, half, metadata={"report": json.dumps({k: asdict(v) for k, v in kinds.items()})})
            half.chmod(0o644)  # the library makes it for its owner alone
            half.replace(path)
        for kind, part in read_report(path).items():
            report.setdefault(kind, Kind()).add(part)
            done += part.parameters
        on_parameters(done, total)
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, unfinished / name)
    config = checkpoint.config.to_dict()
    config["quantization_config"] = {"quant_method": layout.METHOD, "version": layout.VERSION}
    (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_report(unfinished, report, [])
    (unfinished / _SOURCE).unlink()
    unfinished.rename(target)
    return report


def read_reports(folder: Path, config: KimiVLConfig) -> Report:
    """What all files of a 4-bit checkpoint say of how they came about."""
    report: Report = {}
    for name in layout.planned_bytes(config):
        for kind, part in read_report(folder / name).items():
            report.setdefault(kind, Kind()).add(part)
    return report


def read_report(path: Path) -> Report:
    """What the file of a 4-bit checkpoint says of how it came about."""
    with safe_open(path, framework="pt") as file:
        raw: dict[str, Any] = json.loads(file.metadata()["report"])
    return {kind: Kind(part["parameters"], part["bytes"], Loss(**part["loss"])) for kind, part in raw.items()}


def write_report(folder: Path, report: Report, agreements: Sequence[Agreement]) -> None:
    """``report.json``: what became of the tensors, and of answers."""
    kinds = {
        name: {"parameters": kind.parameters, "bytes": kind.bytes, "relative_error": kind.loss.relative}
        for name, kind in report.items()
    }
    text = json.dumps({"kinds": kinds, "agreement": [asdict(part) for part in agreements]}, indent=2) + "\n"
    partial = folder / "report.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / "report.json")


_SOURCE = "source.json"


def _prepare(unfinished: Path, source: Path) -> None:
    """A folder for what is not finished; what it holds of another source goes."""
    files = files_of(source)
    stamp = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    path = unfinished / _SOURCE
    if unfinished.exists() and (not path.exists() or path.read_text(encoding="utf-8") != stamp):
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True, exist_ok=True)
    path.write_text(stamp, encoding="utf-8")


# ---- what goes into each file ----

Made = tuple[dict[str, Tensor], Report]


def _files(checkpoint: Checkpoint, backend: Backend) -> dict[str, Callable[[], Made]]:
    """Every file of the folder, with the function that makes it."""
    layers = range(checkpoint.config.text_config.num_hidden_layers)
    return {
        layout.VISION: lambda: _vision(checkpoint, backend),
        layout.EMBEDDINGS: lambda: _embeddings(checkpoint, backend),
        **{layout.layer_file(index): partial(_layer, checkpoint, backend, index) for index in layers},
        layout.HEAD: lambda: _head(checkpoint, backend),
    }


class _Maker:
    """Tensors of one file as they come."""

    def __init__(self, checkpoint: Checkpoint, backend: Backend) -> None:
        self.checkpoint, self.backend = checkpoint, backend
        self.tensors: dict[str, Tensor] = {}
        self.report: Report = {}

    def read(self, name: str) -> Tensor:
        return next(tensor for _, tensor in self.checkpoint.read([name]))

    def note(self, kind: str, tensors: list[Tensor], parameters: int, loss: Loss = Loss(0.0, 0.0)) -> None:
        part = Kind(parameters, sum(t.nbytes for t in tensors), loss)
        self.report.setdefault(kind, Kind()).add(part)

    def keep(self, name: str, dtype: torch.dtype, kind: str) -> None:
        tensor = self.read(name).to(dtype).clone()
        _check(name, tensor)
        self.tensors[name] = tensor
        self.note(kind, [tensor], tensor.numel())

    def put(
        self, name: str, matrix: Int4Matrix, kind: str, parameters: int, loss: Loss, *, apart: bool = False
    ) -> None:
        """``apart``: what is left over goes into a matrix of its own."""
        blocks, row_scale, rest = matrix.blocks, matrix.row_scale, matrix.rest
        if rest is not None and apart:
            self.put(f"{name}.rest", rest, kind, 0, Loss(0.0, 0.0))
        elif rest is not None:
            blocks = torch.stack((blocks, rest.blocks), dim=-3)
            row_scale = torch.stack((row_scale, rest.row_scale))
        self.tensors |= {f"{name}.blocks": blocks, f"{name}.row_scale": row_scale}
        self.note(kind, [blocks, row_scale], parameters, loss)

    def encode(self, weights: Tensor, *, twice: bool = False) -> tuple[Int4Matrix, Loss]:
        """``twice``: 4 bits, and 4 bits of what those leave over."""
        weights = weights.float().contiguous()
        matrix, loss = self.backend.encode(weights)
        if not twice:
            return matrix, loss
        rest, left = self.backend.encode(weights - decode(matrix))
        return replace(matrix, rest=rest), Loss(left.squared_error, loss.squared)

    def encode_by_rows(self, name: str, weights: Tensor, *, twice: bool = False) -> tuple[Int4Matrix, Loss]:
        encoded = [self.encode(part, twice=twice) for part in weights.split(_ROWS_AT_ONCE)]
        loss = sum((loss for _, loss in encoded), Loss(0.0, 0.0))
        _check_loss(name, loss)
        return join([matrix for matrix, _ in encoded]), loss

    def matrix(self, name: str, kind: str, *, twice: bool = False, apart: bool = False) -> None:
        weights = self.read(f"{name}.weight")
        matrix, loss = self.encode_by_rows(name, weights, twice=twice)
        self.put(name, matrix, kind, weights.numel(), loss, apart=apart)

    def swiglu(self, name: str, kind: str, experts: int = 0, *, twice: bool = False) -> None:
        """One network, or as many experts as a stack."""
        owners = [f"{name}.{e}" for e in range(experts)] or [name]
        parameters = dict.fromkeys(("gate_up", "down"), 0)
        losses = dict.fromkeys(parameters, Loss(0.0, 0.0))
        encoded: dict[str, Int4Matrix] = {}
        for found, weights in self.checkpoint.read(
            [f"{o}.{part}_proj.weight" for o in owners for part in _PROJECTIONS]
        ):
            own = found.removesuffix(".weight")
            encoded[own], loss = self.encode_by_rows(own, weights, twice=twice)
            into = "down" if own.endswith("down_proj") else "gate_up"
            parameters[into] += weights.numel()
            losses[into] += loss
        matrices = {
            "gate_up": [in_turn(encoded.pop(f"{o}.gate_proj"), encoded.pop(f"{o}.up_proj")) for o in owners],
            "down": [encoded.pop(f"{o}.down_proj") for o in owners],
        }
        for part, some in matrices.items():
            matrix = stack(some) if experts else some[0]
            self.put(f"{name}.{part}_proj", matrix, kind, parameters[part], losses[part])

    def heads(self, name: str, config: KimiVLConfig) -> None:
        text = config.text_config
        weights = self.read(f"{name}.weight").float().unflatten(0, (text.num_attention_heads, -1))
        key, mix = weights.split((text.qk_nope_head_dim, text.v_head_dim), dim=1)
        for part, of_heads in (("mix", mix), ("key", key.transpose(1, 2)), ("upright", key)):
            encoded = [self.encode(head, twice=True) for head in of_heads]
            loss = sum((loss for _, loss in encoded), Loss(0.0, 0.0))
            _check_loss(name, loss)
            matrix = stack([matrix for matrix, _ in encoded])
            # keys are there in both directions, but are parameters once
            counted = (0, Loss(0.0, 0.0)) if part == "upright" else (of_heads.numel(), loss)
            self.put(f"{name}.{part}", matrix, "latents (twice 4 bits)", *counted)


def _check_loss(name: str, loss: Loss) -> None:
    if not math.isfinite(loss.squared):
        raise ValueError(f"{name} is not finite: the checkpoint is broken")
    if not loss.squared:
        raise ValueError(f"{name} is zero throughout: the checkpoint is broken")


def _check(name: str, tensor: Tensor) -> None:
    if not torch.linalg.vector_norm(tensor).isfinite():
        raise ValueError(f"{name} is not finite: the checkpoint is broken")


def _vision(checkpoint: Checkpoint, backend: Backend) -> Made:
    maker = _Maker(checkpoint, backend)
    for name, shape in checkpoint.shapes.items():
        if name.startswith("language_model."):
            continue
        if len(shape) == 2:
            maker.matrix(name.removesuffix(".weight"), "vision (twice 4 bits)", twice=True)
        else:
            maker.keep(name, torch.bfloat16, "vision, the rest (bfloat16)")
    return maker.tensors, maker.report


def _layer(checkpoint: Checkpoint, backend: Backend, index: int) -> Made:
    text = checkpoint.config.text_config
    maker = _Maker(checkpoint, backend)
    prefix = f"{store.DECODER}.layers.{index}"
    attn, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    for norm in ("input_layernorm", "self_attn.kv_a_layernorm", "post_attention_layernorm"):
        maker.keep(f"{prefix}.{norm}.weight", torch.float32, "norms and routers (float32)")
    maker.matrix(f"{attn}.q_proj", "queries")
    maker.matrix(f"{attn}.kv_a_proj_with_mqa", "latents (twice 4 bits)", twice=True)
    maker.heads(f"{attn}.kv_b_proj", checkpoint.config)
    maker.matrix(f"{attn}.o_proj", "attention's output (twice 4 bits)", twice=True)
    if not text.is_moe_layer(index):
        twice = layout.dense_twice(text)
        maker.swiglu(mlp, "dense layers" + twice * " (twice 4 bits)", twice=twice)
        return maker.tensors, maker.report
    for name in ("gate.weight", "gate.e_score_correction_bias"):
        maker.keep(f"{mlp}.{name}", torch.float32, "norms and routers (float32)")
    maker.swiglu(f"{mlp}.shared_experts", "shared experts")
    maker.swiglu(f"{mlp}.experts", "experts", text.n_routed_experts)
    return maker.tensors, maker.report


def _embeddings(checkpoint: Checkpoint, backend: Backend) -> Made:
    maker = _Maker(checkpoint, backend)
    maker.matrix(f"{store.DECODER}.embed_tokens", "embeddings (twice 4 bits)", twice=True)
    return maker.tensors, maker.report


def _head(checkpoint: Checkpoint, backend: Backend) -> Made:
    maker = _Maker(checkpoint, backend)
    maker.keep(f"{store.DECODER}.norm.weight", torch.float32, "norms and routers (float32)")
    maker.matrix("language_model.lm_head", "head (twice 4 bits)", twice=True, apart=True)
    return maker.tensors, maker.report
