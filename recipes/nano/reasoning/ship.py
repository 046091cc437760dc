"""A trained nano-thinking -> the package: only the weights that are not nano's own, which lie beside it.

    python -m recipes.nano.reasoning.ship MODEL

Its index names nano's file for all others, so that what both share is there once.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from kimi_vl.checkpoint import INDEX, SHARED, Checkpoint
from kimi_vl.hub import NANO, NANO_THINKING

FILE = "model-thinking.safetensors"
_MOST = 60e6  # bytes of both models


def ship(model: Path, target: Path) -> int:
    """Writes the folder beside nano's; returns the bytes of both. Raises: ``ValueError`` if they are too many."""
    nano, mine = Checkpoint(NANO), Checkpoint(model)
    if nano.config.to_dict() != mine.config.to_dict():
        raise ValueError(f"{model} has another architecture than nano: nothing could be shared")
    known = dict(nano.read(nano.shapes))
    own = {name: tensor for name, tensor in mine.read(mine.shapes) if not torch.equal(tensor, known[name])}
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(NANO, part, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(own, part / FILE, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in known.values())
    weight_map = {name: FILE if name in own else SHARED for name in sorted(known)}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (part / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for folder in (NANO, part) for path in folder.iterdir())
    if size > _MOST:
        shutil.rmtree(part)
        raise ValueError(
            f"nano and {model} have {size / 1e6:.1f} MB together, over {_MOST / 1e6:.0f}: share more of it"
        )
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    print(f"{ship(args.model, NANO_THINKING) / 1e6:.1f} MB with nano")


if __name__ == "__main__":
    main()
