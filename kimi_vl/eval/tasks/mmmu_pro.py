"""MMMU-Pro (standard): 1,730 questions of MMMU that need their pictures, with up to ten options each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from kimi_vl.chat import Message
from kimi_vl.eval import vlmevalkit
from kimi_vl.eval.files import Parquet, checked_count, checked_unique, listed, presence, tables
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Source, Task, Verdict, Way, lettered
from kimi_vl.eval.tasks.mmmu import IMAGES, Question, groups_of, interleaved, pictures, read_or_drawn

_COUNT = 1730
_WORDS = ("id", "question", "options", "answer", "subject")
_DIRECTLY = "Answer with the option letter from the given choices directly."
_STEP_BY_STEP = (
    "Answer the preceding multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before answering."
)
_VLMEVALKIT = "Answer directly with the option letter from the given choices. "


def _load(folder: Path) -> list[Question]:
    paths = tables(folder, "standard (10 options)/test-*.parquet", "test-*.parquet")
    table = Parquet(paths, [*_WORDS, *IMAGES])
    questions = []
    for place, row in table.rows([*_WORDS, *presence(IMAGES)]):
        where = f"{paths[place[0]]}, {row['id']}"
        options = tuple(listed(row["options"], where))
        if row["answer"] not in lettered(options):
            raise ValueError(f"{where}: the answer {row['answer']!r} is none of {len(options)} options")
        questions.append(
            Question(
                id=row["id"],
                subject=row["subject"],
                text=row["question"],
                options=options,
                answers=(row["answer"],),
                pictures=pictures(table, place, row, [row["question"], *options], where),
            )
        )
    checked_unique((one.id for one in questions), str(folder))
    checked_count(questions, _COUNT, str(folder))
    return questions


def _listed(question: Question) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in lettered(question.options).items())


def _ask(question: Question) -> tuple[Message, ...]:
    return interleaved(f"{question.text}\n{_listed(question)}\n{_DIRECTLY}", question.pictures)


def _ask_step_by_step(question: Question) -> tuple[Message, ...]:
    return interleaved(f"{question.text}\n{_listed(question)}\n{_STEP_BY_STEP}", question.pictures)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    read = letters.mmmu_pro(said, lettered(question.options))
    return read_or_drawn(read, question.options, question.answers[0], lots)


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    told = f"Question: {question.text}\nOptions:\n{_listed(question)}\n{_VLMEVALKIT}"
    return interleaved(told, question.pictures)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    return vlmevalkit.mark(said, lettered(question.options), question.answers[0])


def _groups(question: Question) -> Sequence[str]:
    return groups_of(question.subject)


MMMU_PRO = Task(
    name="mmmu-pro",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answers[0],
    ways={
        "official": Way(_ask, _mark),
        "step-by-step": Way(_ask_step_by_step, _mark, max_new_tokens=4096),
        "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit),
    },
    groups=_groups,
    source=Source("MMMU/MMMU_Pro", ("standard (10 options)/test-*.parquet",)),
)
