"""Video-MME: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kimi_vl.eval.task import Task, Verdict
from kimi_vl.eval.tasks import videomme
from tests.eval.films import LOTS, fails, told

VMME_ROW = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Law",
    "url": "",
    "videoID": "film",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
    "answer": "D",
}
VMME_WORDS = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)
VMME_QUESTION = "How many?\nA. One.\nB. Two.\nC. Three.\nD. Four.\n"
SRT = """\ufeff1
00:00:01,000 --> 00:00:02,000
<font color="white" size=".72c">Hi</font>

2
00:00:02,500 --> 00:00:03,500
between frames

3
00:00:03,600 --> 00:00:07,000
two
lines

"""


def vmme_folder(folder: Path, film: Path, *rows: dict[str, Any], place: str = "data") -> Path:
    path = folder / "videomme" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    (folder / place).mkdir(exist_ok=True)
    for row in rows:
        (folder / place / f"{row.get('videoID')}.mp4").write_bytes(film.read_bytes())
    (folder / "subtitle").mkdir(exist_ok=True)
    (folder / "subtitle" / "film.srt").write_text(SRT, encoding="utf-8")
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videomme, "_COUNT", 2)
    monkeypatch.setattr(videomme, "_SUBTITLED", 1)
    monkeypatch.setattr(videomme, "_FRAMES", 3)


SILENT_ROW = {**VMME_ROW, "videoID": "silent", "question_id": "002-1", "answer": "A"}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("place", ["data", "video"])
def test_videomme_asks_without_subtitles(tmp_path: Path, film: Path, place: str) -> None:
    task = videomme.VIDEOMME
    question, _ = task.load(vmme_folder(tmp_path, film, VMME_ROW, SILENT_ROW, place=place))
    assert (question.id, task.groups(question)) == ("001-1", ("short", "Knowledge", "Law", "Counting Problem"))
    (message,) = task.ways["official"].ask(question)
    assert told(message) == [6, 19, 32, f"{VMME_WORDS}\n{VMME_QUESTION}The best answer is:"]
    (message,) = task.ways["vlmevalkit"].ask(question)
    words = f"\nThese are the frames of a video. {VMME_WORDS}\nQuestion: {VMME_QUESTION}Answer: "
    assert told(message) == [10, 20, 30, words]


@pytest.mark.usefixtures("few")
def test_videomme_asks_with_the_subtitles_of_its_frames(tmp_path: Path, film: Path) -> None:
    task = videomme.VIDEOMME_SUBTITLES
    question, silent = task.load(vmme_folder(tmp_path, film, VMME_ROW, SILENT_ROW))
    # Frames at 1.2, 3.8 and 6.4 seconds: one subtitle of each.
    (message,) = task.ways["official"].ask(question)
    subtitles = "This video's subtitles are listed below:\nHi\ntwo lines\ntwo lines\n"
    assert told(message) == [6, 19, 32, f"{subtitles}{VMME_WORDS}\n{VMME_QUESTION}The best answer is:"]
    (message,) = task.ways["official"].ask(silent)
    assert told(message) == [6, 19, 32, f"{VMME_WORDS}\n{VMME_QUESTION}The best answer is:"]

    # At 2, 4 and 6 seconds: the first ends then.
    for one, lines in ((question, "two lines\ntwo lines"), (silent, "")):
        (message,) = task.ways["vlmevalkit"].ask(one)
        words = "\nThese are the frames of a video. This video's subtitles are listed below:\n"
        words += f"{lines}\n{VMME_WORDS}\nQuestion: {VMME_QUESTION}Answer: "
        assert told(message) == [10, 20, 30, words]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("task", [videomme.VIDEOMME, videomme.VIDEOMME_SUBTITLES])
@pytest.mark.parametrize(
    ("said", "official", "vlmevalkit"),
    [
        ("D", "D", "D"),
        ("The best answer is: D. Four.", "D", "D"),
        ("Best answer: D", "D", "B"),  # a comma is missing
        ("A man has D", "A", "A"),
        ("four", None, None),
    ],
)
def test_videomme_marks(
    tmp_path: Path,
    film: Path,
    task: Task[videomme.Question],
    said: str,
    official: str | None,
    vlmevalkit: str | None,
) -> None:
    question, _ = task.load(vmme_folder(tmp_path, film, VMME_ROW, SILENT_ROW))
    assert task.ways["official"].mark(question, said, LOTS) == Verdict(float(official == "D"), official)
    verdict = task.ways["vlmevalkit"].mark(question, said, LOTS)
    assert verdict == Verdict(float(vlmevalkit == "D"), vlmevalkit, fixed=float(official == "D"))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "E"}, r"question_id 002-1: the answer 'E' is none of A, B, C and D"),
        ({"answer": "AB"}, r"question_id 002-1: the answer 'AB' is none of"),
        ({"options": ["A. One.", "B. Two.", "C. Three."]}, r"002-1: the options must begin with A, B, C and D"),
        ({"options": ["One.", "Two.", "Three.", "Four."]}, r"002-1: the options must begin with A, B, C and D"),
        ({"duration": "brief"}, r"002-1: a duration is short, medium, long, not 'brief'"),
        ({"question_id": "001-1"}, r"'001-1' 2 times, and must have it once"),
    ],
)
def test_broken_data_of_videomme(tmp_path: Path, film: Path, row: dict[str, Any], says: str) -> None:
    fails(videomme.VIDEOMME.load, vmme_folder(tmp_path, film, VMME_ROW, {**SILENT_ROW, **row}), says)


@pytest.mark.usefixtures("few")
def test_videomme_must_be_whole(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, load_subtitled = videomme.VIDEOMME.load, videomme.VIDEOMME_SUBTITLES.load
    fails(load, tmp_path, r"has no videomme/test-00000-of-00001.parquet")
    fails(load, vmme_folder(tmp_path, film, VMME_ROW), r"parquet has 1 items, and the benchmark 2")
    fails(load, vmme_folder(tmp_path, film, {"videoID": "film"}), r"duration, domain, .* missing; there are videoID")
    folder = vmme_folder(tmp_path, film, VMME_ROW, SILENT_ROW)
    (folder / "subtitle" / "film.srt").write_text("no times\n")
    question, _ = load_subtitled(folder)
    with pytest.raises(ValueError, match=r"film.srt has no line of the form 00:00:01,000 --> 00:00:02,500"):
        videomme.VIDEOMME_SUBTITLES.ways["official"].ask(question)
    (folder / "subtitle" / "film.srt").unlink()
    fails(load_subtitled, folder, r"has the subtitles of 0 videos, and the benchmark of 1: unpack subtitle.zip there")
    (folder / "data" / "silent.mp4").unlink()
    fails(load, folder, r"question_id 002-1: there is no video .*data/silent.mp4: unpack videos_chunked")
    (folder / "videomme" / "test-00000-of-00001.parquet").write_bytes(b"no table")
    fails(load, folder, r"test-00000-of-00001.parquet: .*Parquet")
