"""OCRBench: 1,000 questions about texts in pictures, each worth a point; a share of 0.867 is quoted as 867 points.

An answer is right that holds what is wanted, so that long ones are favoured. Its own code ends them after 100 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval.files import (
    Cell,
    Parquet,
    cell,
    checked_count,
    found,
    picture,
    presence,
    read_json,
    shown,
    tables,
    with_columns,
)
from kimi_vl.eval.scoring import ocrbench
from kimi_vl.eval.task import Source, Task, Verdict, Way, user

_COUNT = 1000
_TABLES = "data/test-*.parquet"
_COLUMNS = ("dataset", "question", "question_type", "answer")
_JSON_COLUMNS = ("dataset_name", "question", "type", "answers", "image_path")
_IMAGES = "OCRBench_Images"
_RECOGNITION = " Recognition"
_FORMULAE = "Handwritten Mathematical Expression Recognition"


@dataclass(frozen=True)
class Question:
    """The data's own numbers come several times: ``id`` is the place in its list."""

    id: str
    text: str
    answers: tuple[str, ...]
    dataset: str
    kind: str
    picture: Path | Cell = field(repr=False)


def _load(folder: Path) -> list[Question]:
    questions = list(_of_table(folder) if any(folder.glob(_TABLES)) else _of_json(folder))
    for one in questions:
        if not all(answer.strip() for answer in one.answers) or not one.answers:
            raise ValueError(f"{folder}, item {one.id}: an answer is empty, and any text would hold it")
    checked_count(questions, _COUNT, str(folder))
    return questions


def _of_table(folder: Path) -> Iterator[Question]:
    paths = tables(folder, _TABLES)
    table = Parquet(paths, [*_COLUMNS, "image"])
    for number, (place, row) in enumerate(table.rows([*_COLUMNS, *presence(["image"])])):
        yield Question(
            id=str(number),
            text=row["question"],
            answers=tuple(row["answer"]),
            dataset=row["dataset"],
            kind=row["question_type"],
            picture=cell(table, place, row, "image", f"{paths[place[0]]}, item {number}"),
        )


def _of_json(folder: Path) -> Iterator[Question]:
    path = found(folder, "OCRBench/OCRBench.json", "OCRBench.json")
    for number, raw in enumerate(read_json(path)):
        where = f"{path}, item {number}"
        row = with_columns(raw, _JSON_COLUMNS, where)
        answers = row["answers"]
        yield Question(
            id=str(number),
            text=row["question"],
            answers=(answers,) if isinstance(answers, str) else tuple(answers),
            dataset=row["dataset_name"],
            kind=row["type"],
            picture=picture(folder / _IMAGES, row["image_path"], where),
        )


def _ask(question: Question) -> tuple[Message, ...]:
    return (user(shown(question.picture), question.text),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    return Verdict(score=float(ocrbench.is_right(question.answers, said, question.dataset)), read=said or None)


def _groups(question: Question) -> Sequence[str]:
    """The six kinds of recognition are one component, too."""
    component = question.kind.endswith(_RECOGNITION) and question.kind != _FORMULAE
    return (question.kind, *(["Text Recognition"] if component else []))


OCRBENCH = Task(
    name="ocrbench",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: ", ".join(item.answers),
    ways={"official": Way(_ask, _mark)},
    groups=_groups,
    source=Source("echo840/OCRBench", (_TABLES,)),
    published={"OCRBench/OCRBench.json": "df75957e75ea052e9f38f2c67a4f6676103998517345cf49ef7d03b62c835864"},
)
