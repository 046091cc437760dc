"""LaTeX → a number, by a parser that runs nothing of what it reads.

It may still take for ever (``9^{9^{9}}``), which is why :mod:`kimi_vl.eval.scoring.calculator` has it in a process
that can be stopped.
"""

from __future__ import annotations

import math

from latex2sympy2_extended import latex2sympy
from sympy import Basic, Symbol

_CONSTANTS = {"e": math.e, "pi": math.pi, "tau": math.tau}
_LONGEST = 200  # characters


def value(text: str) -> int | float | None:
    """What an expression comes to, as an ``int`` where its form says so; None where it is no real number."""
    text = _begun(text)
    if len(text) > _LONGEST:
        return None
    try:
        found = latex2sympy(text)
        if not isinstance(found, Basic):
            return None
        found = found.subs({one: _CONSTANTS[one.name] for one in found.free_symbols if _named(one)}).doit()
        if found.is_Integer:
            return int(found)
        number = float(found.evalf())
    except Exception:  # the parser raises whatever its grammar, or sympy, comes upon
        return None
    return number if math.isfinite(number) else None


def _begun(text: str) -> str:
    """Up to a brace that closes nothing, behind which parsers of this family do not look."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return text[:place]
    return text


def _named(symbol: Basic) -> bool:
    return isinstance(symbol, Symbol) and symbol.name in _CONSTANTS
