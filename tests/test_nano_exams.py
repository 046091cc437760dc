"""What a run is asked while it learns: held-out questions whose own answers are right, and wrong ones are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch

from kimi_vl.train.watching.examining import Question
from recipes.nano import exams
from recipes.nano.samples import tokenizer
from tests.nano import needs_data, needs_screens

OF_DRAWINGS = (exams.lines, exams.names, exams.counting, exams.charts, exams.tables, exams.several, exams.needle)
OF_SCREENS = (exams.screen_lines, exams.pointing)

Ask = Callable[[int], Iterator[Question]]


def answer_of(question: Question) -> str:
    """As an exam hears it: the ids that are to be learned, as text."""
    return tokenizer().decode(question.sample.input_ids[question.sample.answer_mask].tolist()).strip()


def check(ask: Ask, count: int) -> None:
    questions = list(islice(ask(count), count))
    assert len(questions) == count
    for question in questions:
        assert question.is_right(answer_of(question))
        assert not question.is_right("") and not question.is_right(f"{answer_of(question)} or not")
        answered = question.sample.answer_mask.int()
        assert (answered.diff() > 0).sum() == 1  # one answer
        assert question.sample.pixels is not None
    again = list(islice(ask(count), count))
    assert all(torch.equal(a.sample.input_ids, b.sample.input_ids) for a, b in zip(questions, again, strict=True))


@needs_data
@pytest.mark.parametrize("ask", OF_DRAWINGS, ids=lambda ask: ask.__name__)
def test_answers_are_right_by_the_judge_of_their_exam(ask: Ask) -> None:
    check(ask, 4 if ask is exams.needle else 12)


@needs_screens
@pytest.mark.parametrize("ask", OF_SCREENS, ids=lambda ask: ask.__name__)
def test_answers_about_screens_are_too(ask: Ask) -> None:
    check(ask, 12)
