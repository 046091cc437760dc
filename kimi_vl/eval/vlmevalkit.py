"""How VLMEvalKit asks questions with options, whatever the benchmark, and marks the answers where it has no judge."""

from __future__ import annotations

from collections.abc import Mapping

from kimi_vl.eval.scoring.letters import can_infer
from kimi_vl.eval.task import Verdict


def prompt(question: str, options: Mapping[str, str], *, hint: str = "") -> str:
    told = f"Hint: {hint}\n" if hint else ""
    told += f"Question: {question}\n"
    if options:
        told += "Options:\n" + "".join(f"{letter}. {option}\n" for letter, option in options.items())
        told += "Please select the correct answer from the options above. \n"
    return told


def mark(said: str, options: Mapping[str, str], answer: str) -> Verdict:
    """An answer that its rule cannot read is wrong."""
    read = can_infer(said, options)
    return Verdict(score=float(read == answer), read=read)
