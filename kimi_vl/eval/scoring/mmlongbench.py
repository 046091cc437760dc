"""MMLongBench-Doc's rules: numbers, texts and lists, each by the format that its question has."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kimi_vl.eval.scoring.likeness import strict_anls

NOT_ANSWERABLE = "Not answerable"

_IN_BRACKETS = re.compile(r"\s*\([^)]*\)")
_QUOTE_AT_END = re.compile(r"^['\"]|['\"]$")
_TO_THE_LETTER = (
    re.compile(r"\d+(-\d+|\s\d+)?"),  # a telephone number
    re.compile(r"\d{4}[-\s]\d{2}([-\s]\d{2})?"),  # a date, or a month
    re.compile(r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}"),
)
_UNITS = ("miles", "mile", "million")


def score(wanted: str, said: str, answer_format: str) -> float:
    """As its official code has it, whose units are not taken off, and whose lists are paired by their order.

    Raises: ``ValueError`` where that code fails, which its whole run counts as nothing.
    """
    match answer_format:
        case "Int":
            return float(_same_whole_number(wanted, said))
        case "Float":
            return float(_same_number(wanted, said))
        case "Str" | "None":
            return _same_text(_clean(wanted), _clean(said))
        case _:
            return _same_list(_listed(wanted), _listed(said))


def fixed_score(wanted: str, said: str, answer_format: str) -> float:
    """The same where units count for nothing, and each entry of a list is held against the one that it is most like."""
    if answer_format == "Str":
        return _same_text(_without_unit(_clean(wanted)), _without_unit(_clean(said)))
    if answer_format != "List":
        try:
            return score(wanted, said, answer_format)
        except ValueError:
            return 0.0
    golds, found = ([_without_unit(_clean(one)) for one in _split(text)] for text in (wanted, said))
    if len(golds) != len(found):
        return 0.0
    likenesses = []
    for gold in golds:
        likeness, most = max((_same_text(gold, one), one) for one in found)
        likenesses.append(likeness)
        found.remove(most)
    return min(likenesses, default=0.0)


def _same_whole_number(wanted: str, said: str) -> bool:
    try:
        return int(wanted) == int(float(said))
    except (ValueError, OverflowError):
        # What is said is then nothing, and what is wanted may be too.
        return wanted == ""


def _same_number(wanted: str, said: str) -> bool:
    """Also a hundredth or hundredfold of it; to 1 %, or to the digits of the coarser of both, but two at least."""
    gold: float | str = wanted
    try:
        gold = float(_clean(wanted))
        number = float(_clean(said))
    except ValueError:
        # Official code fails where what is wanted is no number either.
        float(str(gold).strip().rstrip("%").strip())
        return False
    for one in (gold / 100, gold, gold * 100):
        if math.isclose(one, number, rel_tol=0.01):
            return True
        digits = max(min(_digits(number), _digits(one)), 2)
        if round(number, digits) == round(one, digits):
            return True
    return False


def _digits(number: float) -> int:
    text = str(number)
    return len(text.split(".")[-1]) if "." in text else 3


def _same_text(wanted: str, said: str) -> float:
    return float(wanted == said) if _is_exact(wanted) else strict_anls(wanted, said)


def _same_list(wanted: Sequence[object], said: Sequence[object]) -> float:
    if len(wanted) != len(said):
        return 0.0
    golds, found = sorted(map(_clean, wanted)), sorted(map(_clean, said))
    if not golds:
        raise ValueError("an empty list is no answer")
    if _is_float(golds[0]) or _is_exact(golds[0]):
        return float("-".join(golds) == "-".join(found))
    return min(strict_anls(gold, one) for gold, one in zip(golds, found, strict=True))


def _listed(text: str) -> list[object]:
    """Of a Python list its entries, else the text alone."""
    if not text.startswith("["):
        return [text]
    try:
        read = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text!r} is no list") from error
    return list(read) if isinstance(read, list) else [read]


def _split(text: str) -> list[object]:
    """The same, where what is no Python is split at its commas."""
    try:
        return _listed(text)
    except ValueError:
        return [one.strip() for one in text.strip("[]").split(",")]


def _clean(text: object) -> str:
    cleaned = _IN_BRACKETS.sub("", str(text).lower().strip()).strip()
    cleaned = _QUOTE_AT_END.sub("", cleaned).strip()
    return cleaned.lstrip("$").strip().rstrip("%").strip()


def _without_unit(text: str) -> str:
    for unit in _UNITS:
        if text.endswith(f" {unit}"):
            return text.removesuffix(unit).strip()
    return text


def _is_exact(text: str) -> bool:
    """Links, names of files, pages, numbers of telephones, times, dates and addresses must be right to the letter."""
    return (
        "https://" in text
        or text.endswith((".py", "ipynb"))
        or text.startswith("page")
        or "a.m." in text
        or "p.m." in text
        or any(form.fullmatch(text) for form in _TO_THE_LETTER)
    )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Marked:
    wanted: str
    said: str
    score: float


def f1(marked: Sequence[Marked]) -> float:
    """Of recall over what can be answered and precision over what was answered; what cannot be is in neither sum."""
    answerable = [one.score for one in marked if one.wanted != NOT_ANSWERABLE]
    answered = sum(one.said != NOT_ANSWERABLE for one in marked)
    recall = sum(answerable) / len(answerable) if answerable else 0.0
    precision = sum(answerable) / answered if answered else 0.0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0
