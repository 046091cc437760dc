"""Folders ↔ models: nothing changes on the way, nothing is guessed, and nothing of a folder is ever run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kimi_vl import KimiVL, checkpoint
from kimi_vl.checkpoint import (
    TensorSpec,
    load_model,
    replacing_folder,
    save_model,
    write_checkpoint,
    write_random_checkpoint,
)
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from recipes.nano.reasoning.ship import FILE, ship
from tests.conftest import GOLDEN, SMALL_CONFIG, random_model

INDEX = "model.safetensors.index.json"
EMBED = "language_model.model.embed_tokens.weight"
BIAS = "language_model.model.layers.1.mlp.gate.e_score_correction_bias"


def assert_same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(random_model(), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_model(random_model(), tmp_path / "sharded", shard_bytes=300_000)
    return tmp_path / "sharded"


def edit(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrites one safetensors file with the safetensors library."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads(file.read_text())
    change(raw)
    file.write_text(json.dumps(raw))


# --- there and back --------------------------------------------------------------------------------------------


@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    shard_bytes=st.sampled_from([1, 50_000, 300_000, 10**9]),
    seed=st.integers(0, 100),
)
@settings(max_examples=12)
def test_a_loaded_model_is_the_saved_one(dtype: torch.dtype, shard_bytes: int, seed: int) -> None:
    model = random_model(seed, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder), shard_bytes=shard_bytes)
        loaded = load_model(Path(folder))
        assert (Path(folder) / INDEX).exists() == (shard_bytes < 10**9)
    assert loaded.dtype == dtype
    assert loaded.state_dict()[BIAS].dtype == torch.float32
    assert_same_tensors(loaded.state_dict(), model.state_dict())
    assert replace(loaded.config, torch_dtype="float32") == replace(model.config, torch_dtype="float32")
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_safetensors_library_reads_what_we_write(sharded: Path) -> None:
    """The writer is our own, since the library's needs all tensors in memory."""
    index = json.loads((sharded / INDEX).read_text())
    tensors: dict[str, Tensor] = {}
    for file in sorted(sharded.glob("*.safetensors")):
        part = load_file(file)
        assert all(index["weight_map"][name] == file.name for name in part)
        assert not part.keys() & tensors.keys()
        tensors |= part
        with safe_open(file, "pt") as shard:
            assert shard.metadata() == {"format": "pt"}
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0
    assert_same_tensors(tensors, random_model().state_dict())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    count = len(list(sharded.glob("*.safetensors")))
    assert count > 2
    assert set(index["weight_map"].values()) == {f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)}


def test_we_read_what_the_safetensors_library_writes(saved: Path) -> None:
    edit(saved / "model.safetensors", lambda tensors: None)
    assert_same_tensors(load_model(saved).state_dict(), random_model().state_dict())


@pytest.mark.parametrize("name", ["anything.safetensors", "model-00001-of-00001.safetensors"])
def test_files_without_an_index_are_found(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)
    assert_same_tensors(load_model(saved).state_dict(), random_model().state_dict())


def test_another_dtype_in_memory(saved: Path) -> None:
    loaded = load_model(saved, dtype=torch.bfloat16).state_dict()
    for name, tensor in random_model().state_dict().items():
        assert torch.equal(loaded[name], tensor if name.endswith("_bias") else tensor.bfloat16())


def test_the_rotary_table_of_official_files_is_ignored(saved: Path) -> None:
    name = "language_model.model.layers.{}.self_attn.rotary_emb.inv_freq"
    edit(
        saved / "model.safetensors",
        lambda tensors: tensors.update({name.format(i): torch.full((4,), float(i)) for i in range(3)}),
    )
    assert_same_tensors(load_model(saved).state_dict(), random_model().state_dict())


# --- what does not fit -----------------------------------------------------------------------------------------


