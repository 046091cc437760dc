"""``kimi-vl quantize``: a checkpoint in 4 bits, for the engine that runs it on the CPU.

What an ended run had finished is taken up by the next one; the folder itself appears when all is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.disk import check_space
from kimi_vl.cli.info import in_numbers
from kimi_vl.cli.progress import calm_downloads, counting_bytes
from kimi_vl.footprint import in_bytes

if TYPE_CHECKING:
    from kimi_vl.engine.quantize import Report


def quantize(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder, an alias or a hub id.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.", show_default=False)],
    revision: options.Revision = None,
    offline: options.Offline = False,
) -> None:
    """Write a checkpoint in 4 bits."""
    calm_downloads()

    from kimi_vl.checkpoint import read_config
    from kimi_vl.engine.backend import backend
    from kimi_vl.engine.quantize import quantize
    from kimi_vl.footprint import footprint
    from kimi_vl.hub import CONFIG_FILES, PROCESSOR_FILES, WEIGHT_FILES, resolve

    folder = resolve(source, (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES), revision=revision, offline=offline)
    counts = footprint(read_config(folder))
    # 4.25 bits, twice of that for two tables, and scales
    check_space(target, counts.language_model * 5 // 8 + 2 * (counts.vision_tower + counts.projector))
    with counting_bytes(f"writing {target}", 2 * counts.total) as bar:
        report = quantize(folder, target, backend(), on_parameters=lambda done, _: bar(2 * done))
    print_report(report)


def print_report(report: Report) -> None:
    """One line for each kind of tensor, then all together."""
    print(f"{'':28}{'parameters':>12}{'bytes':>12}{'bits':>8}{'relative error':>16}")
    for name, kind in report.items():
        error = f"{kind.loss.relative:.4f}" if kind.loss.squared else "-"
        numbers = in_numbers(kind.parameters, kind.parameters)
        print(f"{name:28}{numbers:>12}{in_bytes(kind.bytes):>12}{kind.bits:>8.2f}{error:>16}")
    parameters = sum(kind.parameters for kind in report.values())
    size = sum(kind.bytes for kind in report.values())
    print(f"{'together':28}{in_numbers(parameters, parameters):>12}{in_bytes(size):>12}{8 * size / parameters:>8.2f}")
