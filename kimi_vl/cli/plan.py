"""``kimi-vl plan``: what a model would need on this machine, and what to ask for if that is too much.

From ``config.json`` and ``preprocessor_config.json`` alone; of a 4-bit folder also the sizes of its files. With
``--train`` what a cluster would need to train it: :mod:`kimi_vl.cli.plan_train`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kimi_vl.cli import options, plan_train
from kimi_vl.cli.info import parse_size, picture_settings, read_json
from kimi_vl.cli.progress import calm_downloads
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.fitting import smaller
from kimi_vl.engine.layout import is_quantized, planned_bytes, stored_bytes
from kimi_vl.engine.plan import Demand, Plan, Weights, exact_weights, int4_weights, plan
from kimi_vl.footprint import in_bytes
from kimi_vl.hub import resolve
from kimi_vl.machine import Machine, this_machine
from kimi_vl.patches import plan_grid
from kimi_vl.train.plan.choice import Wanted
from kimi_vl.train.plan.planned import REACHED

_PICTURE_SETTINGS = "preprocessor_config.json"
_ROWS = {
    "weights": "decoder",
    "picture_weights": "MoonViT and projector",
    "cache": "latent cache",
    "features": "pictures that were seen",
    "pixels": "pictures that wait",
    "encoder": "while a picture is seen",
    "step": "while tokens are read",
    "program": "program",
    "peak": "at most at a time",
}


@dataclass(frozen=True)
class Way:
    """One form of the weights to run the model with."""

    weights: Weights
    needed: Plan
    fits: bool
    instead: list[Demand]  # what would fit, if this does not


def plan_memory(
    given: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An alias, a folder or a hub id.", show_default=False)],
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="N",
            min=1,
            help="Tokens of one request, pictures and answer included: 16384; of one sample with --train: 8192.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option("--pictures", metavar="N", min=0, help="Pictures of one request.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="WxH", help="Of each picture, in pixels; the largest if not given.", show_default=False
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Requests at once.")] = 1,
    train: Annotated[bool, typer.Option("--train", help="Plan training on a cluster.")] = False,
    devices: plan_train.Devices = 8,
    device: plan_train.Device = plan_train.Kind.h100,
    tokens: plan_train.Tokens = 2**22,
    picture_share: plan_train.PictureShare = 0.0,
    reached: plan_train.Reached = REACHED,
    stage_tokens: plan_train.StageTokens = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Show what memory a model needs, and whether this machine has it; or how a cluster could train it."""
    plan_train.check_options(given, train=train)
    size_given = None if size is None else parse_size(size).size
    calm_downloads()
    folder = resolve(model, ("config.json", _PICTURE_SETTINGS), revision=revision, offline=offline)
    raw = read_json(folder / "config.json")
    config = KimiVLConfig.from_dict(raw)
    settings, _ = picture_settings(folder / _PICTURE_SETTINGS)
    side = math.isqrt(settings.in_token_limit) * settings.patch_size
    in_pixels = size_given or (side, side)
    if train:
        asked = Wanted(
            devices=devices,
            kind=device.value,
            tokens=tokens,
            length=context or 8192,
            picture_share=picture_share,
            picture_tokens=plan_grid(*in_pixels, settings).tokens,
            reached=reached,
        )
        plan_train.plan_training(model, config, asked, stage_tokens=stage_tokens, as_json=as_json)
        return
    demand = Demand(
        context=context or 16384,
        batch=batch,
        pictures=(0 if size_given is None else 1) if pictures is None else pictures,
        size=in_pixels,
        settings=settings,
    )
    machine = this_machine()
    ways = [_way(config, weights, demand, machine) for weights in _forms(folder, raw, config)]
    if as_json:
        print(json.dumps(_as_dict(model, demand, machine, ways), ensure_ascii=False))
        return
    print(f"{model}: {_demanded(demand)}\n")
    print("\n".join(_table(ways)))
    print(f"\nthis machine: {_free(machine)}, {machine.cores} cores")
    for way in ways:
        print(f"{way.weights.form}: {_verdict(way, demand, machine, ways)}")


def _forms(folder: Path, raw: dict[str, Any], config: KimiVLConfig) -> list[Weights]:
    """Those in which the model is here, or could be."""
    if is_quantized(raw, folder):
        return [int4_weights(stored_bytes(folder, config))]
    int4 = int4_weights(planned_bytes(config))
    return [int4, *(exact_weights(config, form) for form in ("bfloat16", "float32"))]


def _way(config: KimiVLConfig, weights: Weights, demand: Demand, machine: Machine) -> Way:
    def fits(other: Demand) -> bool:
        return machine.holds(plan(config, weights, other).peak)

    needed = plan(config, weights, demand)
    enough = machine.holds(needed.peak)
    return Way(weights, needed, enough, [] if enough else smaller(demand, fits))


def _demanded(demand: Demand) -> str:
    pictures, grid = "", demand.grid
    if demand.pictures:
        width, height = demand.size
        pictures = f" with {demand.pictures} of {width} x {height} pixels, {grid.tokens:,} tokens each"
    return f"{demand.batch} at once, each of {demand.context:,} tokens{pictures}"


def _table(ways: list[Way]) -> list[str]:
    label = max(len(text) for text in _ROWS.values())
    lines = [" " * (label + 2) + "".join(f"{way.weights.form:>12}" for way in ways)]
    for name, text in _ROWS.items():
        lines.append(f"  {text:{label}}" + "".join(f"{in_bytes(getattr(way.needed, name)):>12}" for way in ways))
    return lines


def _free(machine: Machine) -> str:
    if machine.available is None or machine.memory is None:
        return "does not say what memory it has"
    return f"{in_bytes(machine.available)} of {in_bytes(machine.memory)} free"


def _verdict(way: Way, demand: Demand, machine: Machine, ways: list[Way]) -> str:
    if machine.available is None:
        return "may fit"
    if way.fits:
        return f"fits, with {in_bytes(machine.available - way.needed.peak)} to spare"
    ways_out = [_changed(other, demand) for other in way.instead]
    if any(other.fits and other.weights.form == "int4" for other in ways):
        ways_out.append("4 bits (kimi-vl quantize)")
    lacking = f"does not fit, {in_bytes(way.needed.peak - machine.available)} are missing"
    return f"{lacking}: {', or '.join(ways_out) or 'nothing smaller fits either'}"


def _changed(other: Demand, demand: Demand) -> str:
    """The options that differ."""
    parts = [
        f"--{name} {getattr(other, name)}"
        for name in ("batch", "context", "pictures")
        if getattr(other, name) != getattr(demand, name)
    ]
    if other.size != demand.size:
        parts.append(f"--size {other.size[0]}x{other.size[1]}")
    return " ".join(parts)


def _as_dict(model: str, demand: Demand, machine: Machine, ways: list[Way]) -> dict[str, Any]:
    return {
        "model": model,
        "demand": _demand_as_dict(demand),
        "machine": asdict(machine),
        "ways": [
            {
                "weights": way.weights.form,
                "bytes": {**asdict(way.needed), "peak": way.needed.peak},
                "fits": way.fits,
                "instead": [_demand_as_dict(other) for other in way.instead],
            }
            for way in ways
        ],
    }


def _demand_as_dict(demand: Demand) -> dict[str, Any]:
    pictures = {"pictures": demand.pictures, "size": demand.size, "tokens_per_picture": demand.grid.tokens}
    return {"context": demand.context, "batch": demand.batch, **pictures}
