"""Safetensors shards ↔ the model, by name and strictly.

In: a folder in the official layout. Out: a :class:`KimiVLForConditionalGeneration` in which every tensor of the files
was used exactly once; and back, a folder that the official classes read. Tensors are read and written one at a time.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kimi_vl.config import KimiVLConfig
from kimi_vl.hub import NANO, NANO_THINKING
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration, draw_weight

SHARD_BYTES = 5 * 10**9
INDEX = "model.safetensors.index.json"
# What nano-thinking has in common with nano lies in nano's folder, beside its own.
SHARED = f"../{NANO.name}/model.safetensors"
# In every official layer, and recomputed from the config instead.
_IGNORED = re.compile(r"\.rotary_emb\.inv_freq$")
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int64: "I64",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(folder: Path) -> KimiVLConfig:
    """Raises ``ValueError`` if ``config.json`` is missing, broken or another model's."""
    return KimiVLConfig.from_dict(read_json(folder / "config.json"))


class Checkpoint:
    """A folder in the official layout, opened: every tensor that its config asks for, and no other.

    Raises: ``ValueError`` if it is quantised, or listing every tensor that is missing, left over, stored twice or of a
    wrong shape.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = read_json(folder / "config.json")
        if "quantization_config" in raw:
            raise ValueError(f"{folder} is quantised already: the engine runs it, but here the original is needed")
        self.config = KimiVLConfig.from_dict(raw)
        with torch.device("meta"):
            wanted = KimiVLForConditionalGeneration(self.config).state_dict()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        self._where = _locate(folder)
        _check_names(folder, set(self.shapes), set(self._where))
        wrong = []
        for file, names in _by_file(self._where).items():
            with _opened(folder / file) as shard:
                shapes = {name: tuple(shard.get_slice(name).get_shape()) for name in names}
            wrong += [
                f"{name} is {list(shape)}, the config says {list(self.shapes[name])}"
                for name, shape in shapes.items()
                if shape != self.shapes[name]
            ]
        if wrong:
            raise ValueError(f"{folder}: wrong shapes: {_listed(wrong)}")

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors as stored, file by file. Only the files in hand are held open."""
        for file, some in _by_file({name: self._where[name] for name in names}).items():
            with _opened(self.folder / file) as shard:
                for name in some:
                    yield name, shard.get_tensor(name)


def files_of(folder: Path) -> list[Path]:
    """All that a checkpoint's weights lie in. Raises: ``ValueError`` if it has none, or one is missing."""
    return [folder / file for file in sorted(set(_locate(folder).values()))]


