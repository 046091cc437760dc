"""``kimi-vl export``: a checkpoint in 4 bits for vLLM, in the form of compressed-tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.disk import check_space
from kimi_vl.cli.init import ended_by_signals
from kimi_vl.cli.opening import whole_folder
from kimi_vl.cli.progress import counting_bytes
from kimi_vl.cli.quantize import print_report


def export(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder, an alias or a hub id.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.", show_default=False)],
    revision: options.Revision = None,
    offline: options.Offline = False,
) -> None:
    """Write a checkpoint in 4 bits for vLLM (compressed-tensors, W4A16)."""
    folder, config = whole_folder(source, revision, offline)

    from kimi_vl.engine.backend import backend
    from kimi_vl.engine.export import export
    from kimi_vl.footprint import footprint

    text, counts = config.text_config, footprint(config)
    # 4.5 bits, and as they were both tables and the picture side
    kept = 2 * text.vocab_size * text.hidden_size + counts.vision_tower + counts.projector
    check_space(target, counts.language_model * 5 // 8 + 2 * kept)
    with ended_by_signals(), counting_bytes(f"writing {target}", 2 * counts.total) as bar:
        report = export(folder, target, backend(), on_parameters=lambda done, _: bar(2 * done))
    print_report(report)
