"""InfographicVQA (val): 2,801 questions about infographics; an answer counts by how like the wanted one it is (ANLS).

As the benchmark's server publishes it, or as the hub has it. The answers of its test questions are hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kimi_vl.chat import Message
from kimi_vl.eval.files import (
    Cell,
    Parquet,
    cell,
    checked_count,
    checked_unique,
    found,
    picture,
    presence,
    read_json,
    shown,
    tables,
    with_columns,
)
from kimi_vl.eval.scoring.likeness import anls
from kimi_vl.eval.task import Source, Task, Verdict, Way, user

_COUNT = 2801
_COLUMNS = ("questionId", "question", "answers", "answer_type")
_TABLES = "InfographicVQA/validation-*.parquet"
_JSON = "infographicsVQA_val_v1.0_withQT.json"
_IMAGES = "infographicsvqa_images"
_TEST = ("InfographicVQA/test-*.parquet", "infographicsVQA_test_v1.0.json")
_HIDDEN = "the answers of the test questions are hidden: take the validation questions, which are the same task"


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answers: tuple[str, ...]
    kinds: tuple[str, ...]
    picture: Path | Cell = field(repr=False)


def _load(folder: Path) -> list[Question]:
    of_table, of_json = any(folder.glob(_TABLES)), (folder / _JSON).is_file()
    if not of_table and not of_json and any(any(folder.glob(name)) for name in _TEST):
        raise ValueError(f"{folder}: {_HIDDEN}")
    questions = list(_of_table(folder) if of_table else _of_json(folder))
    checked_unique((one.id for one in questions), str(folder))
    checked_count(questions, _COUNT, str(folder))
    return questions


def _of_table(folder: Path) -> Iterator[Question]:
    paths = tables(folder, _TABLES)
    table = Parquet(paths, [*_COLUMNS, "image"])
    for place, row in table.rows([*_COLUMNS, *presence(["image"])]):
        where = f"{paths[place[0]]}, {row['questionId']}"
        yield _question(row, cell(table, place, row, "image", where), where)


def _of_json(folder: Path) -> Iterator[Question]:
    path = found(folder, _JSON)
    for number, raw in enumerate(with_columns(read_json(path), ["data"], str(path))["data"]):
        where = f"{path}, item {number}"
        row = with_columns(raw, [*_COLUMNS, "image_local_name"], where)
        yield _question(row, picture(folder / _IMAGES, row["image_local_name"], where), where)


def _question(row: Mapping[str, Any], shows: Path | Cell, where: str) -> Question:
    if not row["answers"]:
        raise ValueError(f"{where}: there are no answers; {_HIDDEN}")
    return Question(
        id=str(row["questionId"]),
        text=row["question"],
        answers=tuple(row["answers"]),
        kinds=tuple(row["answer_type"] or ()),
        picture=shows,
    )


def _ask(question: Question) -> tuple[Message, ...]:
    return (user(shown(question.picture), f"{question.text}\nAnswer the question using a single word or phrase."),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    said = said.strip()
    return Verdict(score=anls(question.answers, said), read=said or None)


def _groups(question: Question) -> Sequence[str]:
    return question.kinds


INFOVQA = Task(
    name="infovqa",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: ", ".join(item.answers),
    ways={"official": Way(_ask, _mark)},
    groups=_groups,
    source=Source("lmms-lab/DocVQA", (_TABLES,)),
)
