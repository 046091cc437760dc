"""What stands around a thought in what a model writes: text, of several tokens each."""

from __future__ import annotations

from typing import NamedTuple


class ThoughtMarks(NamedTuple):
    opening: str
    closing: str


# The model's own, and those of another family, which its later checkpoints' templates speak of.
THOUGHT = ThoughtMarks("◁think▷", "◁/think▷")
OTHER_THOUGHT = ThoughtMarks("<think>", "</think>")
