"""``kimi-vl train run``: a stage by its recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file.", show_default=False)],
    wishes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="In place of what the recipe says; repeatable."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes that draw samples; one for each idle core, if not given."),
    ] = None,
) -> None:
    """Train one stage, or go on with it; under torchrun with several processes."""
    from kimi_vl.train.recipe import read_recipe

    read = read_recipe(recipe, wishes or [])
    # Sources of one's own lie where one is.
    sys.path.insert(0, "")

    from kimi_vl.train import parallel
    from kimi_vl.train.run import run as train

    folder = train(read, workers=workers)
    if not parallel.rank():
        print(folder)
