"""AI2D (test): 3,088 questions about diagrams of school books, with four options each.

Labels in a diagram are masked by the letters of the options, or left as they are, which is much easier: two tasks.
There is no code of its authors for models that answer in words, so that of lmms-eval counts as official.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import Cell, Parquet, cell, checked_count, presence, shown, tables
from kimi_vl.eval.task import Source, Task, Verdict, Way, lettered, user

_COUNT = 3088
_COLUMNS = ("question", "options", "answer")
_BY_LETTER = "Answer with the option's letter from the given choices directly."
_FIRST = re.compile(r"\s*([A-Z])\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """The data has no names for its rows: ``id`` is the place of one."""

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    picture: Cell = field(repr=False)


def _load(folder: Path) -> list[Question]:
    paths = tables(folder, "data/test-*.parquet", "test-*.parquet")
    table = Parquet(paths, [*_COLUMNS, "image"])
    questions = []
    for number, (place, row) in enumerate(table.rows([*_COLUMNS, *presence(["image"])])):
        where = f"{paths[place[0]]}, item {number}"
        options = tuple(row["options"])
        if row["answer"] not in map(str, range(len(options))):
            raise ValueError(f"{where}: the answer {row['answer']!r} is no number of {len(options)} options, from 0")
        questions.append(
            Question(
                id=str(number),
                text=row["question"],
                options=options,
                answer=[*lettered(options)][int(row["answer"])],
                picture=cell(table, place, row, "image", where),
            )
        )
    checked_count(questions, _COUNT, str(folder))
    return questions


def _ask(question: Question) -> tuple[Message, ...]:
    options = "\n".join(f"{letter}. {option}" for letter, option in lettered(question.options).items())
    return (user(shown(question.picture), f"{question.text}\n{options}\n{_BY_LETTER}"),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    """``B.`` at the beginning, or nothing but the letter, in whatever case and punctuation."""
    first = _FIRST.match(said)
    read = first[1] if first else said.strip().translate(_NO_PUNCTUATION).upper()
    return Verdict(
        score=float(read == question.answer),
        read=read if first or read in lettered(question.options) else None,
    )


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    return (user(shown(question.picture), vlmevalkit.prompt(question.text, lettered(question.options))),)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    return vlmevalkit.mark(said, lettered(question.options), question.answer)


_WAYS = {"official": Way(_ask, _mark), "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit)}

AI2D = Task(
    name="ai2d",
    about="AI2D (test): 3,088 questions about diagrams whose labels are masked by letters.",
    load=_load,
    wanted=lambda item: item.answer,
    ways=_WAYS,
    source=Source("lmms-lab/ai2d", ("data/test-*.parquet",)),
)
AI2D_NO_MASK = Task(
    name="ai2d-no-mask",
    about="AI2D (test, no mask): the same questions about diagrams as they are.",
    load=_load,
    wanted=lambda item: item.answer,
    ways=_WAYS,
    source=Source("Efficient-Large-Model/ai2d-no-mask", ("data/test-*.parquet",)),
)
