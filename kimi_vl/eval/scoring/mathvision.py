"""MathVision's own rules: what of an answer is meant, cleaned of LaTeX, and whether it is what was wanted.

``value`` of these functions says what an expression comes to (:mod:`kimi_vl.eval.scoring.calculator`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

Value = Callable[[str], int | float | None]

_BOX = "oxed{"
_LETTERS = "ABCDE"
_TOLD = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_INSIDE = re.compile(r"oxed{(.*)}", re.DOTALL)
_BOXED_AWAY = (" ", r"\,")
_TYPESET_AWAY = (
    *("\n", r"\text", r"\mbox"),
    *(r"\left", r"\right", r"^{\circ}", r"^\circ", "{m}^3", "m^3"),
    *("{units}", "units", "{km}", "km"),
)


def extracted(answer: str) -> str:
    """What is meant, in lower case and without blanks; the whole answer where nothing says which part it is."""
    answer = answer.strip()
    for letter in _LETTERS:
        if answer.endswith((f" {letter}.", f" ({letter}).")) or answer.startswith(
            (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        ):
            answer = letter
    number = answer.split("is ")[-1].rstrip(".")
    if _is_number(number):
        answer = number
    if _BOX not in answer:
        for words in _TOLD:
            for spelled in (words, words.replace("the", "The")):
                _, said, after = answer.rpartition(spelled)
                answer = after.strip()
                if said:
                    answer = answer.split("\n")[0].split(". ")[0]
    elif answer.count(_BOX) > 1:
        answer = _BOX + answer.split(_BOX)[-1]
    cleaned = _cleaned(answer)
    for letter in _LETTERS.lower():
        cleaned = cleaned.replace(f"({letter})", letter)
    for letter in _LETTERS.lower():
        cleaned = cleaned.replace(f"{{{letter}}}", letter)
    return cleaned.rstrip(".").lstrip(":").strip()


def is_equal(wanted: str, said: str, value: Value) -> bool:
    """The same text, or tuple, or the same number to two digits after the point, so that 0.004 is 0."""
    wanted, said = wanted.lower(), said.lower()
    if not wanted.replace(" ", "") or not said.replace(" ", ""):
        return False
    if wanted.strip() == said.strip():
        return True
    wanted, said = _tuple(wanted, value), _tuple(said, value)
    if wanted == said:
        return True
    first = value(wanted)
    second = None if first is None else value(said)
    return first is not None and second is not None and round(first, 2) == round(second, 2)


def is_close(wanted: str, said: str, value: Value) -> bool:
    """As it ought to be: the same text, or numbers, also of tuples, that are the same to a millionth.

    A number may have a unit after it that the wanted one has not.
    """
    wanted, said = (text.lower().strip() for text in (wanted, said))
    if not wanted or not said:
        return False
    if wanted == said:
        return True
    pairs = [*zip(*(_entries(text) for text in (wanted, said)), strict=False)]
    if len(_entries(wanted)) != len(_entries(said)) or (
        wanted[:1] + wanted[-1:] != said[:1] + said[-1:] and len(pairs) > 1
    ):
        return False
    return all(one == other or _near(one, other, value) for one, other in pairs)


def _near(wanted: str, said: str, value: Value) -> bool:
    first = value(wanted)
    second = None if first is None else value(said)
    if first is not None and second is None and (number := _WITH_UNIT.fullmatch(said)):
        second = value(number[1])
    return first is not None and second is not None and math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


_LENGTHS = r"(?:square)?(?:mm|cm|dm|m|km|meters?|inches|feet)(?:\^?{?[23]}?)?"
_UNITS = rf"%|°|degrees?|units?|{_LENGTHS}|g|kg|s|seconds?|minutes?|hours?"
_WITH_UNIT = re.compile(rf"([-+]?\d+(?:\.\d+)?)(?:{_UNITS})")


def _entries(text: str) -> list[str]:
    if text[:1] + text[-1:] in ("()", "[]") and "," in text:
        return [entry.strip() for entry in text[1:-1].split(",")]
    return [text]


def _tuple(text: str, value: Value) -> str:
    """A tuple with its entries worked out; one that cannot be stays as it is."""
    entries = text[1:-1].split(",")
    if text[:1] + text[-1:] not in ("()", "[]") or len(entries) < 2:
        return text
    worked_out = []
    for entry in entries:
        if "infty" in entry or entry in ("a", "-a"):
            worked_out.append(entry)
        elif (number := value(entry)) is None:
            return text
        else:
            worked_out.append(str(round(number, 2)))
    return f"{text[0]}{','.join(worked_out)}{text[-1]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- LaTeX, made plain ----


def _cleaned(answer: str) -> str:
    text = answer.lower().replace("{}", "")
    if inside := _INSIDE.findall(text):
        text = inside[-1]
    closed, opened = text.find("}"), text.find("{")
    if closed != -1 and (opened == -1 or closed < opened):
        text = text[:closed]
    text = text.split("=")[-1].split(r"\approx")[-1]
    for away in _BOXED_AWAY:
        text = text.replace(away, "")
    text = text.replace("∞", r"\infty").replace(r"+\infty", r"\infty").replace("\\\\", "\\")
    text = text.replace("bmatrix", "pmatrix")
    for away in _TYPESET_AWAY:
        text = text.replace(away, "")
    return _plain(text)


def _plain(text: str) -> str:
    """Fractions, roots and numbers as their dataset writes them."""
    text = text.replace("\n", "").replace(r"\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for away in (r"\left", r"\right", r"^{\circ}", r"^\circ", r"\$", "$"):
        text = text.replace(away, "")
    text = text.split(r"\text{ ")[0]
    text = text.replace(r"\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text[0] == ".":
        text = f"0{text}"
    for sign in ("=", r"\approx"):
        if text.count(sign) == 1:
            text = text.split(sign)[-1]
    if "sqrt" in text:
        text = _braced_roots(text)
    text = text.replace(" ", "")
    if "sqrt" in text:
        text = _braced_fractions(text)
    if text == "0.5":
        text = r"\frac{1}{2}"
    return _as_fraction(text)


def _braced_roots(text: str) -> str:
    first, *roots = text.split(r"\sqrt")
    braced = [root if not root or root[0] == "{" else f"{{{root[0]}}}{root[1:]}" for root in roots]
    return "".join([first, *(rf"\sqrt{root}" for root in braced)])


def _braced_fractions(text: str) -> str:
    first, *fractions = text.split(r"\frac")
    told = first
    for fraction in fractions:
        if fraction and fraction[0] == "{":
            told += rf"\frac{fraction}"
            continue
        if len(fraction) < 2:
            return text
        above, below, rest = fraction[0], fraction[1], fraction[2:]
        told += rf"\frac{{{above}}}" + (below if below == "{" else f"{{{below}}}") + rest
    return told


def _as_fraction(text: str) -> str:
    """``3/4`` as LaTeX has it."""
    parts = text.split("/")
    if len(parts) != 2:
        return text
    try:
        above, below = map(int, parts)
    except ValueError:
        return text
    return rf"\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text
