"""MLVU (dev): 2,175 questions with four options about videos of minutes to hours, of seven types that count alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from kimi_vl.chat import Message
from kimi_vl.eval.files import beside, checked_count, found, json_rows
from kimi_vl.eval.scoring.letters import before_bracket
from kimi_vl.eval.task import Marked, Source, Task, Verdict, Way, lettered, macro, mean, system, user
from kimi_vl.eval.video import FRAME_PIXELS, Video, middles

# Files, by the types of which they hold so many questions.
_COUNTS = {
    "1_plotQA": 539,
    "2_needle": 355,
    "3_ego": 352,
    "4_count": 206,
    "5_order": 259,
    "6_anomaly_reco": 200,
    "7_topic_reasoning": 264,
}
_COLUMNS = ("video", "question", "candidates", "answer")
_FRAMES = 64  # half of what the model can read; the authors leave the number open
# Two questions as published have an answer that is none of their options, and means this one.
_MEANT = {"Catching a flying drone quadcopter": "Catching the drone"}
_SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
_INSTRUCTION = "Only give the best option."


@dataclass(frozen=True)
class Question:
    """``answer`` is what the right option says, which others may say, too."""

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    type: str
    video: Path

    @property
    def official_letter(self) -> str | None:
        """The last of options that say the same, and none where no option says it."""
        return next(
            (letter for letter, option in reversed(lettered(self.options).items()) if option == self.answer), None
        )

    @property
    def right_letters(self) -> frozenset[str]:
        meant = {self.answer, _MEANT.get(self.answer, self.answer)}
        return frozenset(letter for letter, option in lettered(self.options).items() if option in meant)


def _load(folder: Path) -> list[Question]:
    questions = []
    for name, count in _COUNTS.items():
        path = found(folder, f"MLVU/json/{name}.json", f"json/{name}.json")
        rows = json_rows(path, _COLUMNS)
        checked_count(rows, count, str(path))
        videos = path.parents[1] / "video" / name
        questions += [_question(name, number, videos, row, where) for number, (where, row) in enumerate(rows)]
    return questions


def _question(name: str, number: int, videos: Path, row: Mapping[str, Any], where: str) -> Question:
    kind = name.partition("_")[2]
    if not isinstance(row["candidates"], list):
        raise ValueError(f"{where}: candidates must be a list, not {row['candidates']!r}")
    question = Question(
        id=f"{kind}/{number}",
        text=row["question"],
        options=tuple(map(str, row["candidates"])),
        answer=str(row["answer"]),
        type=kind,
        video=beside(videos, row["video"], where, "video", way_out="the hub has it in MLVU/video"),
    )
    if not question.right_letters:
        raise ValueError(f"{where}: the answer {question.answer!r} is none of the options {question.options!r}")
    return question


def _ask(question: Question) -> tuple[Message, ...]:
    with Video(question.video) as video:
        frames = video.frames(middles(video.count, _FRAMES), pixels=FRAME_PIXELS)
    options = "\n".join(f"({letter}) {option}" for letter, option in lettered(question.options).items())
    text = f"Question: {question.text}\nOptions:\n{options}".rstrip()
    return system(_SYSTEM), user(*frames, f"{text}\n{_INSTRUCTION}")


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    """An answer without a bracket must be the letter alone."""
    letter = before_bracket(said) if ")" in said else said.strip()
    read = letter if letter in lettered(question.options) else None
    return Verdict(
        score=float(read is not None and read == question.official_letter),
        read=read,
        fixed=float(read in question.right_letters),
    )


def _groups(question: Question) -> Sequence[str]:
    return (question.type,)


def _mean_of_types(marked: Sequence[Marked[Question]]) -> float:
    return macro(marked, lambda question: question.type)


MLVU = Task(
    name="mlvu",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={
        # VLMEvalKit quotes the mean of all questions instead.
        "official": Way(_ask, _mark, total=_mean_of_types, more={"mean of all questions": mean}, begun="Best option: (")
    },
    groups=_groups,
    source=Source("MLVU/MVLU", ("MLVU/json/*.json", "MLVU/video/*")),
)
