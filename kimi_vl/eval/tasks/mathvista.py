"""MathVista (testmini): 1,000 questions of mathematics in pictures, of which 540 have options.

Its own code asks a judge what of an answer is meant. There is none here: that code's rules go first, and then the last
letter, number or list counts that is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import (
    Cell,
    Parquet,
    cell,
    checked_count,
    checked_unique,
    found,
    listed,
    picture,
    presence,
    read_json,
    shown,
    tables,
    with_columns,
)
from kimi_vl.eval.scoring import letters, mathvista
from kimi_vl.eval.task import Source, Task, Verdict, Way, lettered, user

_COUNT = 1000
_COLUMNS = ("pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type", "metadata")
_HINTS = {
    "text": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
    "at the end.",
    "float 1": "Please answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "float 2": "Please answer the question requiring a floating-point number with two decimal places and provide the "
    "final value, e.g., 1.23, 1.34, 1.45, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final list, e.g., "
    "[1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LIST = re.compile(r"\[[^\[\]]*\]")
_NUMBER = re.compile(r"(?<![\w.,])-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True)
class Problem:
    """Of choices ``answer`` is the text of one; without any it is a number, or a list."""

    id: str
    question: str
    unit: str
    choices: tuple[str, ...]
    answer: str
    answer_type: str
    precision: int | None
    task: str
    skills: tuple[str, ...]
    picture: Path | Cell = field(repr=False)

    @property
    def kind(self) -> str:
        return f"float {self.precision}" if self.answer_type == "float" else self.answer_type


def _load(folder: Path) -> list[Problem]:
    problems = list(_of_table(folder) if any(folder.glob("data/testmini-*.parquet")) else _of_json(folder))
    checked_unique((one.id for one in problems), str(folder))
    checked_count(problems, _COUNT, str(folder))
    return problems


def _of_table(folder: Path) -> Iterator[Problem]:
    paths = tables(folder, "data/testmini-*.parquet")
    table = Parquet(paths, [*_COLUMNS, "decoded_image"])
    for place, row in table.rows([*_COLUMNS, *presence(["decoded_image"])]):
        where = f"{paths[place[0]]}, {row['pid']}"
        yield _problem(row, cell(table, place, row, "decoded_image", where), where)


def _of_json(folder: Path) -> Iterator[Problem]:
    path = found(folder, "data/testmini.json", "testmini.json")
    for name, raw in read_json(path).items():
        where = f"{path}, {name}"
        row = with_columns(raw, [*_COLUMNS, "image"], where)
        yield _problem(row, picture(path.parent, row["image"], where), where)


def _problem(row: Mapping[str, Any], shows: Path | Cell, where: str) -> Problem:
    precision = row["precision"]
    more = with_columns(row["metadata"], ("task", "skills"), where)
    problem = Problem(
        id=str(row["pid"]),
        question=row["question"],
        unit=row["unit"] or "",
        choices=tuple(row["choices"] or ()),
        answer=str(row["answer"]),
        answer_type=row["answer_type"],
        precision=None if precision is None else int(precision),
        task=more["task"],
        skills=tuple(more["skills"]),
        picture=shows,
    )
    if problem.kind not in _HINTS:
        raise ValueError(f"{where}: an answer of the type {problem.kind!r}; known are {', '.join(_HINTS)}")
    if (row["question_type"] == "multi_choice") != bool(problem.choices):
        raise ValueError(f"{where}: a question of the type {row['question_type']} with {len(problem.choices)} choices")
    if problem.choices and problem.answer not in problem.choices:
        raise ValueError(f"{where}: the answer {problem.answer!r} is none of {len(problem.choices)} choices")
    return problem


def _ask(problem: Problem) -> tuple[Message, ...]:
    text = f"Hint: {_HINTS[problem.kind]}\nQuestion: {problem.question}"
    if problem.unit:
        text += f" (Unit: {problem.unit})"
    if problem.choices:
        text += "\nChoices:\n" + "\n".join(
            f"({letter}) {choice}" for letter, choice in lettered(problem.choices).items()
        )
    return (user(shown(problem.picture), text.strip()),)


# ---- official ----


def _mark(problem: Problem, said: str, lots: Random) -> Verdict:
    """Of choices the official rule takes the one that is written most like nothing, where nothing is found."""
    extraction = _extracted(problem, said.strip())
    prediction = _normalised(problem, extraction)
    return Verdict(
        score=float(prediction == problem.answer),
        read=prediction if extraction else None,
        by_lot=bool(problem.choices) and not extraction,
        fixed=float(bool(extraction) and _is_close(problem, extraction)),
    )


def _normalised(problem: Problem, extraction: str) -> str | None:
    return mathvista.normalised(
        extraction, choices=problem.choices or None, answer_type=problem.answer_type, precision=problem.precision
    )


def _extracted(problem: Problem, said: str) -> str:
    """What is meant, "" where nothing can be found."""
    if said in problem.choices:
        return said
    if problem.answer_type in ("integer", "float"):
        try:
            return str(int(said) if problem.answer_type == "integer" else float(said))
        except ValueError:
            pass  # no number alone
    if quoted := _QUOTED.search(said):
        return quoted[1]
    if problem.choices:
        return letters.mmmu(said, lettered(problem.choices)) or ""
    if problem.answer_type == "list":
        return (_LIST.findall(said) or [""])[-1]
    return (_NUMBER.findall(said) or [""])[-1].replace(",", "")


def _is_close(problem: Problem, extraction: str) -> bool:
    """Without regard to how a number or a list is written."""
    if problem.choices:
        return _normalised(problem, extraction) == problem.answer
    if problem.answer_type == "list":
        return _same_list(extraction, problem.answer)
    prediction = _normalised(problem, extraction.strip().strip("$%").replace(",", ""))
    return prediction is not None and float(prediction) == float(problem.answer)


def _same_list(one: str, other: str) -> bool:
    try:
        return listed(one, "answer") == listed(other, "answer")
    except ValueError:
        return False


# ---- VLMEvalKit ----


def _mark_vlmevalkit(problem: Problem, said: str, lots: Random) -> Verdict:
    """A number must be all that is said; a list is never right, as that harness holds it against nothing."""
    if problem.choices:
        options = lettered(problem.choices)
        wanted = next(letter for letter, choice in options.items() if choice == problem.answer)
        return vlmevalkit.mark(said, options, wanted)
    if problem.answer_type == "list":
        return Verdict(score=0.0, read=said or None, fixed=float(_same_list(said.strip(), problem.answer)))
    read = int if problem.answer_type == "integer" else float
    try:
        number = read(said)
    except ValueError:
        return Verdict(score=0.0, read=None)
    return Verdict(score=float(number == read(problem.answer)), read=str(number))


def _groups(problem: Problem) -> Sequence[str]:
    return (problem.task, *problem.skills)


MATHVISTA = Task(
    name="mathvista",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={
        "official": Way(_ask, _mark, max_new_tokens=2048),
        "vlmevalkit": Way(_ask, _mark_vlmevalkit, max_new_tokens=2048),
    },
    groups=_groups,
    source=Source("AI4Math/MathVista", ("data/testmini-*.parquet",)),
    published={"data/testmini.json": "ab0148dca9d401c31cc47f29b3826eec28a76ff155a1c0878d81e8daf0413480"},
)
