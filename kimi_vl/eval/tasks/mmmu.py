"""MMMU (val): 900 questions of college exams over 30 subjects, with pictures between the words; 847 have options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import Cell, Parquet, cell, checked_count, checked_unique, listed, presence, shown, tables
from kimi_vl.eval.scoring import letters, open_answers
from kimi_vl.eval.task import Source, Task, Verdict, Way, lettered, user

_COUNT = 900
_DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
_WORDS = ("id", "question", "options", "answer", "question_type")
_TAG = re.compile(r"<image (\d+)>")
_BY_LETTER = "Answer with the option's letter from the given choices directly."
_IN_WORDS = "Answer the question using a single word or phrase."
_OTHER = "Other Answers"


@dataclass(frozen=True)
class Question:
    """Without options it is open, and any of ``answers`` is right. ``pictures`` are by their numbers, from 1."""

    id: str
    subject: str
    text: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    pictures: tuple[Cell | None, ...] = field(repr=False)


def _load(folder: Path) -> list[Question]:
    paths: list[Path] = []
    for subject in sorted(subject for subjects in _DOMAINS.values() for subject in subjects):
        paths += tables(folder, f"{subject}/validation-*.parquet")
    table = Parquet(paths, [*_WORDS, *IMAGES])
    questions = []
    for place, row in table.rows([*_WORDS, *presence(IMAGES)]):
        path = paths[place[0]]
        where = f"{path}, {row['id']}"
        is_open = row["question_type"] != "multiple-choice"
        options = () if is_open else tuple(listed(row["options"], where))
        answer = str(row["answer"])
        if not is_open and answer not in lettered(options):
            raise ValueError(f"{where}: the answer {answer!r} is none of {len(options)} options")
        questions.append(
            Question(
                id=row["id"],
                subject=path.parent.name,
                text=row["question"],
                options=options,
                answers=tuple(listed(answer, where)) if is_open and answer.startswith("[") else (answer,),
                pictures=pictures(table, place, row, [row["question"], *options], where),
            )
        )
    checked_unique((one.id for one in questions), str(folder))
    checked_count(questions, _COUNT, str(folder))
    return questions


def pictures(
    table: Parquet, place: tuple[int, int, int], row: Mapping[str, Any], texts: Sequence[str], where: str
) -> tuple[Cell | None, ...]:
    """Those that a row has, and among them all that its texts have a tag for."""
    for number in _TAG.findall(" ".join(texts)):
        cell(table, place, row, f"image_{number}", where)
    return tuple(None if row.get(name) is None else Cell(table, place, name) for name in IMAGES)


def interleaved(text: str, shows: Sequence[Cell | None], *, stripped: bool = False) -> tuple[Message, ...]:
    """With pictures in the place of their tags, or before all where there is no tag."""
    words, *tagged = _TAG.split(text)
    if not tagged:
        return (user(*(shown(one) for one in shows if one is not None), text),)
    parts: list[str | Path | bytes] = [words]
    for number, after in zip(tagged[::2], tagged[1::2], strict=True):
        picture = shows[int(number) - 1]
        assert picture is not None
        parts += [shown(picture), after]
    kept = (one.strip() if stripped and isinstance(one, str) else one for one in parts)
    return (user(*(one for one in kept if one)),)


# ---- official ----


def _ask(question: Question) -> tuple[Message, ...]:
    options = "".join(f"({letter}) {option}\n" for letter, option in lettered(question.options).items())
    told = f"{options}\n{_BY_LETTER}" if options else _IN_WORDS
    return interleaved(f"{question.text}\n{told}", question.pictures)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    return _marked(question, said, lots, letters.mmmu)


def _marked(
    question: Question, said: str, lots: Random, rule: Callable[[str, Mapping[str, str]], str | None]
) -> Verdict:
    if question.options:
        return read_or_drawn(rule(said, lettered(question.options)), question.options, question.answers[0], lots)
    found = open_answers.candidates(said)
    return Verdict(
        score=float(open_answers.is_right(found, list(question.answers))),
        read=", ".join(sorted(map(str, found))) or None,
    )


def read_or_drawn(read: str | None, options: Sequence[str], answer: str, lots: Random) -> Verdict:
    """Where nothing was read, one of the options by lot."""
    if read is not None:
        return Verdict(score=float(read == answer), read=read)
    return Verdict(score=float(lots.choice([*lettered(options)]) == answer), read=None, by_lot=True, fixed=0.0)


# ---- lmms-eval ----


def _ask_lmms_eval(question: Question) -> tuple[Message, ...]:
    options = "\n".join(f"{letter}. {option}" for letter, option in lettered(question.options).items())
    told = f"\n{options}\n\n{_BY_LETTER}" if options else f"\n\n{_IN_WORDS}"
    return interleaved(f"{question.text}{told}", question.pictures, stripped=True)


def _mark_lmms_eval(question: Question, said: str, lots: Random) -> Verdict:
    return _marked(question, said, lots, letters.mmmu_loose)


# ---- VLMEvalKit ----


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    return interleaved(vlmevalkit.prompt(question.text, lettered(question.options)), question.pictures)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    """An open question counts as one with two options, its answer and any other.

    Where its answer happens to be a capital, that is the letter that is wanted.
    """
    if question.options:
        return vlmevalkit.mark(said, lettered(question.options), question.answers[0])
    answer = question.answers[0] if len(question.answers) == 1 else str(list(question.answers))
    wanted = answer if len(answer) == 1 and "A" <= answer <= "Z" else "A"
    return vlmevalkit.mark(said, lettered((answer, _OTHER)), wanted)


def _groups(question: Question) -> Sequence[str]:
    return groups_of(question.subject)


def groups_of(subject: str) -> Sequence[str]:
    """The subject and its domain."""
    return (subject, *(domain for domain, subjects in _DOMAINS.items() if subject in subjects))


MMMU = Task(
    name="mmmu",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: ", ".join(item.answers),
    ways={
        "official": Way(_ask, _mark),
        "lmms-eval": Way(_ask_lmms_eval, _mark_lmms_eval),
        "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit),
    },
    groups=_groups,
    source=Source("MMMU/MMMU", ("*/validation-*.parquet",)),
)
