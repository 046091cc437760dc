"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
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
    threads: int | None


Model = Annotated[
    str,
    typer.Option("--model", "-m", help="nano, nano-thinking, instruct, thinking, thinking-2506, a folder or a hub id."),
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Dtype = Annotated[
    Precision | None, typer.Option("--dtype", help="Precision in memory; as stored if not given.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, …")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads to compute with; as torch has, if not given.", show_default=False),
]
System = Annotated[str | None, typer.Option("--system", help="What the model is told beforehand.", show_default=False)]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens", help="Longest answer; 512, or 8,192 with a thought, if not given.", show_default=False
    ),
]
Thinks = Annotated[
    bool | None,
    typer.Option(
        "--thinking/--no-thinking", help="Whether the model thinks first; by its name if not given.", show_default=False
    ),
]
ThinkingBudget = Annotated[
    int | None, typer.Option("--thinking-budget", min=0, help="Most tokens of a thought.", show_default=False)
]
ShowThought = Annotated[bool, typer.Option("--show-thought", help="Write the whole thought, to stderr.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token every time.")]
TopP = Annotated[float, typer.Option("--top-p", help="Draw from the likeliest tokens of this mass.")]
TopK = Annotated[int, typer.Option("--top-k", help="Draw from so many of the likeliest tokens; 0 is all.")]
MinP = Annotated[
    float, typer.Option("--min-p", help="Draw from tokens at least so likely, as a share of the likeliest.")
]
RepetitionPenalty = Annotated[
    float, typer.Option("--repetition-penalty", help="Above 1, against tokens of prompt and answer.")
]
PresencePenalty = Annotated[
    float, typer.Option("--presence-penalty", help="Against tokens that the answer has, -2 to 2.")
]
FrequencyPenalty = Annotated[
    float, typer.Option("--frequency-penalty", help="The same for each time that it has them, -2 to 2.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes a draw repeatable.", show_default=False)]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="The answer ends before this text; may be given often.", show_default=False),
]
JsonSchema = Annotated[
    Path | None,
    typer.Option("--json-schema", metavar="FILE", help="The answer is JSON of this schema.", show_default=False),
]
Regex = Annotated[
    str | None, typer.Option("--regex", help="The answer matches this expression as a whole.", show_default=False)
]
Choice = Annotated[
    list[str] | None,
    typer.Option("--choice", help="The answer is one of these; given once for each.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
