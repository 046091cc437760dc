"""``kimi-vl bench``: how fast 4-bit weights run on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.info import parse_size
from kimi_vl.cli.progress import calm_downloads, waiting
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.quiet import QUIET
from kimi_vl.footprint import in_bytes
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve

if TYPE_CHECKING:
    from kimi_vl.engine.bench import Figure, Plan
    from kimi_vl.patches import PatchGrid


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder or hub id in 4 bits.", show_default=False)],
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="All cores if not given.", show_default=False)
    ] = None,
    depths: Annotated[
        list[int] | None,
        typer.Option(
            "--depth",
            metavar="TOKENS",
            help="In the context already; repeatable. [default: 0, 4096]",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[int, typer.Option("--prompt", help="Tokens of a prompt.")] = 512,
    answer: Annotated[int, typer.Option("--answer", help="Tokens of an answer.")] = 32,
    requests: Annotated[int, typer.Option("--requests", help="That many at once.")] = 8,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="WxH", help="Of a picture, in pixels; repeatable.", show_default=False),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", help="Times that each is measured.")] = 3,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds to wait each time for others to leave the cores alone.")
    ] = 0.0,
    revision: options.Revision = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Measure how fast a model in 4 bits is here."""
    pictures = [parse_size(text).size for text in sizes or []]
    calm_downloads()
    folder = resolve(model, (*CONFIG_FILES, *WEIGHT_FILES), revision=revision, offline=offline)
    with waiting(f"measuring {model}"):
        import torch

        from kimi_vl.checkpoint import read_config
        from kimi_vl.engine.bench import Plan, figures

        config = read_config(folder)
        grids = _grids(pictures, config)
        plan = Plan((0, 4096) if depths is None else tuple(depths), prompt, answer, requests, grids, repeat, patience)
        _check_context(plan, config)
        if threads is not None:
            torch.set_num_threads(threads)
        found = list(figures(model, plan, revision=revision, offline=offline, threads=threads))
    if as_json:
        rows = [{**asdict(figure), "median": figure.median} for figure in found]
        print(json.dumps({"model": model, "threads": threads or torch.get_num_threads(), "figures": rows}))
        return
    print_figures(found)


def print_figures(figures: Sequence[Figure]) -> None:
    """A line each: the median, and the least and most if it was measured more than once."""
    for figure in figures:
        spread = ""
        if len(figure.values) > 1:
            spread = f"{_shown(min(figure.values), figure.unit)} – {_shown(max(figure.values), figure.unit)}"
        what = f"{figure.name}, {_where(figure)}" if figure.at else figure.name
        if max(figure.others, default=0.0) > QUIET:
            spread += f"  (others used up to {max(figure.others):.0%} of the cores)"
        print(f"{what:40}{_shown(figure.median, figure.unit):>18}    {spread}".rstrip())


def _where(figure: Figure) -> str:
    if not figure.at.isdigit():
        return figure.at
    return f"{int(figure.at):,} requests" if "together" in figure.name else f"depth {int(figure.at):,}"


def _shown(value: float, unit: str) -> str:
    if unit == "bytes":
        return in_bytes(int(value))
    return f"{value:.2f} {unit}" if value < 10 else f"{value:,.1f} {unit}"


def _grids(sizes: Sequence[tuple[int, int]], config: KimiVLConfig) -> tuple[PatchGrid, ...]:
    """Of pictures as large as they are, whatever the limit of the model's own settings."""
    from kimi_vl.patches import ImageProcessorConfig, plan_grid

    vision = config.vision_config
    settings = ImageProcessorConfig(
        patch_size=vision.patch_size, in_token_limit=10**6, merge_kernel_size=vision.merge_kernel_size
    )
    return tuple(plan_grid(width, height, settings) for width, height in sizes)


def _check_context(plan: Plan, config: KimiVLConfig) -> None:
    limit = config.text_config.max_position_embeddings
    if plan.longest > limit:
        raise ValueError(f"depth, prompt and answer come to {plan.longest} tokens, but the context is {limit}")
