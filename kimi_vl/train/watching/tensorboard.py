"""The log's figures for TensorBoard too.

pip install 'kimi-vl[watch]'
kimi-vl train run recipes/nano/joint.toml --tensorboard && tensorboard --logdir .runs
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from kimi_vl.train.watching.log import Listener


@contextlib.contextmanager
def tensorboard_of(run: Path) -> Iterator[Listener]:
    """A listener that writes event files into a run's folder. What is told again after a kill replaces what was told.

    Raises: ``ValueError`` if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard is not installed: pip install 'kimi-vl[watch]', or leave --tensorboard out"
        ) from None
    writer: SummaryWriter | None = None

    def heard(line: Mapping[str, float]) -> None:
        nonlocal writer
        step = int(line["step"])
        if writer is None:
            writer = SummaryWriter(str(run), purge_step=step)
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, step)

    try:
        yield heard
    finally:
        if writer is not None:
            writer.close()
