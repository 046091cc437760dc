"""What stands around a thought in what a model writes, and whether a model thinks at all.

Marks are text, of several tokens each. In: a model's name, and its folder. Nothing of it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class ThoughtMarks(NamedTuple):
    opening: str
    closing: str


# The model's own, and those of another family, which its later checkpoints' templates speak of.
THOUGHT = ThoughtMarks("◁think▷", "◁/think▷")
OTHER_THOUGHT = ThoughtMarks("<think>", "</think>")


def thinks_first(name: str | Path) -> bool:
    """By its name, which is all that tells the checkpoints that think from those that do not."""
    return "thinking" in Path(name).name.lower()


def marks_of(folder: Path) -> ThoughtMarks:
    """Those of the family that the chat template of a model's folder speaks of; the model's own if of none."""
    return marks_in(_chat_template(folder))


def marks_in(template: str) -> ThoughtMarks:
    speaks_of_others = OTHER_THOUGHT.closing in template and THOUGHT.closing not in template
    return OTHER_THOUGHT if speaks_of_others else THOUGHT


def _chat_template(folder: Path) -> str:
    """In jinja; empty where the checkpoint has none."""
    alone = folder / "chat_template.jinja"
    if alone.exists():
        return alone.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.exists() else None
    return template if isinstance(template, str) else ""
