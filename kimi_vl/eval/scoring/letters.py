"""Which option an answer names. Harnesses disagree, so each rule is here by the name of the one that has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_AT_ENDS = (",", ".", "!", "?", ";", ":", "'")
_FEW_WORDS = 5


def mmmu(answer: str, options: Mapping[str, str]) -> str | None:
    """MMMU's own: ``(B)``, else a lone `` B ``, else in longer answers the text of an option. The last named counts.

    None where nothing is found and the official code draws lots.
    """
    for mark in _AT_ENDS:
        answer = answer.strip(mark)
    answer = f" {answer} "
    for form in ("({})", " {} "):
        at = {letter: answer.rfind(form.format(letter)) for letter in options}
        if found := {letter: place for letter, place in at.items() if place >= 0}:
            return max(found, key=found.__getitem__)
    return _last_text(answer, options)


def mmmu_loose(answer: str, options: Mapping[str, str]) -> str | None:
    """The same as lmms-eval has it: where nothing is in brackets, ``B `` and then ``B.`` count, at the end of any word.

    Of several the last that stands alone counts, or the first option if none does.
    """
    for mark in _AT_ENDS:
        answer = answer.strip(mark)
    answer = f" {answer} "
    at = {letter: answer.rfind(f"({letter})") for letter in options}
    if found := {letter: place for letter, place in at.items() if place >= 0}:
        return max(found, key=found.__getitem__)
    for after in (" ", "."):
        if named := [letter for letter in options if f"{letter}{after}" in answer]:
            return max(named, key=lambda letter: answer.rfind(f" {letter} "))
    return _last_text(answer, options)


def mmmu_pro(answer: str, options: Mapping[str, str]) -> str | None:
    """MMMU-Pro's own: the only letter after the last ``Answer:``, in words too, else as :func:`mmmu_loose`."""
    _, told, tail = answer.rpartition("Answer:")
    named = [letter for letter in options if letter in tail] if told else []
    return named[0] if len(named) == 1 else mmmu_loose(answer, options)


def _last_text(answer: str, options: Mapping[str, str]) -> str | None:
    if len(answer.split()) <= _FEW_WORDS:
        return None
    told = answer.lower()
    at = {letter: told.rfind(text.lower()) for letter, text in options.items()}
    found = {letter: place for letter, place in at.items() if place >= 0}
    return max(found, key=found.__getitem__) if found else None


# ---- VLMEvalKit ----

_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_TOKENS = 5
REFUSED = "Z"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_TOLD = re.compile(r"(?:correct )?answer is \*{0,2}([A-D])\b\*{0,2}", re.IGNORECASE)


