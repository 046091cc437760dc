"""Training speed of nano's architecture beside the same assembled from transformers, on the same samples.

    python benchmarks/training.py --json training.json

The samples are drawn from the mixture with which nano's joint stage ends, so `recipes.nano.fetch` comes first. Ours
packs them into one row; what transformers gives pads them in eight groups, as they were drawn and sorted by length, and
has two towers to choose from; see ``peers/training_by_transformers.py``. It has an environment of its own, with the
newest transformers and the torch that we have (pip must know where that build comes from). A step is forward, backward
and optimizer; every value comes from a process of its own, in turn, after a step that warms up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

import torch
from peers.figures import Figure, as_json, table
from peers.training_step import Measured, save_samples

from kimi_vl.precision import fast_dtype
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.recipe import read_recipe

_ROOT = Path(__file__).parents[1]
_HERE = Path(__file__).parent / "peers"
_CPU = torch.device("cpu")
_NANO = _ROOT / "recipes" / "nano"
_SEED = 1  # of no stage
# Padded at once, 64 samples would take more memory than most machines with two cores have.
_GROUPS = 8
# Freed memory is kept, for everyone: else every large tensor is paged in anew, which doubles the time of a step.
_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_TOP_PAD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "33554432"}


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / "samples.safetensors"
    save_samples(_drawn(options.samples), file)
    config = (_NANO / "config.json").read_text(encoding="utf-8")
    even = math.log(json.loads(config)["text_config"]["vocab_size"])
    peer = [_environment(options.work), _HERE / "training_by_transformers.py"]
    contenders: dict[str, list[str | Path]] = {
        "ours": [sys.executable, _HERE / "training_ours.py"],
        "padded as drawn": [*peer, "--tower", "siglip2", "--groups", str(_GROUPS)],
        "padded by length": [*peer, "--tower", "siglip2", "--groups", str(_GROUPS), "--sorted"],
        "its own MoonViT, by length": [*peer, "--tower", "kimi_k25", "--groups", str(_GROUPS), "--sorted"],
    }
    dtypes = dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in (torch.float32, fast_dtype(_CPU)))
    found: dict[str, list[Figure]] = {name: [] for name in contenders}
    real: int | None = None
    for number in range(options.rounds):
        for dtype in dtypes:
            for name, command in contenders.items():
                measured = _measured([*command, file, config], dtype, options)
                real = real or measured.places  # ours, which pads nothing
                print(
                    f"round {number + 1} of {options.rounds}, {dtype}, {name}: {_told(measured, real, even)}",
                    flush=True,
                )
                found[name] += _figures(measured, dtype, options.samples, real)
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=64, help="of a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="that are timed in each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kimi-vl-training")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for others to leave the cores")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _drawn(count: int) -> list[Sample]:
    recipe = read_recipe(_NANO / "cooldown.toml")  # the mixture with which the joint stage ends
    sources = [Source(source.name, source.weight, _function(source.draw or "")) for source in recipe.sources]
    data = Mixture(sources, seed=_SEED, batch_size=count)
    return [data.sample(index) for index in range(count)]


def _function(name: str) -> Callable[[int, int], Sample]:
    module, _, function = name.partition(":")
    found: Callable[[int, int], Sample] = getattr(importlib.import_module(module), function)
    return found


def _environment(work: Path) -> Path:
    python = work / "transformers" / "bin" / "python"
    if not python.exists():
        venv.create(work / "transformers", with_pip=True)
    wanted = [f"torch=={torch.__version__}", "transformers", "safetensors", "numpy"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def _measured(command: list[str | Path], dtype: str, options: argparse.Namespace) -> Measured:
    settings = ["--dtype", dtype, "--threads", str(options.threads)]
    settings += ["--steps", str(options.steps), "--patience", str(options.patience)]
    around = os.environ | _MEMORY | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": str(options.threads)}
    lines = subprocess.run([*command, *settings], check=True, stdout=subprocess.PIPE, text=True, env=around).stdout
    return Measured(**json.loads(lines.splitlines()[-1]))


def _told(measured: Measured, real: int, even: float) -> str:
    """What must agree for the comparison to be one."""
    return (
        f"loss {measured.loss:.4f} at the start (ln V {even:.4f}), "
        f"{measured.parameters:,} parameters, {measured.places:,} tokens and patches ({measured.places / real:.2f} of "
        f"those that are there), {', '.join(f'{seconds:.2f}' for seconds in measured.seconds)} s a step"
    )


def _figures(measured: Measured, dtype: str, samples: int, real: int) -> list[Figure]:
    """Padding is no work that anybody wanted, so it does not count."""
    return [
        Figure("samples", dtype, "/s", [samples / seconds for seconds in measured.seconds], measured.others),
        Figure("tokens and patches", dtype, "/s", [real / seconds for seconds in measured.seconds], measured.others),
        Figure("peak memory", dtype, "bytes", [float(measured.peak)], []),
    ]


if __name__ == "__main__":
    main()
