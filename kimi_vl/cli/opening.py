"""From options to a processor, a model or a folder to convert, the cheap and likely mistakes first.

The processor's small files are opened before any weight, so that a request can be checked in full while that costs
nothing. Everything raises ``ValueError`` with one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kimi_vl.cli.options import ModelChoice
from kimi_vl.cli.progress import calm_downloads, waiting
from kimi_vl.hub import CONFIG_FILES, PROCESSOR_FILES, WEIGHT_FILES, resolve

if TYPE_CHECKING:
    from kimi_vl.answer import KimiVL
    from kimi_vl.config import KimiVLConfig
    from kimi_vl.engine.engine import Engine
    from kimi_vl.processor import KimiVLProcessor


def whole_folder(name: str, revision: str | None, offline: bool) -> tuple[Path, KimiVLConfig]:
    """Where all files of a checkpoint are, and its architecture."""
    calm_downloads()
    from kimi_vl.checkpoint import read_config

    folder = resolve(name, (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES), revision=revision, offline=offline)
    return folder, read_config(folder)


def open_processor(choice: ModelChoice) -> tuple[KimiVLProcessor, KimiVLConfig, Path]:
    """The tokenizer and picture settings of a model, its architecture, and where they are; no weights."""
    calm_downloads()
    folder = resolve(choice.name, (*CONFIG_FILES, *PROCESSOR_FILES), revision=choice.revision, offline=choice.offline)
    with waiting(f"opening {choice.name}"):
        from kimi_vl.checkpoint import read_config
        from kimi_vl.processor import KimiVLProcessor

        _check_device(choice.device)
        return KimiVLProcessor.from_pretrained(folder), read_config(folder), folder


def open_model(choice: ModelChoice) -> KimiVL | Engine:
    """The weights: of 4 bits with the engine that runs them, else as the exact model."""
    import torch

    from kimi_vl.answer import KimiVL
    from kimi_vl.engine.store import is_quantized

    # apart from the loading: the hub shows its own progress
    folder = resolve(choice.name, (*CONFIG_FILES, *WEIGHT_FILES), revision=choice.revision, offline=choice.offline)
    with waiting(f"loading {choice.name}"):
        if choice.threads is not None:
            torch.set_num_threads(choice.threads)
        if is_quantized(folder):
            from kimi_vl.engine.engine import Engine

            if choice.dtype is not None or choice.device != "cpu":
                raise ValueError(
                    f"{choice.name} has 4-bit weights, which run on the CPU: leave --dtype and --device out"
                )
            return Engine.from_pretrained(folder, threads=choice.threads)
        return KimiVL.from_pretrained(folder, dtype=choice.dtype, device=choice.device)


def _check_device(device: str) -> None:
    import torch

    try:
        # .item() fails on a device that holds no numbers
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(f"--device {device} cannot be used here ({reason}); cpu always can") from error