def load_model(
    folder: Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> KimiVLForConditionalGeneration:
    """Reads a whole checkpoint.

    Args:
        dtype: of the weights in memory; as the config says if not given. The router's correction bias is always
            float32, since its steps are finer than a bfloat16 can hold.

    Raises: ``ValueError`` if it is not a whole one; see :class:`Checkpoint`.
    """
    checkpoint = Checkpoint(folder)
    dtype = dtype or DTYPES[checkpoint.config.torch_dtype]
    with torch.device("meta"):
        model = KimiVLForConditionalGeneration(checkpoint.config)
    for name, tensor in checkpoint.read(checkpoint.shapes):
        place(model, name, tensor.to(device=device, dtype=stored_dtype(name, dtype)))
    return model.eval()


def place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a tensor where a module has one of this name, be it real or only planned."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())


def save_model(model: KimiVLForConditionalGeneration, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes config and weights in the official layout; an earlier checkpoint there is replaced when all is written.

    Raises: ``ValueError`` if ``folder`` is a file.
    """
    tensors = model.state_dict()
    config = model.config.to_dict() | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
    write_checkpoint(
        KimiVLConfig.from_dict(config),
        folder,
        {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in tensors.items()},
        lambda name: tensors[name],
        shard_bytes=shard_bytes,
    )


def write_random_checkpoint(
    config: KimiVLConfig,
    folder: Path,
    *,
    seed: int,
    shard_bytes: int = SHARD_BYTES,
    shards: int | None = None,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes a checkpoint of random weights, holding one tensor at a time.

    Args:
        shards: stop after this many files; the index still names all of them.
        on_tensor: called with bytes done and bytes in all.
    """
    dtype = DTYPES[config.torch_dtype]
    with torch.device("meta"):
        wanted = KimiVLForConditionalGeneration(config).state_dict()
    specs = {name: TensorSpec(tuple(t.shape), stored_dtype(name, dtype)) for name, t in wanted.items()}

    def draw(name: str) -> Tensor:
        tensor = torch.empty(specs[name].shape, dtype=specs[name].dtype)
        return draw_weight(name, tensor, std=config.text_config.initializer_range, seed=seed)

    write_checkpoint(config, folder, specs, draw, shard_bytes=shard_bytes, shards=shards, on_tensor=on_tensor)


@dataclass(frozen=True)
class TensorSpec:
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_checkpoint(
    config: KimiVLConfig,
    folder: Path,
    specs: Mapping[str, TensorSpec],
    tensor_of: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    shards: int | None = None,
    quantization_config: Mapping[str, Any] | None = None,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes ``config.json``, ``generation_config.json`` and the shards, asking for one tensor at a time."""
    plan = _cut_into_shards(specs, shard_bytes)
    total = sum(spec.nbytes for spec in specs.values())
    files = [f"model-{i:05}-of-{len(plan):05}.safetensors" for i in range(1, len(plan) + 1)]
    if len(plan) == 1:
        files = ["model.safetensors"]
    done = 0
    with replacing_folder(folder) as whole:
        for file, names in list(zip(files, plan, strict=True))[:shards]:
            with (whole / file).open("wb") as out:
                out.write(_header({name: specs[name] for name in names}))
                for name in names:
                    out.write(_raw_bytes(tensor_of(name), specs[name]))
                    done += specs[name].nbytes
                    on_tensor(done, total)
        if len(plan) > 1:
            weight_map = {name: file for file, names in zip(files, plan, strict=True) for name in names}
            _write_json(whole / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        text = config.text_config
        # In every Kimi tokenizer <|im_end|>, which ends a turn, follows [EOS].
        ends = [text.eos_token_id, text.eos_token_id + 1]
        ids = {"bos_token_id": text.bos_token_id, "eos_token_id": ends, "pad_token_id": text.pad_token_id}
        _write_json(whole / "generation_config.json", ids)
        quantization = {} if quantization_config is None else {"quantization_config": quantization_config}
        _write_json(whole / "config.json", config.to_dict() | quantization)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write into. Its files take their place only if nothing went wrong.

    Other files of ``folder`` stay, except weights of an earlier checkpoint.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder to write into")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield whole
        whole.chmod(0o755)
        if folder.is_dir():
            for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
                old.unlink(missing_ok=True)
            for file in whole.iterdir():
                file.replace(folder / file.name)
        else:
            whole.rename(folder)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _cut_into_shards(specs: Mapping[str, TensorSpec], shard_bytes: int) -> list[list[str]]:
    plan: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if plan[-1] and size + spec.nbytes > shard_bytes:
            plan.append([])
            size = 0
        plan[-1].append(name)
        size += spec.nbytes
    return plan


def _header(specs: Mapping[str, TensorSpec]) -> bytes:
    """The library serialises only tensors that are all in memory; the format's head is this much."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, spec in specs.items():
        entries[name] = {
            "dtype": _DTYPE_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, start + spec.nbytes],
        }
        start += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _raw_bytes(tensor: Tensor, spec: TensorSpec) -> memoryview:
    assert tuple(tensor.shape) == spec.shape and tensor.dtype == spec.dtype
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """That of a tensor in a checkpoint of ``dtype``."""
    return torch.float32 if name.endswith("e_score_correction_bias") else dtype


def _locate(folder: Path) -> dict[str, str]:
    """Which file holds each tensor, without what is ignored by name."""
    index = folder / INDEX
    shared: set[str] = set()
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if isinstance(weight_map, dict) and folder.resolve() == NANO_THINKING:
            shared = {name for name, file in weight_map.items() if file == SHARED}
            weight_map = {name: file for name, file in weight_map.items() if name not in shared}
        # A file's name alone: an index from elsewhere never leads out of its folder.
        if not isinstance(weight_map, dict) or not all(map(_is_file_name, weight_map.values())):
            raise ValueError(f"{index} has no weight_map from tensors to files of this folder")
        files = sorted(set(weight_map.values()))
        absent = [file for file in files if not (folder / file).is_file()]
        if absent:
            raise ValueError(f"{folder}: {INDEX} names files that are not there: {_listed(absent)}")
    elif (folder / "model.safetensors").exists():
        files = ["model.safetensors"]
    else:
        files = sorted(file.name for file in folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"{folder} has no *.safetensors file: it holds no checkpoint")
    where = dict.fromkeys(shared, SHARED)
    for file in files:
        with _opened(folder / file) as shard:
            for name in shard.keys():  # noqa: SIM118 — not a dict
                if _IGNORED.search(name):
                    continue
                if name in where:
                    raise ValueError(f"{folder}: {name} is stored twice, in {where[name]} and in {file}")
                where[name] = file
    return where


def _check_names(folder: Path, wanted: set[str], found: set[str]) -> None:
    missing, left_over = sorted(wanted - found), sorted(found - wanted)
    if missing or left_over:
        raise ValueError(
            f"{folder} does not fit its config.json: "
            f"{len(missing)} tensors missing ({_listed(missing)}), "
            f"{len(left_over)} left over ({_listed(left_over)})"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\")


def _by_file(where: Mapping[str, str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for name, file in where.items():
        files.setdefault(file, []).append(name)
    return files


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def read_json(path: Path) -> dict[str, Any]:
    """Raises: ``ValueError`` naming the file if it is missing or holds no JSON object."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: {path.parent} holds no checkpoint") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return raw


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
