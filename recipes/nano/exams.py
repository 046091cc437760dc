"""Held-out exams in the form in which a run asks them at every save: (count) -> questions with their answers.

Comes in: what heldout.py draws. Goes out: `Question`s. They are judged as there, but for lines, of which only a whole
one is right, and pointing, whose answer is the middle of what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from kimi_vl.train.watching.examining import Question
from recipes.nano import heldout
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.heldout import Exam, WrittenLine
from recipes.nano.samples import of_conversation


def lines(count: int) -> Iterator[Question]:
    return map(_written, heldout.lines(count))


def screen_lines(count: int) -> Iterator[Question]:
    return map(_written, heldout.screen_lines(count))


def names(count: int) -> Iterator[Question]:
    """Of drawings in the style that is held out."""
    for exam in heldout.names(count):
        yield replace(_asked(exam), is_right=partial(_same, exam.wanted))


def counting(count: int) -> Iterator[Question]:
    return map(_asked, heldout.counting(count))


def pointing(count: int) -> Iterator[Question]:
    return map(_asked, heldout.pointing(count))


def charts(count: int) -> Iterator[Question]:
    return map(_asked, heldout.chart_questions(count))


def tables(count: int) -> Iterator[Question]:
    return map(_asked, heldout.KINDS["tables"](count))


def several(count: int) -> Iterator[Question]:
    return map(_asked, heldout.KINDS["several"](count))


def needle(count: int) -> Iterator[Question]:
    return map(_asked, heldout.needle(count, heldout.WINDOW))


def _written(line: WrittenLine) -> Question:
    shown = Conversation((line.image,), (Turn(heldout.READ, line.text),))
    return Question(of_conversation(shown), partial(_same, line.text))


def _asked(exam: Exam) -> Question:
    shown = Conversation(exam.pictures, (Turn(exam.question, exam.wanted),), pages=exam.pages)
    return Question(of_conversation(shown), exam.is_right)


def _same(wanted: str, answer: str) -> bool:
    return answer == " ".join(wanted.split())
