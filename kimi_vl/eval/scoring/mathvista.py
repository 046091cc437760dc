"""MathVista's rules: what was extracted → the answer that it stands for, in the very letters of what is wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

_LETTER = re.compile(r"\(([a-zA-Z])\)")


def normalised(
    extraction: str, *, choices: Sequence[str] | None, answer_type: str, precision: int | None
) -> str | None:
    """Of choices the text of one, even where nothing was extracted; of numbers as many digits as are wanted.

    None where what was extracted is no number.
    """
    if choices is not None:
        return _choice(extraction.strip(), choices)
    try:
        match answer_type:
            case "integer":
                return str(int(float(extraction)))
            case "float":
                return str(round(float(extraction), int(precision or 0)))
            case _:
                return extraction
    except (ValueError, OverflowError):
        return None


def _choice(extraction: str, choices: Sequence[str]) -> str:
    if lettered := _LETTER.search(extraction):
        extraction = lettered[1].upper()
    letters = [chr(ord("A") + place) for place in range(len(choices))]
    if extraction in letters:
        return choices[letters.index(extraction)]
    return min(choices, key=lambda choice: Levenshtein.distance(extraction, choice))
