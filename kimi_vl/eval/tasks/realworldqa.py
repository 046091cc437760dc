"""RealWorldQA: 765 questions about pictures of everyday places, most of them taken from cars.

What form the answer is to have stands in the question. xAI publishes no code for it, so that of lmms-eval counts as
official.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval.files import Cell, Parquet, cell, checked_count, presence, shown, tables
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Source, Task, Verdict, Way, user

_COUNT = 765
_COLUMNS = ("question", "answer")
_LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Question:
    """``answer`` is a letter, a word or a number. The data has no names for its rows: ``id`` is the place of one."""

    id: str
    text: str
    answer: str
    picture: Cell = field(repr=False)


def _load(folder: Path) -> list[Question]:
    paths = tables(folder, "data/test-*.parquet", "test-*.parquet")
    table = Parquet(paths, [*_COLUMNS, "image"])
    questions = []
    for number, (place, row) in enumerate(table.rows([*_COLUMNS, *presence(["image"])])):
        where = f"{paths[place[0]]}, item {number}"
        answer = (row["answer"] or "").strip()
        if not answer:
            raise ValueError(f"{where}: there is no answer")
        shows = cell(table, place, row, "image", where)
        questions.append(Question(str(number), row["question"].strip(), answer, shows))
    checked_count(questions, _COUNT, str(folder))
    return questions


def _ask(question: Question) -> tuple[Message, ...]:
    return (user(shown(question.picture), question.text),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    if question.answer.upper() in _LETTERS:
        letter = letters.lmms_eval(said, _LETTERS)
        return Verdict(score=float(letter == question.answer.upper()), read=letter)
    word = said.lower().strip().rstrip(".")
    return Verdict(score=float(word == question.answer.lower()), read=word or None)


REALWORLDQA = Task(
    name="realworldqa",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark)},
    source=Source("xai-org/RealworldQA", ("data/test-*.parquet",)),
)
