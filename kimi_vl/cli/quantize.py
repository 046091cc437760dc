"""``kimi-vl quantize``: a checkpoint in 4 bits, for the engine that runs it on the CPU.

What an ended run had finished is taken up by the next one; the folder itself appears when all is written. Answers are
compared with the original's after that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.disk import check_space
from kimi_vl.cli.info import in_numbers
from kimi_vl.cli.opening import whole_folder
from kimi_vl.cli.progress import counting_bytes, waiting
from kimi_vl.footprint import in_bytes

if TYPE_CHECKING:
    from kimi_vl.config import KimiVLConfig
    from kimi_vl.engine.agreement import Agreement
    from kimi_vl.engine.quantize import Report


def quantize(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder, an alias or a hub id.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.", show_default=False)],
    checks: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Compare answers on a text, a picture or messages (.json) with the original's; repeatable. "
            "If DST is there already, this is all that is done.",
            show_default=False,
        ),
    ] = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
) -> None:
    """Write a checkpoint in 4 bits."""
    folder, config = whole_folder(source, revision, offline)

    from kimi_vl.checkpoint import Checkpoint
    from kimi_vl.engine.backend import backend
    from kimi_vl.engine.quantize import quantize, read_reports, write_report
    from kimi_vl.footprint import footprint

    prompts = []
    if checks:
        from kimi_vl.engine.agreement import compare, read_prompts
        from kimi_vl.processor import KimiVLProcessor

        prompts = read_prompts(checks, KimiVLProcessor.from_pretrained(folder), config)
    if not (prompts and _is_of(target, config)):
        counts = footprint(config)
        # 4.25 bits, twice of that for two tables, and scales
        check_space(target, counts.language_model * 5 // 8 + 2 * (counts.vision_tower + counts.projector))
        with counting_bytes(f"writing {target}", 2 * counts.total) as bar:
            quantize(folder, target, backend(), on_parameters=lambda done, _: bar(2 * done))
    report = read_reports(target, config)
    print_report(report)
    if prompts:
        with waiting("comparing answers"):
            agreements = compare(Checkpoint(folder), target, prompts, backend())
        write_report(target, report, agreements)
        print_agreements(agreements)


def _is_of(target: Path, config: KimiVLConfig) -> bool:
    """Whether this is a model's folder of 4 bits already."""
    from kimi_vl.checkpoint import read_config
    from kimi_vl.engine.store import is_quantized

    if not (target / "config.json").exists() or not is_quantized(target):
        return False
    if read_config(target) != config:
        raise ValueError(f"{target} is of another model: name another folder")
    return True


def print_report(report: Report) -> None:
    """One line for each kind of tensor, then all together."""
    width = max(len(name) for name in report) + 2
    print(f"{'':{width}}{'parameters':>12}{'bytes':>12}{'bits':>8}{'relative error':>16}")
    for name, kind in report.items():
        error = f"{kind.loss.relative:.4f}" if kind.loss.squared else "-"
        numbers = in_numbers(kind.parameters, kind.parameters)
        print(f"{name:{width}}{numbers:>12}{in_bytes(kind.bytes):>12}{kind.bits:>8.2f}{error:>16}")
    parameters = sum(kind.parameters for kind in report.values())
    size = sum(kind.bytes for kind in report.values())
    numbers = in_numbers(parameters, parameters)
    print(f"{'together':{width}}{numbers:>12}{in_bytes(size):>12}{8 * size / parameters:>8.2f}")


def print_agreements(agreements: list[Agreement]) -> None:
    """One line for each prompt, then all together."""
    width = max(28, *(len(part.prompt) + 2 for part in agreements))
    print(f"\n{'against the original':{width}}{'tokens':>8}{'KL, nats':>12}{'99 % below':>12}{'same choice':>13}")
    for part in agreements:
        kl = f"{part.kl_mean:>12.4f}{part.kl_99:>12.4f}"
        print(f"{part.prompt:{width}}{part.tokens:>8,}{kl}{100 * part.top1:>11.1f} %")
