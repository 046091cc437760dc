"""MMStar: 1,500 questions that need their pictures, 250 of each of six abilities; the options stand in the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import checked_count, checked_unique, decoded, found, tsv
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Source, Task, Verdict, Way, user

_COUNT = 1500
_COLUMNS = ("index", "question", "image", "answer", "category", "l2_category")
_LETTERS = "ABCDE"
_NOTHING = "nan"
_IN_A_ROW = re.compile(r"(?:^|, )([A-E]): ")
_IN_LINES = re.compile(r"\n\(([A-E])\) ?(.*)")


@dataclass(frozen=True)
class Question:
    """``text`` holds the options too; ``stem`` is what comes before them."""

    id: str
    text: str
    stem: str
    options: tuple[tuple[str, str], ...]
    answer: str
    ability: str
    category: str
    picture: bytes = field(repr=False)


def _load(folder: Path) -> list[Question]:
    path = found(folder, "MMStar.tsv")
    questions = []
    for row in tsv(path, _COLUMNS):
        where = f"{path}, index {row['index']}"
        stem, options = _taken_apart(row["question"], where)
        if row["answer"] not in dict(options):
            raise ValueError(f"{where}: the answer {row['answer']!r} is none of {len(options)} options")
        questions.append(
            Question(
                id=row["index"],
                text=row["question"],
                stem=stem,
                options=options,
                answer=row["answer"],
                ability=row["category"],
                category=row["l2_category"],
                picture=decoded(row["image"], where),
            )
        )
    checked_unique((one.id for one in questions), str(path))
    checked_count(questions, _COUNT, str(path))
    return questions


def _taken_apart(text: str, where: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Options stand in a row (``Options: A: …, B: …``), or each in a line (``(A) …``). Those that lack are ``nan``."""
    stem, told, row = text.rpartition("\nOptions: ")
    if told:
        _, *pieces = _IN_A_ROW.split(row)
        options = list(zip(pieces[::2], pieces[1::2], strict=True))
    else:
        options = _IN_LINES.findall(text)
        stem = text.partition("\n(A)")[0].removesuffix("\nChoices:")
    if not options or [letter for letter, _ in options] != list(_LETTERS[: len(options)]):
        raise ValueError(f"{where}: the question has no options in it: take the table that MMStar itself publishes")
    while options and options[-1][1] == _NOTHING:
        options.pop()
    return stem, tuple(options)


def _ask(question: Question) -> tuple[Message, ...]:
    return (user(question.picture, f"{question.text}\nAnswer the question directly."),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    """Any word that begins with the letter is right, and a sentence is wrong, which VLMEvalKit's rule mends."""
    read = letters.mmstar(said)
    return Verdict(
        score=float(read == question.answer),
        read=read,
        fixed=vlmevalkit.mark(said, dict(question.options), question.answer).score,
    )


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    return (user(question.picture, vlmevalkit.prompt(question.stem, dict(question.options))),)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    return vlmevalkit.mark(said, dict(question.options), question.answer)


def _groups(question: Question) -> Sequence[str]:
    return (question.ability, f"{question.ability}: {question.category}")


MMSTAR = Task(
    name="mmstar",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark), "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit)},
    groups=_groups,
    source=Source("Lin-Chen/MMStar", ("MMStar.tsv",)),
)
