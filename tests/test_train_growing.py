"""A grown model answers as the one that it was made of, and says what cannot be grown."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from kimi_vl import KimiVLProcessor
from kimi_vl.checkpoint import load_model, read_config, save_model
from kimi_vl.config import nano
from kimi_vl.train.growing import grow
from tests.conftest import random_model
from tests.engines import noise

MESSAGES = [{"role": "user", "content": [{"image": noise(0, 40, 24)}, "What is this?"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano's vocabulary and patches, one dense layer and two of experts."""
    config = nano()
    text = replace(config.text_config, hidden_size=64, num_hidden_layers=3, intermediate_size=64)
    vision = replace(config.vision_config, hidden_size=48, num_hidden_layers=1, intermediate_size=64)
    model = random_model(config=replace(config, text_config=text, vision_config=vision), std=0.1)
    folder = tmp_path_factory.mktemp("small") / "small"
    save_model(model, folder)
    KimiVLProcessor.from_pretrained("nano").save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(folder: Path, image: Image.Image | None = None) -> torch.Tensor:
    messages = MESSAGES if image is None else [{"role": "user", "content": [{"image": image}, "What is this?"]}]
    inputs = KimiVLProcessor.from_pretrained(folder)(messages)
    return load_model(folder)(
        inputs.input_ids,
        [len(inputs.input_ids)],
        pixel_values=inputs.pixel_values,
        image_grid_hws=inputs.image_grid_hws,
    ).logits


@pytest.mark.parametrize("layers", [3, 4, 5])
def test_more_layers_add_nothing_yet(folder: Path, tmp_path: Path, layers: int) -> None:
    config = grow(folder, tmp_path / "deep", layers=layers)
    assert config == read_config(tmp_path / "deep")
    assert config.text_config.num_hidden_layers == layers
    torch.testing.assert_close(logits(tmp_path / "deep"), logits(folder), rtol=0, atol=1e-5)
    weights = load_model(tmp_path / "deep").state_dict()
    for new in range(3, layers):
        layer = f"language_model.model.layers.{new}."
        old = f"language_model.model.layers.{new - layers + 3}."
        assert torch.equal(weights[f"{layer}self_attn.q_proj.weight"], weights[f"{old}self_attn.q_proj.weight"])
        assert not weights[f"{layer}self_attn.o_proj.weight"].any()


def test_smaller_patches_see_what_larger_ones_saw_of_it_enlarged(folder: Path, tmp_path: Path) -> None:
    """Exactly so where the enlarged patches hold what each patch is enlarged to alone."""
    grow(folder, tmp_path / "fine", patch_size=4)
    images = KimiVLProcessor.from_pretrained(tmp_path / "fine").image_config
    assert (images.patch_size, images.in_token_limit) == (4, 4 * 16384)
    small = noise(1, 40, 24)
    large = Image.new("RGB", (80, 48))
    for x in range(0, 40, 4):
        for y in range(0, 24, 4):
            patch = torch.tensor(list(small.crop((x, y, x + 4, y + 4)).tobytes())).view(1, 4, 4, 3).movedim(3, 1)
            grown = torch.nn.functional.interpolate(patch.float(), (8, 8), mode="bicubic", align_corners=False)
            shown = grown[0].movedim(0, 2).round().clamp(0, 255).byte().numpy()
            large.paste(Image.fromarray(shown), (2 * x, 2 * y))
    fine, coarse = logits(tmp_path / "fine", small), logits(folder, large)
    other = logits(folder, noise(2, 80, 48))
    assert fine.shape == coarse.shape
    assert (fine - coarse).norm() < 0.2 * (fine - other).norm()


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"layers": 2}, "layers: from 3, as now, to 5, when every layer of experts is there twice; not 2"),
        ({"layers": 6}, "not 6"),
        ({"patch_size": 0}, "patch_size: from 1 to 8, as now, not 0"),
        ({"patch_size": 9}, "not 9"),
    ],
)
def test_what_cannot_be_grown_is_told(folder: Path, tmp_path: Path, wishes: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        grow(folder, tmp_path / "x", **wishes)
    assert not (tmp_path / "x").exists()


def test_it_is_one_line_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kimi_vl.cli", "train", "grow", str(folder), str(tmp_path / "x"), "--layers", "6"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "layers: from 3, as now, to 5" in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_with_files_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    command = [sys.executable, "-m", "kimi_vl.cli", "train", "grow", str(folder), str(tmp_path), "--layers", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "has files in it" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
