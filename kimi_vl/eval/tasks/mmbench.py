"""MMBench (EN, v1.1, dev): questions of perception and reasoning, each once for every rotation of its options.

A question is right only if all its rotations are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import checked_unique, decoded, found, tsv
from kimi_vl.eval.task import Marked, Task, Verdict, Way, user

_COLUMNS = ("index", "question", "A", "B", "answer", "category", "l2-category", "image")
_LETTERS = "ABCDEFGH"
_NOTHING = ("", "nan", "NaN")
_STEP = 1_000_000  # from the number of one rotation to that of the next
_LONGEST_NUMBER = 64  # characters; a longer cell is a picture itself


@dataclass(frozen=True)
class Rotation:
    """``question_number`` is what the rotations of a question share, and ``rotations`` how many it has."""

    id: str
    question_number: int
    rotations: int
    hint: str
    question: str
    options: tuple[tuple[str, str], ...]
    answer: str
    category: str
    ability: str
    picture: bytes = field(repr=False)


def _load(folder: Path) -> list[Rotation]:
    path = found(folder, "MMBench_DEV_EN_V11.tsv")
    rows = tsv(path, _COLUMNS)
    checked_unique((row["index"] for row in rows), str(path))
    pictures = _pictures(rows, path)
    numbers: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        if not row["index"].isdecimal():
            raise ValueError(f"{path}: {row['index']!r} is no number of a row")
        turn, question_number = divmod(int(row["index"]), _STEP)
        numbers[question_number].append(turn)
    rotations = []
    for row in rows:
        where = f"{path}, index {row['index']}"
        options = {letter: row[letter] for letter in _LETTERS if row.get(letter, "") not in _NOTHING}
        if row["answer"] not in options:
            raise ValueError(f"{where}: the answer {row['answer']!r} is none of {len(options)} options")
        question_number = int(row["index"]) % _STEP
        turns = sorted(numbers[question_number])
        if turns != list(range(len(options))):
            raise ValueError(
                f"{where}: of {len(options)} rotations of its options there are {[one + 1 for one in turns]}: "
                "take the table with all of them"
            )
        hint = row.get("hint", "")
        rotations.append(
            Rotation(
                id=row["index"],
                question_number=question_number,
                rotations=len(options),
                hint="" if hint in _NOTHING else hint,
                question=row["question"],
                options=tuple(options.items()),
                answer=row["answer"],
                category=row["category"],
                ability=row["l2-category"],
                picture=pictures[row["index"]],
            )
        )
    return rotations


def _pictures(rows: Sequence[Mapping[str, str]], path: Path) -> dict[str, bytes]:
    """By the index of each row: its own, or that of another row whose index it has in its place."""
    own = {row["index"]: row["image"] for row in rows if len(row["image"]) > _LONGEST_NUMBER}
    read = {index: decoded(text, f"{path}, index {index}") for index, text in own.items()}
    for row in rows:
        if row["index"] in own:
            continue
        if row["image"] not in own:
            raise ValueError(f"{path}, index {row['index']}: there is no picture, nor one at index {row['image']!r}")
        read[row["index"]] = read[row["image"]]
    return read


def _ask(rotation: Rotation) -> tuple[Message, ...]:
    text = vlmevalkit.prompt(rotation.question, dict(rotation.options), hint=rotation.hint)
    return (user(rotation.picture, text),)


def _mark(rotation: Rotation, said: str, lots: Random) -> Verdict:
    return vlmevalkit.mark(said, dict(rotation.options), rotation.answer)


def _circular(marked: Sequence[Marked[Rotation]]) -> float:
    """The share of questions whose rotations are all right; each rotation has its part of its question."""
    least: dict[int, float] = defaultdict(lambda: 1.0)
    for one in marked:
        least[one.item.question_number] = min(least[one.item.question_number], one.verdict.score)
    right = sum(least[one.item.question_number] / one.item.rotations for one in marked)
    return right / sum(1 / one.item.rotations for one in marked) if marked else 0.0


def _groups(rotation: Rotation) -> Sequence[str]:
    return (rotation.ability, rotation.category)


MMBENCH = Task(
    name="mmbench",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark, total=_circular), "vanilla": Way(_ask, _mark)},
    groups=_groups,
    together=lambda rotation: str(rotation.question_number),
)
