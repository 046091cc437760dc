"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class ModelChoice:
    """Which model, from where, and how it is held."""

    name: str
    revision: str | None
    offline: bool
    dtype: Precision | None
    device: str


Model = Annotated[
    str, typer.Option("--model", "-m", help="nano, instruct, thinking, thinking-2506, a folder or a hub id.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Dtype = Annotated[
    Precision | None, typer.Option("--dtype", help="Precision in memory; as stored if not given.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, …")]
System = Annotated[str | None, typer.Option("--system", help="What the model is told beforehand.", show_default=False)]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", help="Longest answer.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token every time.")]
TopP = Annotated[float, typer.Option("--top-p", help="Draw from the likeliest tokens of this mass.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes a draw repeatable.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
