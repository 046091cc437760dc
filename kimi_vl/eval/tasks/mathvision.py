"""MathVision (MATH-V): 3,040 questions of mathematical competitions with pictures, of which 1,532 have five options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval.files import checked_count, found, jsonl, picture
from kimi_vl.eval.scoring import mathvision
from kimi_vl.eval.scoring.calculator import Calculator
from kimi_vl.eval.task import Peer, Source, Task, Verdict, Way, lettered, user

_COUNT = 3040
_COLUMNS = ("id", "question", "options", "image", "answer", "level", "subject")
_PLACEHOLDER = re.compile(r"<image\d+>")
_INSTRUCTION = 'Please solve the problem step by step and put your answer in one "\\boxed{}".'
_LETTER = "Answer the question with the option's letter from the given choices directly."

_calculator = Calculator()


@dataclass(frozen=True)
class Problem:
    id: str
    question: str
    options: tuple[str, ...]
    answer: str
    level: int
    subject: str
    picture: Path

    @property
    def value(self) -> str:
        """Of an answer that is a letter, what its option says."""
        return lettered(self.options)[self.answer] if self.options else ""


def load(folder: Path, *, count: int = _COUNT) -> list[Problem]:
    path = found(folder, "data/test.jsonl", "test.jsonl")
    root = path.parents[1] if path.parent.name == "data" else path.parent
    problems = []
    for row in jsonl(path, _COLUMNS):
        where = f"{path}, id {row['id']}"
        options = tuple(map(str, row["options"]))
        answer = str(row["answer"])
        if options and answer not in lettered(options):
            raise ValueError(f"{where}: the answer {answer!r} is none of {len(options)} options")
        problems.append(
            Problem(
                id=str(row["id"]),
                question=row["question"],
                options=options,
                answer=answer,
                level=int(row["level"]),
                subject=row["subject"],
                picture=picture(root, row["image"], where),
            )
        )
    checked_count(problems, count, str(path))
    return problems


def _ask(problem: Problem) -> tuple[Message, ...]:
    text = f"{_INSTRUCTION}\n{_PLACEHOLDER.sub('', problem.question).strip()}"
    return (user(problem.picture, text + _choices(problem)),)


def _ask_lmms_eval(problem: Problem) -> tuple[Message, ...]:
    """With the marks of pictures left in, and a request for a bare letter behind one for steps."""
    text = f"{_INSTRUCTION}{problem.question}{_choices(problem)}"
    return (user(problem.picture, f"{text}\n{_LETTER}" if problem.options else text),)


def _choices(problem: Problem) -> str:
    told = [f"{letter}. {option}" for letter, option in lettered(problem.options).items()]
    return "\nChoices: " + "\n".join(told) if told else ""


def _mark(problem: Problem, said: str, lots: Random) -> Verdict:
    read = mathvision.extracted(said)
    wanted = [problem.answer, *([problem.value] if problem.options else [])]
    return Verdict(
        score=float(any(mathvision.is_equal(one, read, _calculator) for one in wanted)),
        read=read or None,
        fixed=float(any(mathvision.is_close(one, read, _calculator) for one in wanted)),
    )


def _groups(problem: Problem) -> Sequence[str]:
    return (f"level {problem.level}", problem.subject)


def _by_lot(problem: Problem) -> str:
    """And one without options is one."""
    return Random(f"lot/{problem.id}").choice([*lettered(problem.options)]) if problem.options else "1"


MATHVISION = Task(
    name="mathvision",
    about=(__doc__ or "").splitlines()[0],
    load=load,
    wanted=lambda item: f"{item.answer} {item.value}".strip(),
    ways={
        "official": Way(_ask, _mark, max_new_tokens=2048),
        "lmms-eval": Way(_ask_lmms_eval, _mark, max_new_tokens=16384),
    },
    groups=_groups,
    source=Source("MathLLMs/MathVision", ("data/test.jsonl", "images/*")),
    published={"data/test.jsonl": "36608758db6205692f59423316ba281a4e2e5f23286452ae31739ed4278133a8"},
    peers={"letters by lot": Peer(_by_lot)},
)
