"""OCRBench's rule: an answer is right that holds what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

_FORMULAE = "HME100k"


def is_right(wanted: Sequence[str], said: str, dataset: str) -> bool:
    """Without regard to case and lines; of formulae without regard to blanks."""
    return any(_plain(one, dataset) in _plain(said, dataset) for one in wanted)


def _plain(text: str, dataset: str) -> str:
    if dataset == _FORMULAE:
        return text.strip().replace("\n", " ").replace(" ", "")
    return text.lower().strip().replace("\n", " ")