def test_missing_and_left_over_tensors_are_all_named(saved: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[EMBED], tensors[BIAS]
        tensors["lm_head.weight"] = torch.zeros(2)
        tensors["language_model.lm_head.bias"] = torch.zeros(2)

    edit(saved / "model.safetensors", change)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_model(saved)
    for part in ("2 tensors missing", EMBED, BIAS, "2 left over", "lm_head.weight", "language_model.lm_head.bias"):
        assert part in str(caught.value)


def test_wrong_shapes_are_all_named(saved: Path) -> None:
    edit(
        saved / "model.safetensors",
        lambda tensors: tensors.update({EMBED: tensors[EMBED][:-1].clone(), BIAS: torch.zeros(1)}),
    )
    with pytest.raises(ValueError, match="wrong shapes") as caught:
        load_model(saved)
    assert f"{EMBED} is [63, 64], the config says [64, 64]" in str(caught.value)
    assert f"{BIAS} is [1], the config says [8]" in str(caught.value)


def test_a_tensor_stored_twice_is_refused(sharded: Path) -> None:
    first, second = sorted(sharded.glob("*.safetensors"))[:2]
    tensors = load_file(first)
    name = next(iter(tensors))
    edit(second, lambda others: others.update({name: tensors[name]}))
    with pytest.raises(ValueError, match="stored twice") as caught:
        load_model(sharded)
    assert all(part in str(caught.value) for part in (name, first.name, second.name))


def test_absent_shards_are_named(sharded: Path) -> None:
    files = sorted(sharded.glob("*.safetensors"))
    for file in files[1:]:
        file.unlink()
    with pytest.raises(ValueError, match="not there") as caught:
        load_model(sharded)
    assert all(file.name in str(caught.value) for file in files[1:])
    assert files[0].name not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:20],
        lambda whole: b"",
        lambda whole: whole + b"more",
        lambda whole: b"PK\x03\x04" + whole,
        lambda whole: (2**60).to_bytes(8, "little") + whole[8:],
    ],
)
def test_a_damaged_file_is_named(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(saved)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", r"config\.json cannot be read"),
        ("config.json", "[]", r"config\.json must hold a JSON object"),
        ("config.json", "\xff", r"config\.json cannot be read"),
        ("config.json", '{"model_type": "llava"}', "model_type is 'llava', not 'kimi_vl'"),
        ("config.json", "{}", "model_type is None"),
        ("config.json", '{"model_type": "kimi_vl"}', "text_config and vision_config"),
        (INDEX, "{", "cannot be read"),
        (INDEX, "{}", "has no weight_map"),
        (INDEX, '{"weight_map": {"a": 3}}', "weight_map"),
        (INDEX, '{"weight_map": {"a": ["model.safetensors"]}}', "weight_map"),
        (INDEX, '{"weight_map": {"a": "../model.safetensors"}}', "weight_map"),
    ],
)
def test_broken_json_is_named(saved: Path, file: str, text: str, message: str) -> None:
    (saved.parent / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (saved / file).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        load_model(saved)


def test_a_folder_without_config_or_weights_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors file"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load_model(saved)


# --- writing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_random_checkpoint_is_a_new_model(tmp_path: Path, dtype: str) -> None:
    config = replace(SMALL_CONFIG, torch_dtype=dtype)
    reports: list[tuple[int, int]] = []
    write_random_checkpoint(
        config, tmp_path, seed=5, shard_bytes=100_000, on_tensor=lambda *report: reports.append(report)
    )
    expected = Model(config).to(getattr(torch, dtype))
    expected.init_weights(5)
    loaded = load_model(tmp_path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].to(tensor.dtype), tensor), name
    assert len(reports) == len(expected.state_dict())
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1] == reports[0][1]


def test_only_the_first_shards(tmp_path: Path) -> None:
    write_random_checkpoint(SMALL_CONFIG, tmp_path / "all", seed=0, shard_bytes=300_000)
    write_random_checkpoint(SMALL_CONFIG, tmp_path / "cut", seed=0, shard_bytes=300_000, shards=2)
    whole, cut = contents(tmp_path / "all"), contents(tmp_path / "cut")
    weights = sorted(name for name in whole if name.endswith(".safetensors"))
    assert cut == {name: raw for name, raw in whole.items() if name not in weights[2:]}
    with pytest.raises(ValueError, match=weights[2]):
        load_model(tmp_path / "cut")


