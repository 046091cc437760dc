"""``kimi-vl plan --train``: which layouts a cluster could train a model with, from its ``config.json`` alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from kimi_vl.config import KimiVLConfig
from kimi_vl.footprint import in_bytes
from kimi_vl.train.plan.choice import ROOM, Wanted, fits, instead, ways
from kimi_vl.train.plan.devices import LINKS_REACHED
from kimi_vl.train.plan.planned import Plan

SHOWN = 10


class Kind(StrEnum):
    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


Devices = Annotated[int, typer.Option("--devices", metavar="N", min=1, help="With --train: how many.")]
Device = Annotated[Kind, typer.Option("--device", help="With --train: what each is.")]
Tokens = Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="With --train: of a step, over all devices.")]
PictureShare = Annotated[
    float, typer.Option("--picture-share", metavar="SHARE", help="With --train: of the tokens, those of pictures.")
]
Reached = Annotated[
    float, typer.Option("--reached", metavar="SHARE", help="With --train: of a device's peak; an assumption.")
]
StageTokens = Annotated[
    float | None,
    typer.Option("--stage-tokens", metavar="N", help="With --train: of all steps, to tell days.", show_default=False),
]

_TRAINING = {
    "devices": "--devices",
    "device": "--device",
    "tokens": "--tokens",
    "picture_share": "--picture-share",
    "reached": "--reached",
    "stage_tokens": "--stage-tokens",
}
_RUNNING = {"batch": "--batch", "pictures": "--pictures"}
# Columns are the recipe's keys, where it has them.
_COLUMNS = (
    *("context_parallel", "expert_parallel", "recompute", "pieces", "batch_size"),
    *("memory", "step", "tokens/s"),
)
_MEMORY = {
    "weights": "weights, float32",
    "moments": "momentum and moments",
    "gradients": "gradients",
    "root": "embeddings, head and others, whole",
    "layers": "layers that are whole at a time",
    "activations": "activations",
    "working": "while a layer goes backwards",
    "logits": "logits",
    "muon": "Muon's exchange",
    "peak": "at most at a time",
}
_SECONDS = {
    "compute": "forward and backward",
    "weights": "weights and gradients, meanwhile",
    "experts": "places to experts and back",
    "context": "context",
    "muon_exchange": "Muon's exchange",
    "muon_compute": "Muon's products",
    "total": "step",
}


def is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_options(context: typer.Context, *, train: bool) -> None:
    """Raises: ``ValueError`` for an option of the other kind of plan."""
    for name, option in (_RUNNING if train else _TRAINING).items():
        if is_given(context, name):
            raise ValueError(f"{option} says nothing {'with' if train else 'without'} --train: leave it out")


def plan_training(
    model: str, config: KimiVLConfig, wanted: Wanted, *, stage_tokens: float | None, as_json: bool
) -> None:
    """Prints the ways that fit, fastest first, or what would."""
    limit = config.text_config.max_position_embeddings
    if wanted.length > limit:
        raise ValueError(f"a context of {wanted.length:,} tokens is more than the {limit:,} that the model knows")
    if stage_tokens is not None and not 0 < stage_tokens < math.inf:
        raise ValueError(f"--stage-tokens must be a number above 0, not {stage_tokens:g}")
    found = ways(config, wanted)
    fitting = [one for one in found if fits(one, wanted.device)]
    others = [] if fitting else instead(config, wanted)
    if as_json:
        print(json.dumps(_as_dict(model, wanted, found, others, stage_tokens), ensure_ascii=False))
        return
    print("\n".join(_asked(model, wanted)))
    print("\n".join(_table(fitting or found[:1])))
    if not fitting:
        print(f"\n{_lacking(found[0], wanted, others)}")
    else:
        print(f"\n{len(fitting)} of {len(found)} ways fit; the first of them, of one device and a step:")
    print("\n".join(_breakdown(found[0])))
    if stage_tokens is not None:
        print(f"\n{stage_tokens:,.0f} tokens take {found[0].days(stage_tokens):,.1f} days")


def _asked(model: str, wanted: Wanted) -> list[str]:
    nodes = f"{wanted.device.of_node} a node" if wanted.devices > wanted.device.of_node else "one node"
    pictures = f", {wanted.picture_share:.0%} of them of pictures" if wanted.picture_share else ""
    return [
        f"{model} on {wanted.devices} {wanted.kind} of {in_bytes(wanted.device.memory)}, {nodes}: "
        f"steps of {wanted.tokens:,} tokens in samples of {wanted.length:,}{pictures}",
        f"assumed: {wanted.reached:.0%} of the peak is reached, {LINKS_REACHED:.0%} of the links' bandwidth, "
        f"{ROOM:.0%} of the memory is for tensors\n",
    ]


def _table(found: Sequence[Plan]) -> list[str]:
    rows = [_COLUMNS, *map(_row, found[:SHOWN])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _row(one: Plan) -> tuple[str, ...]:
    return (
        str(one.layout.context_parallel),
        str(one.layout.expert_parallel),
        one.recompute,
        str(one.pieces),
        str(one.step.samples),
        in_bytes(one.memory.peak),
        f"{one.seconds.total:.2f} s",
        f"{one.tokens_per_second:,.0f}",
    )


def _lacking(least: Plan, wanted: Wanted, others: Sequence[Wanted]) -> str:
    missing = least.memory.peak - int(ROOM * wanted.device.memory)
    changed = [
        f"{option} {getattr(other, name)}"
        for other in others
        for name, option in (("devices", "--devices"), ("kind", "--device"), ("length", "--context"))
        if getattr(other, name) != getattr(wanted, name)
    ]
    ways_out = f"try {', or '.join(changed)}" if changed else "neither more, larger devices nor shorter samples help"
    return f"nothing fits: this needs least, and {in_bytes(missing)} are missing; {ways_out}"


def _breakdown(one: Plan) -> list[str]:
    sent = _sent(one)
    width = max(map(len, (*_MEMORY.values(), *_SECONDS.values())))
    memory = [f"  {text:{width}}{in_bytes(getattr(one.memory, name)):>12}" for name, text in _MEMORY.items()]
    # What travels when, beside the time that it takes.
    kinds = {"weights": sent["weights"] + sent["gradients"], "muon_exchange": sent["muon"]}
    kinds |= {"experts": sent["experts"], "context": sent["context"]}
    time = []
    for name, text in _SECONDS.items():
        beside = f"  {in_bytes(round(kinds[name]))} sent" if kinds.get(name) else ""
        if name == "compute":
            beside = f"  {one.work.total / 1e15:.2f} PFLOP"
        time.append(f"  {text:{width}}{getattr(one.seconds, name):>10.2f} s{beside}")
    return ["", *memory, "", *time]


def _sent(one: Plan) -> dict[str, float]:
    kinds = ("weights", "gradients", "experts", "context", "muon")
    return {kind: sum(transfer.sent for transfer in one.transfers if transfer.kind == kind) for kind in kinds}


def _as_dict(
    model: str, wanted: Wanted, found: Sequence[Plan], others: Sequence[Wanted], stage_tokens: float | None
) -> dict[str, Any]:
    return {
        "model": model,
        "wanted": asdict(wanted),
        "device": asdict(wanted.device),
        "ways": [
            {
                "context_parallel": one.layout.context_parallel,
                "expert_parallel": one.layout.expert_parallel,
                "recompute": one.recompute,
                "pieces": one.pieces,
                "batch_size": one.step.samples,
                "fits": fits(one, wanted.device),
                "bytes": {name: getattr(one.memory, name) for name in _MEMORY},
                "seconds": {name: getattr(one.seconds, name) for name in _SECONDS},
                "operations": one.work.total,
                "sent": _sent(one),
                "tokens_per_second": one.tokens_per_second,
                "days": None if stage_tokens is None else one.days(stage_tokens),
            }
            for one in found
        ],
        "instead": [asdict(other) for other in others],
    }