def can_infer(answer: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's: the one letter near the end, else the one option whose text the answer holds.

    ``Z`` is a refusal. None where that harness asks a judge, or counts the answer as wrong.
    """
    return _one_letter(answer, options) or _one_text(answer, options)


def _one_letter(answer: str, options: Mapping[str, str]) -> str | None:
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSED
    tokens = answer.translate(_BLANKED).split()
    named = [letter for letter in options if letter in tokens]
    if len(named) == 1 and tokens.index(named[0]) > len(tokens) - _LAST_TOKENS:
        return named[0]
    if not named and REFUSED in tokens:
        return REFUSED
    told = _TOLD.search(answer)
    return told[1].upper() if told else None


def _one_text(answer: str, options: Mapping[str, str]) -> str | None:
    answer = answer.lower()
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in answer]
    return found[0] if len(found) == 1 else None


# ---- lmms-eval ----

_LMMS_AT_ENDS = (*_AT_ENDS, '"')
# Before a letter. Of each the first counts, so that one which holds another has a place of its own.
_PHRASES = (
    *("answer is", "correct answer is", "best answer is", "my answer is"),
    *("correct option is", "best option is", "choice is", "correct choice is", "my choice is"),
    *("the answer is", "the correct answer is", "the best answer is"),
    *("the correct option is", "the best option is", "the choice is", "the correct choice is"),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# Of what is found in the best of these forms, the last counts.
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
_AT_START, _AT_END, _AFTER_PHRASE, _ANYWHERE = 10, 9, 7, 0


def lmms_eval(answer: str, letters: Sequence[str]) -> str | None:
    """lmms-eval's: a letter that begins the answer, or ends it, or follows a phrase, or stands in brackets, and so on.

    As it was in its release 0.5. It takes the article for a choice in "A man is …".
    """
    text = answer.strip()
    for mark in _LMMS_AT_ENDS:
        text = text.strip(mark)
    alone, text = text.strip(), f" {text} "
    found: list[tuple[int, int, int, str]] = []  # rank, place, later first, letter
    for order, letter in enumerate(letters):
        ranked = [(rank, text.rfind(form.format(letter))) for form, rank in _FORMS]
        for phrase in _PHRASES:
            if (said := text.lower().find(phrase)) != -1:
                ranked.append((_AFTER_PHRASE, text.find(letter, said + len(phrase))))
        if alone.startswith(letter) and not alone[1:2].isalpha():
            ranked.append((_AT_START, 0))
        if alone.endswith(letter) and not alone[-2:-1].isalpha():
            ranked.append((_AT_END, len(text)))
        found += [(rank, place, -order, letter) for rank, place in ranked if place != -1]
    if not found:
        found = [
            (_ANYWHERE, text.rfind(letter), -order, letter) for order, letter in enumerate(letters) if letter in text
        ]
    return max(found)[3] if found else None


# ---- BLINK, MMStar ----

_BRACKETED = re.compile(r"\(([A-Z])\)")


def blink(answer: str) -> str | None:
    """BLINK's own: the only letter in brackets, of the whole or of the last paragraph; None where it asks a judge."""
    answer = answer.strip()
    if len(answer) == 1 and answer.isupper():
        return answer
    for piece in (answer, answer.split("\n")[-1]):
        if len(found := set(_BRACKETED.findall(piece))) == 1:
            return found.pop()
    return None


_MMSTAR_BEFORE = ("", "(", "option ", "the answer is ")


def mmstar(answer: str) -> str | None:
    """MMStar's own: the very first letter, which may also stand behind one of three beginnings.

    In small letters, and of any word: "a man" is A, and "The correct answer is B" is T.
    """
    told = answer.lower().strip().replace("\n", " ")
    named = [told[len(before)] for before in _MMSTAR_BEFORE if told.startswith(before) and len(told) > len(before)]
    return named[-1].upper() if named else None


# ---- the first capital ----

_VIDEO_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
    "Answer:",
    "Option:",
)
# Two commas are missing in VLMEvalKit's list.
_JOINED = (("The best option is", "The correct option is"), ("Best answer:", "Best option:"))


def first_capital(answer: str, letters: str) -> str | None:
    """Video-MME's and LongVideoBench's own: without what usually goes before, the first of these capitals anywhere."""
    return _first(answer, letters, _VIDEO_PREFIXES)


def first_capital_vlmevalkit(answer: str, letters: str) -> str | None:
    """The same with four of the beginnings left in, so that "Best answer: D" is B."""
    away = {one for pair in _JOINED for one in pair}
    prefixes = [one for one in _VIDEO_PREFIXES if one not in away]
    return _first(answer, letters, [*prefixes, *("".join(pair) for pair in _JOINED)])


def _first(answer: str, letters: str, prefixes: Sequence[str]) -> str | None:
    answer = answer.strip()
    for prefix in prefixes:
        answer = answer.replace(prefix, "")
    return next((character for character in answer if character in letters), None)


def before_bracket(answer: str) -> str | None:
    """MLVU's own, of an answer that was begun with ``Best option: (``: the character before the first bracket."""
    head, closed, _ = answer.partition(")")
    return head[-1:] or None if closed else None