# 6 layers of 32 experts: 330 MB in bfloat16, no tensor above 5 MB.
MANY_TENSORS = f"""
from dataclasses import replace
from pathlib import Path
import sys

from kimi_vl.checkpoint import write_random_checkpoint
from kimi_vl.config import KimiVLConfig, MoonViTConfig

small = KimiVLConfig.from_dict({json.loads((GOLDEN / "config.json").read_text())!r})
text = replace(
    small.text_config, hidden_size=512, num_hidden_layers=7, n_routed_experts=32, moe_intermediate_size=512
)
config = replace(small, text_config=text, torch_dtype="bfloat16")

def memory(field):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))

write_random_checkpoint(small, Path(sys.argv[1]) / "small", seed=0)
before = memory("VmRSS")
write_random_checkpoint(config, Path(sys.argv[1]) / "large", seed=0, shard_bytes=10**8)
print((memory("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MANY_TENSORS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    written = sum(file.stat().st_size for file in (tmp_path / "large").iterdir())
    assert written > 3 * 10**8
    assert int(run.stdout) < written / 5


@pytest.mark.parametrize("failure", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_old_checkpoint(saved: Path, failure: BaseException) -> None:
    before, around = contents(saved), sorted(saved.parent.iterdir())
    tensors = random_model(1).state_dict()

    def tensor_of(name: str) -> Tensor:
        if name == BIAS:
            raise failure
        return tensors[name]

    specs = {name: TensorSpec(tuple(t.shape), t.dtype) for name, t in tensors.items()}
    with pytest.raises(type(failure)):
        write_checkpoint(SMALL_CONFIG, saved, specs, tensor_of, shard_bytes=100_000)
    assert contents(saved) == before
    assert sorted(saved.parent.iterdir()) == around


def test_a_new_checkpoint_takes_the_place_of_an_old_one_only(sharded: Path) -> None:
    (sharded / "notes.txt").write_text("mine")
    (sharded / "tiktoken.model").write_bytes(b"ids")
    save_model(random_model(3), sharded)
    names = {"notes.txt", "tiktoken.model", "config.json", "generation_config.json", "model.safetensors"}
    assert set(contents(sharded)) == names
    assert (sharded / "notes.txt").read_text() == "mine"
    assert_same_tensors(load_model(sharded).state_dict(), random_model(3).state_dict())
    save_model(random_model(4), sharded, shard_bytes=300_000)
    assert not (sharded / "model.safetensors").exists()
    assert_same_tensors(load_model(sharded).state_dict(), random_model(4).state_dict())


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "a" / "b") as whole:
        (whole / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ValueError, match="taken is a file"):
        save_model(random_model(), tmp_path / "taken")
    with pytest.raises(ValueError, match="cannot be written"):
        save_model(random_model(), tmp_path / "taken" / "below")
    assert (tmp_path / "taken").read_text() == "x"


def test_both_end_ids_are_written(saved: Path) -> None:
    raw = json.loads((saved / "generation_config.json").read_text())
    assert raw == {"bos_token_id": 60, "eos_token_id": [61, 62], "pad_token_id": 63}


# --- no code ---------------------------------------------------------------------------------------------------


def test_code_in_a_folder_is_never_run(saved: Path) -> None:
    marker = saved / "ran"
    evil = f"open({str(marker)!r}, 'w')\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "__init__.py", "torch.py", "sitecustomize.py"):
        (saved / name).write_text(evil)
    (saved / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    edit_json(
        saved / "config.json",
        lambda raw: raw.update(
            auto_map={"AutoConfig": "configuration_evil.X", "AutoModel": "modeling_evil.X"}, trust_remote_code=True
        ),
    )
    modules = set(sys.modules)
    assert_same_tensors(load_model(saved).state_dict(), random_model().state_dict())
    assert not marker.exists()
    assert not {name for name in set(sys.modules) - modules if "evil" in name}
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no checkpoint"):
        load_model(saved)
    assert not marker.exists()


def test_code_beside_us_is_not_written(saved: Path) -> None:
    assert not list(saved.glob("*.py"))
    raw = json.loads((saved / "config.json").read_text())
    assert all(name.startswith("moonshotai/Kimi-VL-A3B-Instruct--") for name in raw["auto_map"].values())


def test_only_what_ships_with_the_package_may_share_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nano-thinking's index names nano's file for what both have, of which the rest is not looked at."""
    shutil.copytree(NANO, tmp_path / "nano")
    other = KimiVL.from_pretrained("nano").model
    with torch.no_grad():
        other.language_model.lm_head.weight.add_(1)
    save_model(other, tmp_path / "trained")
    folder = tmp_path / "nano_thinking"
    size = ship(tmp_path / "trained", folder)
    assert size < 42e6  # bytes: the head beside all of nano
    with pytest.raises(ValueError, match="has no weight_map from tensors to files of this folder"):
        load_model(folder)
    monkeypatch.setattr(checkpoint, "NANO_THINKING", folder)
    found = load_model(folder)
    for (name, one), wanted in zip(found.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, wanted), name
    assert {path.name for path in checkpoint.files_of(folder)} == {FILE, "model.safetensors"}
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(2)
    save_model(other, tmp_path / "all of it")
    with pytest.raises(ValueError, match="MB together, over 60: share more"):
        ship(tmp_path / "all of it", folder)
    assert load_model(folder) is not None
