"""LongVideoBench: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kimi_vl.eval.task import Verdict
from kimi_vl.eval.tasks import longvideobench
from tests.eval.films import LOTS, Rows, fails, told, write_json

LVB_ROW = {
    "id": "film_0",
    "video_path": "film.mp4",
    "subtitle_path": "film.json",
    "duration": 7.9,
    "duration_group": 15,
    "question": "Who comes in?",
    "candidates": ["a cat", "a dog", "a man", "a bird"],
    "correct_choice": 1,
    "starting_timestamp_for_subtitles": 0,
    "question_category": "S2E",
    "topic_category": "NP",
    "level": "L1",
}
# Four frames: int(7.9 · 5) is 39, and a fourth of it 9.
LVB_FRAMES = [0, 9, 18, 27]  # at 0, 1.8, 3.6 and 5.4 seconds


@pytest.fixture
def lvb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> Callable[..., longvideobench.Question]:
    """A question of a row that is changed so, and of these subtitles."""
    monkeypatch.setattr(longvideobench, "_COUNT", 1)
    monkeypatch.setattr(longvideobench, "_MOST_FRAMES", 4)

    def loaded(subtitles: Any = (), **row: Any) -> longvideobench.Question:
        write_json(tmp_path / "lvb_val.json", [{**LVB_ROW, **row}])
        write_json(tmp_path / "subtitles" / "film.json", subtitles)
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / "film.mp4").write_bytes(film.read_bytes())
        (question,) = longvideobench.LONGVIDEOBENCH.load(tmp_path)
        return question

    return loaded


LVB_END = (
    "Question: Who comes in?\nA. a cat\nB. a dog\nC. a man\nD. a bird\n"
    "Answer with the option's letter from the given choices directly."
)


@pytest.mark.parametrize(
    ("subtitles", "begins_at", "wanted"),
    [
        ([], 0, [0, 9, 18, 27]),
        # from 1 to 3, so it comes behind the frame at 1.8; from 3.7 to 4.9 no frame is shown; and 0.2 s are made one
        (
            [
                {"timestamp": [101.0, 103.0], "text": "one"},
                {"timestamp": [103.7, 104.9], "text": "unseen"},
                {"timestamp": [105.2, 105.4], "text": "short"},
            ],
            100,
            [0, 9, "one\n", 18, "short\n", 27],
        ),
        # the other form; one that ends when a frame is shown does not cover it
        (
            [
                {"start": "00:00:00.500", "end": "00:00:01.800", "line": "too early"},
                {"start": "00:00:01.500", "end": "00:00:02.500", "line": "two"},
                {"start": "00:00:05", "end": "00:00:09", "line": "last"},
            ],
            0,
            [0, 9, "two\n", 18, 27, "last\n"],
        ),
        # an end that is no float is the end of the video: the middle is at 4.45
        ([{"timestamp": [1.0, 3], "text": "to the end"}], 0, [0, 9, 18, "to the end\n", 27]),
        ([{"timestamp": [1.0, None], "text": "to the end"}], 0, [0, 9, 18, "to the end\n", 27]),
    ],
)
def test_longvideobench_shows_frames_and_subtitles_in_turn(
    lvb: Callable[..., longvideobench.Question], subtitles: Rows, begins_at: float, wanted: list[int | str]
) -> None:
    question = lvb(subtitles, starting_timestamp_for_subtitles=begins_at)
    (message,) = longvideobench.LONGVIDEOBENCH.ways["official"].ask(question)
    assert message.role == "user"
    assert told(message) == [*wanted, LVB_END]


def test_longvideobench_shows_no_more_than_a_frame_a_second(lvb: Callable[..., longvideobench.Question]) -> None:
    (message,) = longvideobench.LONGVIDEOBENCH.ways["official"].ask(lvb(duration=2.99))
    assert told(message)[:-1] == [0, 7]  # int(2.99 · 5) is 14


def test_longvideobench_as_vlmevalkit(lvb: Callable[..., longvideobench.Question]) -> None:
    way = longvideobench.LONGVIDEOBENCH.ways["vlmevalkit"]
    question = lvb([{"timestamp": [1.0, 3.0], "text": "one"}])
    (message,) = way.ask(question)
    # of all 40 frames; at 1.6, 3.2 …
    assert told(message) == [8, "one\n", 16, 24, 32, LVB_END.removeprefix("Question: ")]
    # The B of "Best", and of the options D is wrong, too.
    assert way.mark(question, "Best answer: D", LOTS) == Verdict(1.0, "B", fixed=0.0)
    assert way.mark(question, "no idea", LOTS) == Verdict(0.0, None, fixed=0.0)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("B", "B"),
        ("The best answer is: B. a dog", "B"),
        ("Best answer: B", "B"),
        ("A man and B", "A"),  # the article
        ("Dark, so B", "D"),
        ("E", "E"),  # of four options
    ],
)
def test_longvideobench_marks_the_first_capital(
    lvb: Callable[..., longvideobench.Question], said: str, read: str
) -> None:
    verdict = longvideobench.LONGVIDEOBENCH.ways["official"].mark(lvb(), said, LOTS)
    assert verdict == Verdict(float(read == "B"), read)


def test_longvideobench_draws_lots_where_nothing_is_read(lvb: Callable[..., longvideobench.Question]) -> None:
    question = lvb(candidates=["a cat", "a dog", "N/A", "N/A", "N/A"])
    assert question.options == ("a cat", "a dog")
    way = longvideobench.LONGVIDEOBENCH.ways["official"]
    verdicts = [way.mark(question, "no idea", Random(seed)) for seed in range(40)]
    for seed, verdict in enumerate(verdicts):
        assert (verdict.read, verdict.by_lot, verdict.fixed) == (None, True, 0.0)
        assert verdict.score == (Random(seed).choice("AB") == "B")
    assert 5 < sum(verdict.score for verdict in verdicts) < 35


def test_groups_of_longvideobench(lvb: Callable[..., longvideobench.Question]) -> None:
    assert longvideobench.LONGVIDEOBENCH.groups(lvb()) == ("up to 15 s", "S2E", "NP")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"correct_choice": -1}, r"lvb_val.json, row 0: correct_choice -1 is none of 4 options; only val has answers"),
        ({"correct_choice": 4}, r"row 0: correct_choice 4 is none of 4 options"),
        ({"candidates": "a cat"}, r"row 0: candidates must be a list, not 'a cat'"),
        ({"candidates": list("abcdef")}, r"row 0: there are 6 options, and at most 5 have a letter"),
        ({"duration": 0.5}, r"row 0: of a video of 0.5 s no frame is shown"),
        ({"duration": "long"}, r"row 0: a time is a number of seconds, not 'long'"),
        ({"video_path": "b.mp4"}, r"row 0: there is no video .*videos/b.mp4: unpack videos.tar"),
        ({"subtitle_path": "b.json"}, r"row 0: there is no file of subtitles .*subtitles/b.json: unpack"),
    ],
)
def test_broken_data_of_longvideobench(
    lvb: Callable[..., longvideobench.Question], row: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        lvb(**row)


@pytest.mark.parametrize(
    ("subtitles", "says"),
    [
        ([{"text": "no time"}], r"film.json, row 0 is no subtitle: it has text, not timestamp, text or start"),
        ([{"start": "1:2", "end": "0:0:3", "line": "a"}], r"row 0: a time is hours:minutes:seconds, not '1:2'"),
        ([{"timestamp": ["now", 3.0], "text": "a"}], r"row 0: a time is a number of seconds, not 'now'"),
        ({"lines": []}, r"film.json must be a list of rows, not dict"),
    ],
)
def test_broken_subtitles_of_longvideobench(
    lvb: Callable[..., longvideobench.Question], subtitles: Any, says: str
) -> None:
    question = lvb(subtitles)
    with pytest.raises(ValueError, match=says):
        longvideobench.LONGVIDEOBENCH.ways["official"].ask(question)


def test_longvideobench_must_be_whole(
    lvb: Callable[..., longvideobench.Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lvb()
    write_json(tmp_path / "lvb_val.json", [LVB_ROW, LVB_ROW])
    fails(longvideobench.LONGVIDEOBENCH.load, tmp_path, r"lvb_val.json has 2 items, and the benchmark 1")
    monkeypatch.setattr(longvideobench, "_COUNT", 2)
    fails(longvideobench.LONGVIDEOBENCH.load, tmp_path, r"'film_0' 2 times, and must have it once")
