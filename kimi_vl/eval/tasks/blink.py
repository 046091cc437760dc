"""BLINK (val): 1,901 questions of 14 tasks that people solve at a glance, with one to four pictures each.

Its own code asks a judge where its rule finds no letter. There is none here: such an answer is wrong.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import Cell, Parquet, checked_count, checked_unique, presence, shown, tables
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Marked, Source, Task, Verdict, Way, lettered, macro, user

_COUNT = 1901
_TASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
_IMAGES = tuple(f"image_{number}" for number in range(1, 5))
_COLUMNS = ("idx", "question", "prompt", "sub_task", "choices", "answer")
_DISCLAIMED = ("Art_Style", "Forensic_Detection", "Jigsaw")
_DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your "
    "assessment on this question. You don't need to identify the real people. You just need to analyze based on the "
    "information I gave you.\n\n"
)


@dataclass(frozen=True)
class Question:
    """``prompt`` has the choices in it; ``text`` is the question alone."""

    id: str
    task: str
    text: str
    prompt: str
    choices: tuple[str, ...]
    answer: str
    pictures: tuple[Cell, ...] = field(repr=False)


def _load(folder: Path) -> list[Question]:
    paths: list[Path] = []
    for name in _TASKS:
        paths += tables(folder, f"{name}/val-*.parquet")
    table = Parquet(paths, [*_COLUMNS, *_IMAGES])
    questions = []
    for place, row in table.rows([*_COLUMNS, *presence(_IMAGES)]):
        path = paths[place[0]]
        where = f"{path}, {row['idx']}"
        choices, answer = tuple(row["choices"]), row["answer"].strip("()")
        if row["sub_task"] != path.parent.name:
            raise ValueError(f"{where}: a question of {row['sub_task']} in the folder of {path.parent.name}")
        if answer not in lettered(choices):
            raise ValueError(f"{where}: the answer {row['answer']!r} is none of {len(choices)} choices")
        if row.get(_IMAGES[0]) is None:
            raise ValueError(f"{where}: there is no picture in {_IMAGES[0]}")
        questions.append(
            Question(
                id=row["idx"],
                task=row["sub_task"],
                text=row["question"],
                prompt=row["prompt"],
                choices=choices,
                answer=answer,
                pictures=tuple(Cell(table, place, name) for name in _IMAGES if row.get(name) is not None),
            )
        )
    checked_unique((one.id for one in questions), str(folder))
    checked_count(questions, _COUNT, str(folder))
    return questions


# ---- official ----


def _ask(question: Question) -> tuple[Message, ...]:
    """Its words go before the pictures."""
    disclaimer = _DISCLAIMER if question.task in _DISCLAIMED else ""
    return (user(disclaimer + question.prompt, *map(shown, question.pictures)),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    read = letters.blink(said)
    return Verdict(score=float(read == question.answer), read=read)


def _mean_of_tasks(marked: Sequence[Marked[Question]]) -> float:
    return macro(marked, lambda question: question.task)


# ---- lmms-eval ----


def _ask_lmms_eval(question: Question) -> tuple[Message, ...]:
    named = ", ".join(lettered(question.choices))
    told = f"Note: You only need to respond with {named} without providing any additional information.\n"
    return (user(*map(shown, question.pictures), told + question.prompt),)


def _mark_lmms_eval(question: Question, said: str, lots: Random) -> Verdict:
    """The very first letter, of whatever word: "The answer is A" is T."""
    first = said.lstrip(f"({string.whitespace}")[:1]
    read = first.upper() if first.isascii() and first.isalpha() else None
    return Verdict(
        score=float(read == question.answer),
        read=read,
        fixed=float(letters.lmms_eval(said, [*lettered(question.choices)]) == question.answer),
    )


# ---- VLMEvalKit ----


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    text = vlmevalkit.prompt(question.text, lettered(question.choices))
    return (user(*map(shown, question.pictures), text),)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    return vlmevalkit.mark(said, lettered(question.choices), question.answer)


def _groups(question: Question) -> Sequence[str]:
    return (question.task,)


BLINK = Task(
    name="blink",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={
        "official": Way(_ask, _mark, total=_mean_of_tasks),
        "lmms-eval": Way(_ask_lmms_eval, _mark_lmms_eval),
        "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit),
    },
    groups=_groups,
    source=Source("BLINK-Benchmark/BLINK", tuple(f"{name}/val-*.parquet" for name in _TASKS)),
)
