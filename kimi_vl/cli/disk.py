"""Whether what a command is about to write has room."""

from __future__ import annotations

import shutil
from pathlib import Path

from kimi_vl.footprint import in_bytes


def check_space(folder: Path, needed: int, *ways_out: str) -> None:
    """Raises ``ValueError`` with both numbers, and what else there is to do, if the disk is too full."""
    # it is written beside the folder, then moved
    place = folder.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ValueError(
            f"{folder} needs {in_bytes(needed)}, but {in_bytes(free)} are free there: "
            + ", or ".join(("name a place on another disk", *ways_out))
        )
