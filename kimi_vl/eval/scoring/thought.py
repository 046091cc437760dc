"""What a thinking model says after its thought."""

from __future__ import annotations

from kimi_vl.marks import OTHER_THOUGHT, THOUGHT


def said(text: str) -> str:
    """What follows the thought; all of it where there is none, and nothing where the thought never closes.

    The opening mark may have been in the prompt. A mark that comes after the thought is text.
    """
    for opening, closing in (THOUGHT, OTHER_THOUGHT):
        _, closed, after = text.partition(closing)
        if closed:
            return after.strip()
        if text.lstrip().startswith(opening):
            return ""
    return text
