"""The form that vLLM reads, read back by a reader of the published format: pack-quantized of compressed-tensors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from kimi_vl.checkpoint import Checkpoint, read_config, write_checkpoint, write_random_checkpoint
from kimi_vl.cli import main
from kimi_vl.config import KimiVLConfig, nano
from kimi_vl.engine import export as exporting
from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine
from kimi_vl.engine.export import export, pack_groups
from kimi_vl.footprint import footprint
from kimi_vl.hub import NANO


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "nano-w4a16"
    export(NANO, folder, backend())
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one dense layer and one of experts, and with little else."""
    text = replace(nano().text_config, num_hidden_layers=2, n_routed_experts=4)
    vision = replace(nano().vision_config, num_hidden_layers=1)
    folder = tmp_path_factory.mktemp("small") / "small"
    write_random_checkpoint(replace(nano(), text_config=text, vision_config=vision), folder, seed=0)
    return folder


def levels(packed: Tensor, columns: int) -> Tensor:
    """-8 … 7: eight columns an int32, each 8 more than its level, the first column in the lowest four bits."""
    assert packed.dtype == torch.int32
    shifts = torch.arange(0, 32, 4)
    return ((packed[..., None] >> shifts & 15).flatten(1) - 8)[:, :columns]


def read_back(tensors: dict[str, Tensor], name: str) -> Tensor:
    scale, (rows, columns) = tensors[f"{name}.weight_scale"], tensors[f"{name}.weight_shape"].tolist()
    assert scale.shape == (rows, columns // 32)
    q = levels(tensors[f"{name}.weight_packed"], columns).float()
    return q * scale.float().repeat_interleave(32, dim=1)


def test_every_matrix_reads_back_near_its_original_and_the_rest_is_as_it_was(folder: Path) -> None:
    source = Checkpoint(NANO)
    original, tensors = dict(source.read(source.shapes)), load_file(folder / "model.safetensors")
    packed = {name.removesuffix("_packed") for name in tensors if name.endswith("weight_packed")}
    text = nano().text_config
    sparse = text.num_hidden_layers - 1
    assert len(packed) == 2 * text.num_hidden_layers + 3 + 3 * sparse * (text.n_routed_experts + 1)
    for name in packed:
        assert tensors[f"{name}_scale"].dtype == original[name].dtype == torch.bfloat16
        found, wanted = read_back(tensors, name.removesuffix(".weight")), original[name].float()
        assert (found - wanted).norm() < 0.085 * wanted.norm(), name
    assert {f"{name}_{part}" for name in packed for part in ("packed", "scale", "shape")} | (
        set(original) - packed
    ) == set(tensors)
    assert all(torch.equal(tensors[name], original[name]) for name in set(original) - packed)


def test_the_config_says_what_is_packed_and_what_is_not(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    assert KimiVLConfig.from_dict(raw) == nano()
    quantization = raw["quantization_config"]
    ignore = quantization.pop("ignore")
    assert quantization == {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 4,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group",
                    "group_size": 32,
                    "dynamic": False,
                },
                "input_activations": None,
                "output_activations": None,
            }
        },
        "kv_cache_scheme": None,
    }
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    for name, shape in Checkpoint(NANO).shapes.items():
        module = name.removesuffix(".weight")
        is_matrix = name.endswith(".weight") and len(shape) == 2
        is_ignored = any(re.match(pattern.removeprefix("re:"), module) for pattern in ignore)
        assert (f"{module}.weight_packed" in names) == (is_matrix and not is_ignored), name


def test_files_for_pictures_and_words_come_along(folder: Path) -> None:
    for name in ("preprocessor_config.json", "tiktoken.model", "tokenizer_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (NANO / name).read_bytes()


def test_each_weight_takes_the_nearest_level() -> None:
    torch.manual_seed(0)
    weights, scale = torch.randn(16, 64), torch.randn(16, 2).bfloat16()
    scale[3, 1] = 0
    packed, kept, loss = pack_groups(weights, scale)
    step = kept.float().repeat_interleave(32, dim=1)
    found = levels(packed, 64) * step
    every = torch.arange(-8, 8)[:, None, None] * step
    assert torch.allclose((found - weights).abs(), (every - weights).abs().amin(0))
    assert loss.squared_error == pytest.approx(float((found - weights).square().sum()), rel=1e-5)


def test_an_export_that_is_ended_leaves_nothing(tmp_path: Path, small: Path) -> None:
    # as a run leaves it that was killed and could not tidy up
    (tmp_path / ".nano.unfinished" / "nano").mkdir(parents=True)
    (tmp_path / ".nano.unfinished" / "nano" / "left.safetensors").write_bytes(b"half")
    seen: list[int] = []

    def end_halfway(done: int, total: int) -> None:
        seen.append(done)
        assert not (tmp_path / "nano").exists()
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(small, tmp_path / "nano", backend(), on_parameters=end_halfway)
    assert len(seen) > 10 and list(tmp_path.iterdir()) == []
    export(small, tmp_path / "nano", backend())
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]
    assert not (tmp_path / "nano" / "left.safetensors").exists()


def test_a_large_checkpoint_is_cut_into_files_with_an_index(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_small_files(*arguments: object, **options: object) -> None:
        write_checkpoint(*arguments, shard_bytes=3 * 10**6, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "write_checkpoint", in_small_files)
    export(small, tmp_path / "cut", backend())
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    held = {name: path.name for path in (tmp_path / "cut").glob("*.safetensors") for name in load_file(path)}
    assert index["weight_map"] == held and len(set(held.values())) > 2


def test_what_is_exported_is_no_source_for_us(folder: Path) -> None:
    with pytest.raises(ValueError, match="is quantised already"):
        Checkpoint(folder)
    with pytest.raises(ValueError, match="quantised in a way that is not known here"):
        Engine.from_pretrained(folder)


def test_sizes_that_form_no_groups_are_refused(tmp_path: Path) -> None:
    text = replace(nano().text_config, moe_intermediate_size=40, num_hidden_layers=1)
    write_random_checkpoint(replace(nano(), text_config=text), tmp_path / "odd", seed=0)
    with pytest.raises(ValueError, match="moe_intermediate_size of 40 forms no groups of 32"):
        export(tmp_path / "odd", tmp_path / "odd4", backend())


def test_the_command_reports_and_refuses(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in (0, 2):
        with pytest.raises(SystemExit) as end:
            main(["export", str(small), str(tmp_path / "new")])
        assert end.value.code == code
    shown = capsys.readouterr()
    assert f"{footprint(read_config(small)).total / 10**6:.2f} M" in shown.out.splitlines()[-1]
    assert "packed" in shown.out and " 4.50 " in shown.out
    assert f"{tmp_path / 'new'} exists: name another folder" in shown.err
