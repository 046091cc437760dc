"""LongVideoBench: 1,337 questions (val) about videos of up to an hour, shown as frames between subtitles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from kimi_vl.chat import Message
from kimi_vl.eval.files import beside, checked_count, checked_unique, found, json_rows
from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Source, Task, Verdict, Way, lettered, user
from kimi_vl.eval.video import FRAME_PIXELS, Video, between_ends

_COUNT = 1337
_COLUMNS = (
    *("id", "video_path", "subtitle_path", "duration", "duration_group", "question", "candidates", "correct_choice"),
    *("starting_timestamp_for_subtitles", "question_category", "topic_category"),
)
_PAD = "N/A"  # in the place of an option that there is not
_MOST_FRAMES = 64  # as in the authors' example: half of what the model can read, and subtitles need room, too
_LETTERS = "ABCDE"
_INSTRUCTION = "Answer with the option's letter from the given choices directly."
_UNPACK = "unpack videos.tar, which is in parts, and subtitles.tar there"
_SHORTEST = 1.0  # second


@dataclass(frozen=True)
class Question:
    """``subtitles_from`` is when the video begins, on the clock of its subtitles."""

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    duration: float
    duration_group: int
    category: str
    topic: str
    subtitles_from: float
    subtitles: Path
    video: Path


@dataclass(frozen=True)
class Subtitle:
    """In seconds of the video."""

    start: float
    end: float
    text: str

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    def covers(self, seconds: float) -> bool:
        """Strictly, and for a second at least."""
        if self.end - self.start < _SHORTEST:
            return abs(seconds - self.middle) < _SHORTEST / 2
        return self.start < seconds < self.end


def _load(folder: Path) -> list[Question]:
    path = found(folder, "lvb_val.json")
    questions = [_question(folder, row, where) for where, row in json_rows(path, _COLUMNS)]
    checked_count(questions, _COUNT, str(path))
    checked_unique([question.id for question in questions], str(path))
    return questions


def _question(folder: Path, row: Mapping[str, Any], where: str) -> Question:
    if not isinstance(row["candidates"], list):
        raise ValueError(f"{where}: candidates must be a list, not {row['candidates']!r}")
    options = tuple(takewhile(lambda option: option != _PAD, map(str, row["candidates"])))
    answer = row["correct_choice"]
    if len(options) > len(_LETTERS):
        raise ValueError(f"{where}: there are {len(options)} options, and at most {len(_LETTERS)} have a letter")
    if not isinstance(answer, int) or not 0 <= answer < len(options):
        raise ValueError(f"{where}: correct_choice {answer!r} is none of {len(options)} options; only val has answers")
    duration = _number(row["duration"], where)
    if duration < 1:
        raise ValueError(f"{where}: of a video of {duration:g} s no frame is shown, for there is one a second at most")
    return Question(
        id=str(row["id"]),
        text=row["question"],
        options=options,
        answer=_LETTERS[answer],
        duration=duration,
        duration_group=int(_number(row["duration_group"], where)),
        category=row["question_category"],
        topic=row["topic_category"],
        subtitles_from=_number(row["starting_timestamp_for_subtitles"], where),
        subtitles=beside(folder / "subtitles", row["subtitle_path"], where, "file of subtitles", way_out=_UNPACK),
        video=beside(folder / "videos", row["video_path"], where, "video", way_out=_UNPACK),
    )


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"{where}: a time is a number of seconds, not {value!r}")
    return float(value)


# ---- frames and subtitles ----


def _numbers(question: Question, video: Video) -> list[int]:
    """From the first on, in steps of whole frames."""
    count = min(_MOST_FRAMES, int(question.duration))
    step = int(int(question.duration * video.fps) / count)
    return [step * place for place in range(count)]


def _numbers_vlmevalkit(question: Question, video: Video) -> list[int]:
    """As many of the shortest video."""
    return between_ends(video.count, _MOST_FRAMES)


def _subtitles(question: Question) -> list[Subtitle]:
    """Of either form that the files have."""
    return [_subtitle(question, row, where) for where, row in json_rows(question.subtitles, ())]


def _subtitle(question: Question, row: Mapping[str, Any], where: str) -> Subtitle:
    match row:
        case {"timestamp": [start, end], "text": str(text)}:
            start = _number(start, where)
            # Officially any other end than a float stands for none, as the last line may have.
            end = end if isinstance(end, float) else question.duration
        case {"start": str(start), "end": str(end), "line": str(text)}:
            start, end = _seconds(start, where), _seconds(end, where)
        case _:
            raise ValueError(
                f"{where} is no subtitle: it has {', '.join(row)}, not timestamp, text or start, end, line"
            )
    return Subtitle(start - question.subtitles_from, end - question.subtitles_from, text)


def _seconds(clock: str, where: str) -> float:
    try:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError as error:
        raise ValueError(f"{where}: a time is hours:minutes:seconds, not {clock!r}") from error


def _in_order(
    frames: Sequence[Image.Image], times: Sequence[float], subtitles: Sequence[Subtitle]
) -> Iterator[Image.Image | str]:
    """A subtitle comes behind all frames up to its middle, if it is on the screen with any; each is a line."""
    shown = 0
    for subtitle in subtitles:
        while shown < len(frames) and times[shown] <= subtitle.middle:
            yield frames[shown]
            shown += 1
        if any(map(subtitle.covers, times)):
            yield f"{subtitle.text}\n"
    yield from frames[shown:]


def _film(question: Question, numbers_of: Callable[[Question, Video], list[int]]) -> list[Image.Image | str]:
    with Video(question.video) as video:
        numbers = numbers_of(question, video)
        frames = video.frames(numbers, pixels=FRAME_PIXELS)
        times = [number / video.fps for number in numbers]
    return list(_in_order(frames, times, _subtitles(question)))


def _options(question: Question) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in lettered(question.options).items())


# ---- official ----


def _ask(question: Question) -> tuple[Message, ...]:
    text = f"Question: {question.text}\n{_options(question)}\n{_INSTRUCTION}"
    return (user(*_film(question, _numbers), text),)


def _mark(question: Question, said: str, lots: Random) -> Verdict:
    """An answer without a capital from A to E is drawn by lot."""
    letter = letters.first_capital(said, _LETTERS)
    if letter is None:
        drawn = lots.choice(list(lettered(question.options)))
        return Verdict(float(drawn == question.answer), None, by_lot=True, fixed=0.0)
    return Verdict(float(letter == question.answer), letter)


# ---- VLMEvalKit ----


def _ask_vlmevalkit(question: Question) -> tuple[Message, ...]:
    text = f"{question.text}\n{_options(question)}\n{_INSTRUCTION}"
    return (user(*_film(question, _numbers_vlmevalkit), text),)


def _mark_vlmevalkit(question: Question, said: str, lots: Random) -> Verdict:
    letter = letters.first_capital_vlmevalkit(said, _LETTERS)
    right = letters.first_capital(said, _LETTERS) == question.answer
    return Verdict(float(letter == question.answer), letter, fixed=float(right))


def _groups(question: Question) -> Sequence[str]:
    return (f"up to {question.duration_group} s", question.category, question.topic)


LONGVIDEOBENCH = Task(
    name="longvideobench",
    about=(__doc__ or "").splitlines()[0],
    load=_load,
    wanted=lambda item: item.answer,
    ways={"official": Way(_ask, _mark), "vlmevalkit": Way(_ask_vlmevalkit, _mark_vlmevalkit)},
    groups=_groups,
    source=Source("longvideobench/LongVideoBench", ("lvb_val.json", "subtitles.tar", "videos.tar.part.*")),
)
