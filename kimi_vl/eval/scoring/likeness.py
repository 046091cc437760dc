"""How like two texts are: the average normalised Levenshtein similarity (ANLS), as two benchmarks have it."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

_LEAST = 0.5


def anls(wanted: Sequence[str], said: str) -> float:
    """InfoVQA's, of the answer that is most like: 0 below a half, which itself counts.

    Case and repeated blanks do not count as edits, but blanks do count for the length, as in both harnesses.
    """
    return max((_likeness(one, said) for one in wanted), default=0.0)


def _likeness(wanted: str, said: str) -> float:
    edits = Levenshtein.distance(_even(wanted), _even(said))
    length = max(len(wanted), len(said))
    likeness = 1.0 - edits / length if length else 1.0
    return likeness if likeness >= _LEAST else 0.0


def _even(text: str) -> str:
    return " ".join(text.strip().lower().split())


def strict_anls(wanted: str, said: str) -> float:
    """MMLongBench-Doc's, of texts as they are: 0 at a half or below."""
    length = max(len(wanted), len(said))
    likeness = 1.0 - Levenshtein.distance(wanted, said) / length if length else 1.0
    return likeness if likeness > _LEAST else 0.0
