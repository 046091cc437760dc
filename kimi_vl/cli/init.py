"""``kimi-vl init``: a checkpoint of random weights, to try a machine or to begin a training.

It appears whole or not at all, also when the run is ended from outside.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kimi_vl.cli.disk import check_space
from kimi_vl.cli.info import in_numbers, read_config_file
from kimi_vl.cli.options import Precision
from kimi_vl.cli.progress import counting_bytes
from kimi_vl.config import KimiVLConfig, a3b, nano
from kimi_vl.footprint import footprint, in_bytes

# Headers, index and the router's biases, which are float32 in every checkpoint.
_BESIDE_WEIGHTS = 4 * 10**6


class Preset(StrEnum):
    a3b = "a3b"
    nano = "nano"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.", show_default=False)],
    preset: Annotated[Preset | None, typer.Option("--preset", help="A known architecture.", show_default=False)] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Or that of a config.json.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same weights.")] = 0,
    dtype: Annotated[
        Precision | None,
        typer.Option("--dtype", help="Stored precision; as configured if not given.", show_default=False),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, help="Write the first files only, up to 5 GB each.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that has files.")] = False,
) -> None:
    """Write a checkpoint of random weights."""
    config = _configured(preset, config_file, dtype)
    _check_target(folder, force=force)
    width = 4 if config.torch_dtype == "float32" else 2
    counts = footprint(config)

    from kimi_vl.checkpoint import SHARD_BYTES, replacing_folder, write_random_checkpoint
    from kimi_vl.patches import ImageProcessorConfig

    expected = counts.total * width + _BESIDE_WEIGHTS
    if shards is not None:
        expected = min(expected, shards * SHARD_BYTES + _BESIDE_WEIGHTS)
    check_space(folder, expected, "--shards N for the first files only")
    with ended_by_signals(), replacing_folder(folder) as whole, counting_bytes(f"writing {folder}", expected) as bar:
        write_random_checkpoint(config, whole, seed=seed, shards=shards, on_tensor=lambda done, _: bar(done))
        if preset is Preset.nano:
            from kimi_vl.processor import KimiVLProcessor

            KimiVLProcessor.from_pretrained("nano").save_pretrained(whole)
        else:
            vision = config.vision_config
            settings = ImageProcessorConfig(patch_size=vision.patch_size, merge_kernel_size=vision.merge_kernel_size)
            text = json.dumps(settings.to_dict(), indent=2) + "\n"
            (whole / "preprocessor_config.json").write_text(text, encoding="utf-8")
        written = sum(file.stat().st_size for file in whole.iterdir())
    print(f"{folder}: {in_numbers(counts.total, counts.total)} parameters, {in_bytes(written)}")
    if preset is not Preset.nano and not (folder / "tiktoken.model").exists():
        print(f"kimi-vl: {folder} can answer once tiktoken.model is copied into it", file=sys.stderr)


def _configured(preset: Preset | None, config_file: Path | None, dtype: Precision | None) -> KimiVLConfig:
    if preset is not None and config_file is None:
        config = a3b() if preset is Preset.a3b else nano()
    elif config_file is not None and preset is None:
        config = read_config_file(config_file)
    else:
        raise ValueError(f"give either --preset ({' or '.join(Preset)}) or --config FILE")
    return config if dtype is None else replace(config, torch_dtype=dtype.value)


def _check_target(folder: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder to write")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} has files in it: name another folder, or --force to write over them")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the body as Ctrl-C does, so that it tidies up."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # Windows has no SIGHUP
    numbers = [signal.SIGTERM, *(number for number in signal.Signals if number.name == "SIGHUP")]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
