"""``kimi-vl train``: ``run`` a stage by its recipe, ``report`` a page to watch, ``grow`` a model to go on with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kimi_vl.train.recipe import RunRecipe
    from kimi_vl.train.watching.log import Listener

_EVERY = 5.0  # seconds
_TOLD = ("text", "caption", "siglip", "reading", "reward", "right", "length")


def _teller(steps: int) -> Callable[[Mapping[str, float]], None]:
    """Tells on stderr how far it is, now and then."""
    last = float("-inf")

    def tell(line: Mapping[str, float]) -> None:
        nonlocal last
        done = line["step"] == steps
        if time.monotonic() - last < _EVERY and not done:
            return
        last = time.monotonic()
        parts = [f"{name} {line[name]:.3f}" for name in _TOLD if name in line]
        left = timedelta(seconds=round(line["seconds_left"]))
        speed = f"{line['samples_per_second']:.0f} samples/s, {line['tokens_per_second']:.0f} tokens/s"
        print(
            f"step {line['step']:.0f} of {steps}: {', '.join(parts)}; {speed}, {line['gigabytes']:.1f} GB, {left} left",
            file=sys.stderr,
        )

    return tell


def _done(run: Path) -> int:
    from kimi_vl.train.state import stored_in

    stored = stored_in(run)
    return 0 if stored is None else stored.progress.step


def _runner(path: Path, wishes: Sequence[str], workers: int | None) -> tuple[RunRecipe, Callable[[Listener], Path]]:
    """The recipe of a file, and what runs it."""
    from kimi_vl.train.rl.recipe import STAGE, read_rl_recipe
    from kimi_vl.train.tables import read_tables

    if read_tables(path, wishes).get("stage") == STAGE:
        answering = read_rl_recipe(path, wishes)
        from kimi_vl.train.rl.run import run as run_rl

        return answering, lambda listener: run_rl(answering, listener=listener)
    from kimi_vl.train.recipe import read_recipe

    read = read_recipe(path, wishes)
    from kimi_vl.train.run import run as run_stage

    return read, lambda listener: run_stage(read, workers=workers, listener=listener)


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
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Keep the figures for TensorBoard too.")] = False,
) -> None:
    """Train one stage, or go on with it; under torchrun with several processes."""
    read, train = _runner(recipe, wishes or [], workers)
    # Sources of one's own lie where one is.
    sys.path.insert(0, "")

    from kimi_vl.train import parallel

    listeners = [_teller(read.steps)]
    with ExitStack() as stack:
        if tensorboard:
            from kimi_vl.train.watching.tensorboard import tensorboard_of

            listeners.append(stack.enter_context(tensorboard_of(Path(read.run))))

        def tell(line: Mapping[str, float]) -> None:
            for listener in listeners:
                listener(line)

        try:
            folder = train(tell)
        except KeyboardInterrupt:
            if not parallel.rank():
                print(
                    f"stopped after step {_done(Path(read.run))}: the same command goes on from there", file=sys.stderr
                )
            raise
    if not parallel.rank():
        print(folder)
    parallel.leave()


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or of several.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write; RUN/report.html if not given.", show_default=False),
    ] = None,
) -> None:
    """Write a page that shows how training goes, and print its path."""
    from kimi_vl.train.watching.report import report as write

    target = run / "report.html" if out is None else out
    write(run, target)
    print(target)


def grow(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, an alias or a hub id.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write.", show_default=False)],
    layers: Annotated[
        int | None, typer.Option("--layers", metavar="N", help="Layers of the decoder, as many or more.")
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option("--patch-size", metavar="PIXELS", help="Of MoonViT's patches, as large or smaller.")
    ] = None,
) -> None:
    """Write a model with more layers or smaller patches that answers as it did, for a stage to start from."""
    from kimi_vl.hub import CONFIG_FILES, PROCESSOR_FILES, WEIGHT_FILES, resolve
    from kimi_vl.train.growing import grow as write

    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} has files in it: name another folder")
    write(
        resolve(model, (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES)), folder, layers=layers, patch_size=patch_size
    )
    print(folder)
