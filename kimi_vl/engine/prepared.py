"""Small models in 4 bits without being asked: nano is quantised when it is first served, in seconds, and kept.

In: a checkpoint's folder. Out: a folder in 4 bits, the same one if it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from kimi_vl.checkpoint import files_of
from kimi_vl.engine.backend import backend
from kimi_vl.engine.layout import VERSION
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.store import is_quantized

_SMALL = 256 * 2**20  # bytes of weights, which take some seconds


def in_four_bits(folder: Path) -> Path:
    """Raises: ``ValueError`` if it is none and too large for this; says how to make one."""
    if is_quantized(folder):
        return folder
    weights = files_of(folder)
    if sum(path.stat().st_size for path in weights) > _SMALL:
        raise ValueError(f"{folder} is not in 4 bits: run kimi-vl quantize {folder} DST, and name DST instead")
    target = _cache() / f"{folder.name}-{_digest([*weights, *sorted(folder.glob('*.json'))])}"
    if not target.exists():
        _make(folder, target)
    return target


def _make(folder: Path, target: Path) -> None:
    """Beside the target first: another process may be at the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        quantize(folder, work / "model", backend())
        try:
            (work / "model").rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _cache() -> Path:
    """Where what can be made again is kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "kimi-vl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    return folder if writable else Path(tempfile.mkdtemp(prefix="kimi-vl."))


def _digest(files: list[Path]) -> str:
    digest = hashlib.blake2b(f"version {VERSION}".encode(), digest_size=16)
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
