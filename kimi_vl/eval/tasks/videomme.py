"""Video-MME: 2,700 questions with four options about 900 videos, asked with the subtitles of 744 of them or without."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from kimi_vl.chat import Message
from kimi_vl.eval.files import Parquet, beside, checked_count, checked_unique, found, read_text
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Source, Task, Verdict, Way, user
from kimi_vl.eval.video import FRAME_PIXELS, Video, between_ends, middles

_COUNT = 2700
_SUBTITLED = 744  # videos
_TABLE = "videomme/test-00000-of-00001.parquet"
_COLUMNS = (
    *("videoID", "duration", "domain", "sub_category", "task_type"),
    *("question_id", "question", "options", "answer"),
)
_LETTERS = "ABCD"
_DURATIONS = ("short", "medium", "long")
_FRAMES = 64  # half of what the model can read; the authors leave the number open
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)
_SUBTITLES = "This video's subtitles are listed below:"
_VLMEVALKIT_FRAMES = "These are the frames of a video. "
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3}) --> (\d+):(\d\d):(\d\d)[,.](\d{3})")
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Question:
    """``options`` begin with their letters. ``subtitles`` is None for videos without, and where none are asked for."""

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    duration: str
    domain: str
    category: str
    kind: str
    video: Path
    subtitles: Path | None


@dataclass(frozen=True)
class Subtitle:
    """In seconds."""

    start: float
    end: float
    text: str


def _load(folder: Path) -> list[Question]:
    table = Parquet([found(folder, _TABLE)], _COLUMNS)
    questions = [_question(folder, row) for _, row in table.rows(_COLUMNS)]
    checked_count(questions, _COUNT, str(folder / _TABLE))
    checked_unique([question.id for question in questions], str(folder / _TABLE))
    return questions


def _question(folder: Path, row: Mapping[str, Any]) -> Question:
    where = f"{folder / _TABLE}, question_id {row['question_id']}"
    options = tuple(row["options"])
    if [option[:1] for option in options] != list(_LETTERS):
        raise ValueError(f"{where}: the options must begin with A, B, C and D, not be {options!r}")
    if row["answer"] not in _LETTERS or len(row["answer"]) != 1:
        raise ValueError(f"{where}: the answer {row['answer']!r} is none of A, B, C and D")
    if row["duration"] not in _DURATIONS:
        raise ValueError(f"{where}: a duration is {', '.join(_DURATIONS)}, not {row['duration']!r}")
    return Question(
        id=row["question_id"],
        text=row["question"],
        options=options,
        answer=row["answer"],
        duration=row["duration"],
        domain=row["domain"],
        category=row["sub_category"],
        kind=row["task_type"],
        video=_video(folder, row["videoID"], where),
        subtitles=None,
    )


def _video(folder: Path, name: str, where: str) -> Path:
    """Harnesses unpack the archives to either folder."""
    other = folder / "video" / f"{name}.mp4"
    if other.is_file():
        return other
    return beside(folder / "data", f"{name}.mp4", where, "video", way_out="unpack videos_chunked_*.zip there")


def _load_subtitled(folder: Path) -> list[Question]:
    questions = []
    for question in _load(folder):
        path = folder / "subtitle" / f"{question.video.stem}.srt"
        questions.append(replace(question, subtitles=path if path.is_file() else None))
    subtitled = len({question.subtitles for question in questions} - {None})
    if subtitled != _SUBTITLED:
        raise ValueError(
            f"{folder / 'subtitle'} has the subtitles of {subtitled} videos, and the benchmark of {_SUBTITLED}: "
            "unpack subtitle.zip there"
        )
    return questions


# ---- frames and subtitles ----


@dataclass(frozen=True)
class Film:
    """``lines`` are the subtitles of these frames, one of each frame that has any."""

    frames: tuple[Image.Image, ...]
    lines: tuple[str, ...]


def _film(question: Question, numbers_of: Callable[[int, int], list[int]]) -> Film:
    with Video(question.video) as video:
        numbers = numbers_of(video.count, _FRAMES)
        frames = video.frames(numbers, pixels=FRAME_PIXELS)
        times = [number / video.fps for number in numbers]
    subtitles = [] if question.subtitles is None else _subtitles(question.subtitles)
    lines = (_line_at(seconds, subtitles) for seconds in times)
    return Film(tuple(frames), tuple(line for line in lines if line))


def _subtitles(path: Path) -> list[Subtitle]:
    """Of a file in the form of SubRip, without its tags."""
    found = []
    for block in re.split(r"\n\s*\n", read_text(path)):
        # What stands behind a blank line within a text has no time of its own, and is left out by harnesses, too.
        if times := _CLOCK.search(block):
            start, end = (_seconds(times.groups()[place : place + 4]) for place in (0, 4))
            found.append(Subtitle(start, end, " ".join(_TAG.sub("", block[times.end() :]).split())))
    if not found:
        raise ValueError(f"{path} has no line of the form 00:00:01,000 --> 00:00:02,500: it holds no subtitles")
    return found


def _seconds(clock: Sequence[str]) -> float:
    hours, minutes, seconds, thousandths = map(int, clock)
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _line_at(seconds: float, subtitles: Sequence[Subtitle]) -> str:
    """Of the first that is on the screen then."""
    return next((one.text for one in subtitles if one.start < seconds < one.end), "")


# ---- official ----


def _ask(question: Question) -> tuple[Message, ...]:
    """As without subtitles where no frame has any."""
    film = _film(question, middles)
    text = "\n".join((_INSTRUCTION, question.text, *question.options, "The best answer is:"))
    if film.lines:
        text = "\n".join((_SUBTITLES, *film.lines, text))
    return (user(*film.frames, text),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    letter = letters.first_capital(said, _LETTERS)
    return Verdict(float(letter == question.answer), letter)


# ---- VLMEvalKit ----


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    return _asked_vlmevalkit(question, subtitled=False)


def _ask_subtitled_vlmevalkit(question: Question) -> tuple[Message, ...]:
    """An empty line stands for the subtitles of a video without."""
    return _asked_vlmevalkit(question, subtitled=True)


def _asked_vlmevalkit(question: Question, *, subtitled: bool) -> tuple[Message, ...]:
    film = _film(question, between_ends)
    lines = "\n".join(film.lines)
    about = f"{_SUBTITLES}\n{lines}\n" if subtitled else ""
    asked = "\n".join((question.text, *question.options))
    text = f"\n{_VLMEVALKIT_FRAMES}{about}{_INSTRUCTION}\nQuestion: {asked}\nAnswer: "
    return (user(*film.frames, text),)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    letter = letters.first_capital_vlmevalkit(said, _LETTERS)
    right = letters.first_capital(said, _LETTERS) == question.answer
    return Verdict(float(letter == question.answer), letter, fixed=float(right))


def _groups(question: Question) -> Sequence[str]:
    return (question.duration, question.domain, question.category, question.kind)


_SOURCE = Source("lmms-lab/Video-MME", (_TABLE, "subtitle.zip", "videos_chunked_*.zip"))

VIDEOMME = Task(
    name="videomme",
    about="Video-MME without subtitles: 2,700 questions with four options about 900 videos.",
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark), "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit)},
    groups=_groups,
    source=_SOURCE,
)

VIDEOMME_SUBTITLES = Task(
    name="videomme-subtitles",
    about="Video-MME with subtitles: 2,700 questions with four options about 900 videos, 744 of which have them.",
    load=_load_subtitled,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark), "vlmevalkit": Way(_ask_subtitled_vlmevalkit, _mark_vlmevalkit)},
    groups=_groups,
    source=_SOURCE,
)
