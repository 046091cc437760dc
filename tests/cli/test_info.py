"""``kimi-vl info``: what a model and a picture take, without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from kimi_vl.config import KimiVLConfig, nano
from tests.cli.conftest import Run


def test_info_of_the_real_model_from_its_config_alone(run: Run, folder: Path) -> None:
    ended = run("info", "a3b", "--size", "1920x1080")
    assert ended.code == 0
    for number in ("15.96 B", "0.417 B", "0.031 B", "2.24 B", "2.91 B", "32.8 GB", "31.1 MB"):
        assert number in ended.out
    assert "released settings" in ended.out
    assert "1920 x 1080 → 1196 x 672 → 86 x 48 patches → 1,032 tokens" in ended.out


def test_info_measures_an_upright_picture(run: Run, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 100)).save("turned.jpg", exif=exif)
    said = json.loads(run("info", "nano", "--json", "--picture", "turned.jpg", "--size", "28x56").out)
    turned, small = said["pictures"]
    assert (turned["name"], turned["size"], turned["h"], turned["w"]) == ("turned.jpg", [100, 400], 50, 14)
    assert (turned["tokens"], small["tokens"]) == (25 * 7, 2 * 4)
    assert said["picture_settings"] == "its preprocessor_config.json"
    assert KimiVLConfig.from_dict(said["config"]) == nano()
    assert said["weight_bytes"]["bfloat16"] == 2 * said["parameters"]["total"]
