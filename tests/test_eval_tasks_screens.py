"""Benchmarks of screens, documents, videos and desktops: what is read of their files, asked, and made of answers."""

from __future__ import annotations

import io
import json
import struct
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("av", reason="videos need the extra 'eval'")
pytest.importorskip("pyarrow", reason="tables need the extra 'eval'")

import av
import pyarrow as pa
from pyarrow import parquet

from kimi_vl.chat import Message, PicturePart, TextPart
from kimi_vl.eval import video
from kimi_vl.eval.task import Marked, Task, Verdict, macro, mean
from kimi_vl.eval.tasks import longvideobench, mlvu, mmlongbench, osworld, screenspot, videomme
from kimi_vl.eval.video import Video, between_ends, middles

LOTS = Random(0)
FPS = 5
COUNT = 40  # frames: 8 seconds
BITS = 6  # with which a frame shows its number, in columns of 16 pixels


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_picture(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def write_video(path: Path, *, count: int = COUNT, size: tuple[int, int] = (16 * BITS, 48)) -> None:
    """White columns are the ones of each frame's number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = 2
        for number in range(count):
            picture = Image.new("RGB", size)
            for bit in range(BITS):
                if number >> bit & 1:
                    picture.paste((255, 255, 255), (16 * bit, 0, 16 * bit + 16, size[1]))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def number_of(frame: Image.Image) -> int:
    grey = frame.convert("L")
    column = frame.width / BITS
    values = [grey.getpixel((int(column * (bit + 0.5)), frame.height // 2)) for bit in range(BITS)]
    return sum((isinstance(value, int) and value > 127) << bit for bit, value in enumerate(values))


def told(message: Message) -> list[int | str]:
    """Texts, and the numbers of frames, in their order."""
    found: list[int | str] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                found.append(text)
            case PicturePart(Image.Image() as frame):
                found.append(number_of(frame))
            case _:
                pytest.fail(f"{part} in a question about a video")
    return found


def fails(load: Callable[[Path], object], folder: Path, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(folder)


# ---- frames of a video ----


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path)
    return path


def test_frames_are_those_of_their_numbers_in_any_order(film: Path) -> None:
    wanted = [0, 39, 13, 12, 11, 30, 31, 30, 23, 24]
    with Video(film) as opened:
        assert (opened.count, opened.fps) == (COUNT, FPS)
        frames = opened.frames(wanted, pixels=10**6)
        assert [number_of(frame) for frame in frames] == wanted
        assert [number_of(frame) for frame in opened.frames(range(COUNT), pixels=10**6)] == list(range(COUNT))
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (96, 48))}


def test_large_frames_are_scaled_down_and_small_ones_stay(film: Path) -> None:
    with Video(film) as opened:
        (small,) = opened.frames([21], pixels=48 * 24)
        assert (small.size, number_of(small)) == ((48, 24), 21)
        assert opened.frames([21], pixels=96 * 48)[0].size == (96, 48)


def test_a_frame_that_is_not_there_is_refused(film: Path) -> None:
    with Video(film) as opened:
        for number in (-1, COUNT):
            with pytest.raises(ValueError, match=rf"film.mp4 has 40 frames, and none of the number {number}"):
                opened.frames([0, number], pixels=10**6)


def test_a_telephone_held_upright_is_shown_upright(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    with Video(tmp_path / "turned.mp4") as opened:
        (frame,) = opened.frames([1], pixels=10**6)
    assert frame.size == (48, 96)
    # The first column, which is white in frame 1, is the first row once the picture is turned clockwise.
    assert [frame.convert("L").point(lambda grey: grey > 127).getpixel((24, y)) for y in (8, 88)] == [1, 0]


def not_a_video(path: Path) -> None:
    path.write_bytes(b"no video at all " * 99)


def cut_short(path: Path) -> None:
    write_video(path)
    path.write_bytes(path.read_bytes()[:2000])


def only_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("a.mp4", not_a_video, r"a.mp4 cannot be opened as a video: Invalid data"),
        ("a.mp4", cut_short, r"a.mp4 (holds no video|cannot be opened)"),
        ("a.mp4", lambda path: None, r"a.mp4 cannot be opened as a video: No such file"),
        ("a.wav", only_sound, r"a.wav holds no video that can be decoded"),
        ("a.avi", write_video, r"a.avi: AVI does not say when its frames are shown: convert it to MP4"),
    ],
)
def test_what_is_no_video_says_why(tmp_path: Path, name: str, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / name)
    fails(Video, tmp_path / name, says)


def test_a_broken_video_says_why(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    first = data.index(b"mdat") + 4
    data[first : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - first)
    (tmp_path / "broken.mp4").write_bytes(data)
    with Video(tmp_path / "broken.mp4") as opened, pytest.raises(ValueError, match=r"broken.mp4: .+"):
        opened.frames([30], pixels=10**6)


def test_a_video_may_take_no_longer_and_be_no_larger(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(video, "_SECONDS", -1.0)
        fails(Video, film, r"film.mp4: it takes longer than -1 s to read")
    monkeypatch.setattr(video, "_MOST_PIXELS", 96 * 48 - 1)
    fails(Video, film, r"film.mp4: a frame has 96 x 48 pixels, and at most 4607 may be")


def test_without_the_library_the_extra_is_named(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    fails(Video, film, r"film.mp4: videos need the library av, pip install 'kimi-vl\[eval\]'")


def test_spread_over_a_video() -> None:
    assert middles(40, 3) == [6, 19, 32]  # pieces of 13
    assert middles(2, 4) == [0, 0, 0, 1]
    assert between_ends(40, 3) == [10, 20, 30]
    assert between_ends(2, 4) == [0, 0, 1, 1]


# ---- ScreenSpot-v2 and -Pro ----

Rows = list[dict[str, Any]]
# In 200 x 100 pixels. Width and height are larger than left and top, as where harnesses guess wrongly.
V2_ROW = {
    "img_filename": "shot.png",
    "bbox": [20, 10, 40, 30],
    "instruction": "open settings",
    "data_type": "text",
    "data_source": "ios",
}


def v2_folder(folder: Path, **rows: Rows) -> Path:
    for platform in ("mobile", "desktop", "web"):
        write_json(folder / f"screenspot_{platform}_v2.json", rows.get(platform, []))
    write_picture(folder / "screenspotv2_image" / "shot.png", (200, 100))
    return folder


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[screenspot.Target]:
    monkeypatch.setattr(screenspot, "_V2_COUNT", 4)
    corner = {**V2_ROW, "bbox": [0, 0, 50, 50], "data_type": "icon"}
    folder = v2_folder(tmp_path, mobile=[V2_ROW, {**V2_ROW, "instruction": "go back"}], web=[corner], desktop=[V2_ROW])
    return screenspot.SCREENSPOT_V2.load(folder)


def test_screenspot_v2_has_boxes_of_a_width_and_a_height(v2: Sequence[screenspot.Target]) -> None:
    assert [target.id for target in v2] == ["mobile/0", "mobile/1", "desktop/0", "web/0"]
    assert (v2[0].box, v2[0].size, v2[0].group, v2[0].kind) == ((20, 10, 60, 40), (200, 100), "mobile", "text")
    assert screenspot.SCREENSPOT_V2.groups(v2[3]) == ("web", "icon", "web, icon")


def test_screenspot_asks_in_kimi_vls_own_words(v2: Sequence[screenspot.Target]) -> None:
    first, second = screenspot.SCREENSPOT_V2.ways["official"].ask(v2[0])
    assert (first.role, second.role) == ("system", "user")
    assert first.parts == (
        TextPart(
            "You are a GUI agent. You are given a task and a screenshot of a computer screen. You need to perform a "
            "action and pyautogui code to complete the task. Provide your response in this format:\n\n## Action:\n"
            "Provide clear, concise, and actionable instructions.\n\n## Code:\nGenerate a corresponding Python code "
            "snippet using pyautogui that clicks on the identified UI element using normalized screen coordinates "
            "(values between 0 and 1). The script should dynamically adapt to the current screen resolution by "
            "converting the normalized coordinates to actual pixel positions."
        ),
    )
    assert second.parts == (PicturePart(v2[0].picture), TextPart("## Task Instruction:\nopen settings"))


def test_screenspot_asks_in_vlmevalkits_words(v2: Sequence[screenspot.Target]) -> None:
    first, second = screenspot.SCREENSPOT_V2.ways["vlmevalkit"].ask(v2[0])
    assert first.parts == (
        TextPart(
            "You are a GUI agent. You are given a task and a screenshot of the screen. You need to perform pyautogui "
            "click/moveTo action to complete the task. The answer format is `pyautogui.click(x=?, y=?), x and y is "
            "necessary`"
        ),
    )
    words = "Please complete the following tasks by clicking using `pyautogui.click`:\nopen settings"
    assert second.parts == (PicturePart(v2[0].picture), TextPart(words))


# The box is from 0.1 to 0.3 and from 0.1 to 0.4 of the picture.
@pytest.mark.parametrize(
    ("said", "score", "read"),
    [
        ("pyautogui.click(x=0.3, y=0.4)", 1.0, "0.3, 0.4"),  # edges count
        ("pyautogui.click(x=0.1, y=0.1)", 1.0, "0.1, 0.1"),
        ("pyautogui.click(x=0.25, y=0.35)", 1.0, "0.25, 0.35"),  # beyond 40 and 30 as corners
        ("pyautogui.click(x=0.301, y=0.3)", 0.0, "0.301, 0.3"),
        ("pyautogui.click(x=0.2,y=0.2)", 0.0, None),  # no blank
        ("pyautogui.click(x=40, y=20)", 0.0, None),  # pixels
        ("x=0.9, y=0.9, or x=0.2, y=0.2", 0.0, "0.9, 0.9"),  # the first counts
        ("", 0.0, None),
    ],
)
def test_screenspot_marks(v2: Sequence[screenspot.Target], said: str, score: float, read: str | None) -> None:
    assert screenspot.SCREENSPOT_V2.ways["official"].mark(v2[0], said, LOTS) == Verdict(score, read)


@pytest.mark.parametrize(
    ("said", "score", "read"),
    [
        ("x=0.3, y=0.4", 0.0, "0.3, 0.4"),  # the last pixels are 59 and 39
        ("x=0.295, y=0.39", 1.0, "0.295, 0.39"),
        ("x=50, y=30", 1.0, "0.25, 0.3"),  # pixels of 200 x 100
        ("x=1.5, y=0.2", 0.0, "0.0075, 0.002"),  # one of them is enough for both
        ("nothing", 0.0, None),
    ],
)
def test_screenspot_v2_marks_as_vlmevalkit(
    v2: Sequence[screenspot.Target], said: str, score: float, read: str | None
) -> None:
    verdict = screenspot.SCREENSPOT_V2.ways["vlmevalkit"].mark(v2[0], said, LOTS)
    assert (verdict.score, verdict.read) == (score, read)


def test_no_point_hits_a_box_in_the_corner_as_vlmevalkit_has_it(v2: Sequence[screenspot.Target]) -> None:
    ways = screenspot.SCREENSPOT_V2.ways
    assert ways["vlmevalkit"].mark(v2[3], "I see no such button.", LOTS) == Verdict(1.0, None, fixed=0.0)
    assert ways["official"].mark(v2[3], "I see no such button.", LOTS) == Verdict(0.0, None)


def test_screenspot_v2_quotes_all_items_and_its_cells_beside(v2: Sequence[screenspot.Target]) -> None:
    way = screenspot.SCREENSPOT_V2.ways["official"]
    marked = [
        Marked(target, way.mark(target, said, LOTS))
        for target, said in zip(v2, ("x=0.2, y=0.2", "x=0.2, y=0.2", "x=0.2, y=0.2", "no point"), strict=True)
    ]
    assert way.total(marked) == 3 / 4
    assert way.more["mean of the six cells"](marked) == pytest.approx(2 / 3)  # of the three that there are


PRO_ROW = {
    "id": "word_1",
    "img_filename": "word/shot.png",
    "bbox": [60, 40, 120, 90],
    "instruction": "bold",
    "instruction_cn": "",
    "img_size": [300, 200],
    "application": "word",
    "group": "Office",
    "platform": "windows",
    "ui_type": "icon",
}


def pro_folder(folder: Path, *rows: dict[str, Any]) -> Path:
    write_json(folder / "annotations" / "word_windows.json", rows)
    # half as large as the original
    write_picture(folder / "images" / "word" / "shot.png", (150, 100))
    return folder


def test_screenspot_pro_has_boxes_of_two_corners_in_the_original_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screenspot, "_PRO_COUNT", 1)
    task = screenspot.SCREENSPOT_PRO
    (target,) = task.load(pro_folder(tmp_path, PRO_ROW))
    assert task.groups(target) == ("Office", "icon", "Office, icon", "word")
    official, other = task.ways["official"], task.ways["vlmevalkit"]
    assert official.ask(target)[1].parts[1] == TextPart("## Task Instruction:\nbold")
    # from 0.2 to 0.4 and from 0.2 to 0.45
    assert official.mark(target, "x=0.4, y=0.45", LOTS).score == 1
    assert official.mark(target, "x=0.45, y=0.4", LOTS).score == 0
    assert other.mark(target, "x=0.4, y=0.45", LOTS).score == 1  # whole, unlike in v2
    assert other.mark(target, "x=61, y=89", LOTS) == Verdict(1.0, "0.203333, 0.445")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**V2_ROW, "bbox": [1, 2, 3]}, r"screenspot_web_v2.json, row 0: a bbox is four numbers, not \[1, 2, 3\]"),
        ({**V2_ROW, "bbox": [9, 9, 0, 4]}, r"row 0: nothing is inside the box from 9, 9 to 9, 13"),
        ({**V2_ROW, "data_type": "image"}, r"row 0: a target is text or icon, not 'image'"),
        ({**V2_ROW, "img_filename": "b.png"}, r"row 0: there is no picture .*b.png: unpack screenspotv2_image.zip"),
        ({"bbox": [1, 2, 3, 4]}, r"row 0: img_filename, instruction, data_type, data_source missing; there are bbox"),
        ({**V2_ROW, "img_filename": "../screenspot_web_v2.json"}, r"row 0: .* is no picture"),
    ],
)
def test_broken_data_of_screenspot_v2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(screenspot, "_V2_COUNT", 1)
    fails(screenspot.SCREENSPOT_V2.load, v2_folder(tmp_path, web=[row]), says)


def test_screenspot_v2_must_be_whole(tmp_path: Path) -> None:
    fails(screenspot.SCREENSPOT_V2.load, tmp_path, r"has no screenspot_mobile_v2.json")
    fails(screenspot.SCREENSPOT_V2.load, v2_folder(tmp_path, web=[V2_ROW]), r"has 1 items, and the benchmark 1272")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        # a width and a height are no corner
        ([{**PRO_ROW, "bbox": [60, 40, 50, 30]}], r"row 0: nothing is inside the box from 60, 40 to 50, 30"),
        ([{**PRO_ROW, "img_size": [300]}], r"row 0: img_size is a width and a height, not \[300\]"),
        ([{**PRO_ROW, "ui_type": "button"}], r"row 0: a target is text or icon, not 'button'"),
        ([{**PRO_ROW, "img_filename": "b.png"}], r"row 0: there is no picture .*images/b.png"),
        ([PRO_ROW, PRO_ROW], r"annotations has 'word_1' 2 times, and must have it once"),
        ([PRO_ROW], r"annotations has 1 items, and the benchmark 2"),
    ],
)
def test_broken_data_of_screenspot_pro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows, says: str) -> None:
    monkeypatch.setattr(screenspot, "_PRO_COUNT", 2 if len(rows) == 2 or "benchmark" in says else 1)
    fails(screenspot.SCREENSPOT_PRO.load, pro_folder(tmp_path, *rows), says)


def test_screenspot_pro_needs_lists_of_rows(tmp_path: Path) -> None:
    fails(screenspot.SCREENSPOT_PRO.load, tmp_path, r"has no annotations/\*.json")
    write_json(tmp_path / "annotations" / "a.json", {"rows": []})
    fails(screenspot.SCREENSPOT_PRO.load, tmp_path, r"a.json must be a list of rows, not dict")
    (tmp_path / "annotations" / "a.json").write_text("[{")
    fails(screenspot.SCREENSPOT_PRO.load, tmp_path, r"a.json: Expecting property name")


# ---- MMLongBench-Doc ----

COLOURS = ("red", "lime", "blue")


def sample(answer: str, answer_format: str, **other: Any) -> dict[str, Any]:
    return {
        "doc_id": "report.pdf",
        "doc_type": "Brochure",
        "question": "How many?",
        "answer": answer,
        "evidence_pages": "[2]",
        "evidence_sources": "['Chart', 'Table']",
        "answer_format": answer_format,
        **other,
    }


def documents_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> Path:
    monkeypatch.setattr(mmlongbench, "_COUNT", len(rows))
    write_json(folder / "data" / "samples.json", rows)
    path = folder / "data" / "documents" / "report.pdf"
    path.parent.mkdir(exist_ok=True)
    pages = [Image.new("RGB", (100, 60), colour) for colour in COLOURS]
    pages[0].save(path, "PDF", save_all=True, append_images=pages[1:], resolution=72, quality=100)
    return folder


def question_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *row: Any, **other: Any) -> mmlongbench.Question:
    (question,) = mmlongbench.MMLONGBENCH_DOC.load(documents_folder(folder, monkeypatch, sample(*row, **other)))
    return question


def test_mmlongbench_asks_before_the_first_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmlongbench, "_MOST_PAGES", 2)
    question = question_of(tmp_path, monkeypatch, "8", "Int")
    (message,) = mmlongbench.MMLONGBENCH_DOC.ways["official"].ask(question)
    assert (message.role, message.parts[0]) == (
        "user",
        TextPart(
            "How many?\nAnswer with a single word or phrase. If the answer is not in the document, answer "
            "'Not answerable'."
        ),
    )
    sources = [part.source for part in message.parts if isinstance(part, PicturePart)]
    pages = [Image.open(io.BytesIO(source)) for source in sources if isinstance(source, bytes)]
    assert len(pages) == len(message.parts) - 1
    assert [(page.format, page.size) for page in pages] == [("PNG", (200, 120))] * 2  # 144 dots an inch, not 72
    for page, colour in zip(pages, COLOURS[:2], strict=True):
        assert page.getpixel((9, 9)) == pytest.approx(Image.new("RGB", (1, 1), colour).getpixel((0, 0)), abs=3)


@pytest.mark.parametrize(
    ("answer", "answer_format", "said", "score", "fixed"),
    [
        ("8", "Int", " 8.9\n", 1.0, 1.0),  # the whole part counts
        ("8", "Int", "eight", 0.0, 0.0),
        ("18.29%", "Float", "0.1829", 1.0, 1.0),  # a hundredth
        ("5 miles", "Str", "5", 0.0, 1.0),  # units are not taken off
        ("Less well-off", "Str", "less well off", 12 / 13, 12 / 13),
        ("['red', 'blue']", "List", "['blue', 'red']", 1.0, 1.0),
        ("['red', 'blue']", "List", "[red, blue", 0.0, 1.0),  # where official code fails
        ("Not answerable", "None", "not answerable", 1.0, 1.0),
        ("Not answerable", "None", "", 0.0, 0.0),
    ],
)
def test_mmlongbench_marks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    answer_format: str,
    said: str,
    score: float,
    fixed: float,
) -> None:
    question = question_of(tmp_path, monkeypatch, answer, answer_format)
    verdict = mmlongbench.MMLONGBENCH_DOC.ways["official"].mark(question, said, LOTS)
    assert (verdict.score, verdict.without_faults) == pytest.approx((score, fixed))
    assert (verdict.read, verdict.by_lot) == (said.strip() or None, False)


def test_mmlongbench_quotes_accuracy_and_f1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"evidence_pages": "[]", "evidence_sources": "[]"}
    rows = [
        sample("8", "Int"),
        sample("red", "Str", evidence_pages="[2, 3]"),
        sample("Not answerable", "None", **nothing),
        sample("Not answerable", "None", **nothing),
    ]
    task = mmlongbench.MMLONGBENCH_DOC
    questions = task.load(documents_folder(tmp_path, monkeypatch, *rows))
    assert [task.groups(question) for question in questions[:3]] == [
        ("single-page", "Brochure", "Chart", "Table"),
        ("cross-page", "Brochure", "Chart", "Table"),
        ("unanswerable", "Brochure"),
    ]
    assert len({question.id for question in questions}) == 4
    way = task.ways["official"]
    said = ("8", "blue", "Not answerable", "7")
    marked = [Marked(item, way.mark(item, answer, LOTS)) for item, answer in zip(questions, said, strict=True)]
    assert way.total(marked) == 2 / 4
    # One of two is recalled, and one of three answers is right: 2 · 1/2 · 1/3 / (1/2 + 1/3).
    assert way.more["F1"](marked) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (sample("8", "Number"), r"samples.json, row 0: an answer_format is Int, Float, .*, not 'Number'"),
        (sample("Not answerable", "Str"), r"row 0: the answer 'Not answerable' has the format Str"),
        (sample("8", "None"), r"row 0: the answer '8' has the format None"),
        (sample("8", "Int", evidence_pages="five"), r"row 0: 'five' is no list"),
        (sample("8", "Int", doc_id="b.pdf"), r"row 0: there is no document .*documents/b.pdf"),
        ({"doc_id": "report.pdf"}, r"row 0: doc_type, question, answer, .* missing"),
    ],
)
def test_broken_data_of_mmlongbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], says: str
) -> None:
    fails(mmlongbench.MMLONGBENCH_DOC.load, documents_folder(tmp_path, monkeypatch, row), says)


def test_mmlongbench_must_be_whole_and_its_documents_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = question_of(tmp_path, monkeypatch, "8", "Int")
    question.document.write_bytes(b"%PDF-1.7\nnothing")
    with pytest.raises(ValueError, match="PDF cannot be read"):
        mmlongbench.MMLONGBENCH_DOC.ways["official"].ask(question)
    monkeypatch.setattr(mmlongbench, "_COUNT", 1082)
    fails(mmlongbench.MMLONGBENCH_DOC.load, tmp_path, r"samples.json has 1 items, and the benchmark 1082")
    fails(
        mmlongbench.MMLONGBENCH_DOC.load, tmp_path / "data" / "documents", r"has no data/samples.json or samples.json"
    )


# ---- LongVideoBench ----

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


# ---- Video-MME ----

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


# ---- MLVU ----

MLVU_ROW = {
    "video": "film.mp4",
    "duration": 8,
    "question": "Which colour?",
    "candidates": ["Yellow", "Red", "Green", "Blue"],
    "answer": "Red",
    "question_type": "plotQA",
}


def mlvu_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, film: Path, **rows: Rows) -> Path:
    """``rows`` by their types; of others there are none."""
    counts = {name: len(rows.get(name.partition("_")[2], [])) for name in mlvu._COUNTS}
    monkeypatch.setattr(mlvu, "_COUNTS", counts)
    monkeypatch.setattr(mlvu, "_FRAMES", 3)
    for name in counts:
        write_json(folder / "MLVU" / "json" / f"{name}.json", rows.get(name.partition("_")[2], []))
        path = folder / "MLVU" / "video" / name / "film.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(film.read_bytes())
    return folder


def test_mlvu_begins_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    (question,) = mlvu.MLVU.load(mlvu_folder(tmp_path, monkeypatch, film, needle=[MLVU_ROW]))
    assert (question.id, mlvu.MLVU.groups(question)) == ("needle/0", ("needle",))
    way = mlvu.MLVU.ways["official"]
    first, second = way.ask(question)
    assert (first.role, told(first)) == (
        "system",
        [
            "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
            "option that accurately addresses the question."
        ],
    )
    words = "Question: Which colour?\nOptions:\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue\nOnly give the best option."
    assert (second.role, told(second)) == ("user", [6, 19, 32, words])
    assert way.begun == "Best option: ("


@pytest.mark.parametrize(
    ("options", "answer", "said", "score", "read", "fixed"),
    [
        (["Yellow", "Red", "Green", "Blue"], "Red", "B) Red", 1.0, "B", 1.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", " B\n", 1.0, "B", 1.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", "B. Red", 0.0, None, 0.0),  # no bracket
        (["Yellow", "Red", "Green", "Blue"], "Red", "(A) or (B)", 0.0, "A", 0.0),
        (["Yellow", "Red", "Green", "Blue"], "Red", "Red) that is (B)", 0.0, None, 0.0),
        # of numbers the letter counts
        (["2", "1", "5", "4"], "1", "B) 1", 1.0, "B", 1.0),
        (["2", "1", "5", "4"], "1", "1)", 0.0, None, 0.0),
        # of options that say the same, officially the last is right
        (["Six", "Three", "Three", "Eight"], "Three", "B)", 0.0, "B", 1.0),
        (["Six", "Three", "Three", "Eight"], "Three", "C)", 1.0, "C", 1.0),
        # officially nothing is right
        (["Fishing", "Catching the drone", "a", "b"], "Catching a flying drone quadcopter", "B)", 0.0, "B", 1.0),
        (["Fishing", "Catching the drone", "a", "b"], "Catching a flying drone quadcopter", "A)", 0.0, "A", 0.0),
    ],
)
def test_mlvu_marks_the_letter_before_the_bracket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    film: Path,
    options: list[str],
    answer: str,
    said: str,
    score: float,
    read: str | None,
    fixed: float,
) -> None:
    row = {**MLVU_ROW, "candidates": options, "answer": answer}
    (question,) = mlvu.MLVU.load(mlvu_folder(tmp_path, monkeypatch, film, count=[row]))
    assert mlvu.MLVU.ways["official"].mark(question, said, LOTS) == Verdict(score, read, fixed=fixed)


def test_types_of_mlvu_count_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    folder = mlvu_folder(tmp_path, monkeypatch, film, plotQA=[MLVU_ROW] * 3, order=[MLVU_ROW])
    questions = mlvu.MLVU.load(folder)
    assert [question.id for question in questions] == ["plotQA/0", "plotQA/1", "plotQA/2", "order/0"]
    way = mlvu.MLVU.ways["official"]
    marked = [
        Marked(question, way.mark(question, said, LOTS)) for question, said in zip(questions, "BBBA", strict=True)
    ]
    assert way.total(marked) == 1 / 2
    assert way.more["mean of all questions"](marked) == 3 / 4


def test_a_macro_mean_of_nothing_is_nothing() -> None:
    def part(question: mlvu.Question) -> str:
        return question.type

    assert macro([], part) == 0


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "Pink"}, r"3_ego.json, row 0: the answer 'Pink' is none of the options \('Yellow', 'Red'"),
        ({"candidates": "Red"}, r"row 0: candidates must be a list, not 'Red'"),
        ({"video": "b.mp4"}, r"row 0: there is no video .*video/3_ego/b.mp4"),
    ],
)
def test_broken_data_of_mlvu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path, row: dict[str, Any], says: str
) -> None:
    fails(mlvu.MLVU.load, mlvu_folder(tmp_path, monkeypatch, film, ego=[{**MLVU_ROW, **row}]), says)


def test_mlvu_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Path) -> None:
    assert sum(mlvu._COUNTS.values()) == 2175
    fails(mlvu.MLVU.load, tmp_path, r"has no MLVU/json/1_plotQA.json or json/1_plotQA.json")
    folder = mlvu_folder(tmp_path, monkeypatch, film, ego=[MLVU_ROW])
    monkeypatch.setitem(mlvu._COUNTS, "3_ego", 352)
    fails(mlvu.MLVU.load, folder, r"3_ego.json has 1 items, and the benchmark 352")


# ---- OSWorld ----


def os_task(name: str, **evaluator: Any) -> dict[str, Any]:
    return {
        "id": name,
        "snapshot": "os",
        "instruction": "Make a folder.",
        "source": "",
        "config": [{"type": "launch", "parameters": {"command": ["nautilus"]}}],
        "trajectory": "",
        "related_apps": ["os"],
        "evaluator": evaluator,
    }


def os_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, **domains: Rows) -> Path:
    monkeypatch.setattr(osworld, "_COUNT", sum(map(len, domains.values())))
    write_json(folder / "test_all.json", {domain: [row["id"] for row in rows] for domain, rows in domains.items()})
    for domain, rows in domains.items():
        for row in rows:
            write_json(folder / "examples" / domain / f"{row['id']}.json", row)
    return folder


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., osworld.Problem]:
    """One of such an evaluator."""

    def loaded(**evaluator: Any) -> osworld.Problem:
        (found,) = osworld.load(os_folder(tmp_path, monkeypatch, os=[os_task("a", **evaluator)]))
        return found

    return loaded


class Desktop:
    """Where metrics give what the getter found, and all calls are noted."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.tools = osworld.Tools(
            getters={"value": self.value, "missing": self.missing, "nothing": lambda given: None},
            metrics={"same": self.same, "fail": self.fail},
            steps={"sleep": self.sleep, "fail": self.fail},
        )

    def value(self, given: Mapping[str, Any]) -> Any:
        self.calls.append(given["is"])
        return given["is"]

    def missing(self, given: Mapping[str, Any]) -> Any:
        self.calls.append("missing")
        raise FileNotFoundError(given["path"])

    def same(self, result: Any, *expected: Any, **options: Any) -> float:
        self.calls.append((result, *expected, options))
        return float(result) if not expected else float(result == expected[0])

    def fail(self, *given: Any, **options: Any) -> float:
        self.calls.append("fail")
        raise RuntimeError("broken")

    def sleep(self, seconds: float) -> None:
        self.calls.append(f"sleep {seconds:g}")


def value(found: float) -> dict[str, Any]:
    return {"type": "value", "is": found}


MISSING = {"type": "missing", "path": "Desktop/a"}


def test_osworld_reads_a_task(problem: Callable[..., osworld.Problem]) -> None:
    step = {"type": "sleep", "parameters": {"seconds": 3}}
    found = problem(func="same", result=value(1), expected=value(2), options={"a": 1}, postconfig=[step])
    assert found == osworld.Problem(
        id="os/a",
        domain="os",
        instruction="Make a folder.",
        snapshot="os",
        apps=("os",),
        setup=(osworld.Call("launch", {"command": ["nautilus"]}),),
        before_checks=(osworld.Call("sleep", {"seconds": 3}),),
        checks=(
            osworld.Check("same", osworld.Call("value", value(1)), osworld.Call("value", value(2)), options={"a": 1}),
        ),
        conjunction="and",
    )
    assert (found.feasible, osworld.groups(found)) == (True, ("os", "feasible"))


@pytest.mark.parametrize(
    ("actions", "score"),
    [(["pyautogui.click(1, 2)", "FAIL"], 1.0), (["FAIL", "DONE"], 0.0), (["DONE"], 0.0), ([], 0.0)],
)
def test_what_cannot_be_done_is_given_up_last(
    problem: Callable[..., osworld.Problem], actions: list[str], score: float
) -> None:
    found = problem(func="infeasible")
    assert osworld.score(found, actions, Desktop().tools) == score
    assert osworld.groups(found) == ("os", "infeasible")


def test_who_gives_up_what_can_be_done_has_nothing(problem: Callable[..., osworld.Problem]) -> None:
    desktop = Desktop()
    found = problem(func="same", result=value(1))
    assert osworld.score(found, ["DONE", "FAIL"], desktop.tools) == 0
    assert desktop.calls == []
    assert osworld.score(found, ["FAIL", "DONE"], desktop.tools) == 1
    assert osworld.score(found, [], desktop.tools) == 1


@pytest.mark.parametrize(
    ("evaluator", "score", "calls"),
    [
        ({"func": "same", "result": value(0.7)}, 0.7, [0.7, (0.7, {})]),  # not only 0 and 1
        ({"func": "same", "result": value(3), "expected": value(3)}, 1.0, [3, 3, (3, 3, {})]),
        ({"func": "same", "result": value(3), "expected": value(4)}, 0.0, [3, 4, (3, 4, {})]),
        # what is expected and not found is not compared with
        ({"func": "same", "result": value(0.5), "expected": {"type": "nothing"}}, 0.5, [0.5, (0.5, {})]),
        ({"func": "same", "result": value(1), "expected": {}, "options": {"a": 2}}, 1.0, [1, (1, {"a": 2})]),
        ({"func": "same", "result": MISSING}, 0.0, ["missing"]),
        ({"func": "same", "result": value(1), "expected": MISSING}, 0.0, [1, "missing"]),
        ({"func": "fail", "result": value(1)}, 0.0, [1, "fail"]),
        ({"func": "same", "result": {"type": "nothing"}}, 0.0, [(None, {})]),  # no number
        (
            {"func": "same", "result": value(1), "postconfig": [{"type": "sleep", "parameters": {"seconds": 2}}]},
            1.0,
            ["sleep 2", 1, (1, {})],
        ),
        ({"func": "same", "result": value(1), "postconfig": [{"type": "fail", "parameters": {}}]}, 0.0, ["fail"]),
    ],
)
def test_a_metric_of_osworld(
    problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], score: float, calls: list[object]
) -> None:
    desktop = Desktop()
    assert osworld.score(problem(**evaluator), ["DONE"], desktop.tools) == score
    assert desktop.calls == calls


@pytest.mark.parametrize(
    ("conjunction", "metrics", "results", "score", "looked_at"),
    [
        ("and", ["same"] * 2, [value(0.5), value(1)], 0.75, 2),
        ("and", ["same"] * 3, [value(1), value(0), value(1)], 0.0, 2),  # stops at nothing
        ("and", ["same", "fail", "same"], [value(1), value(1), value(1)], 0.0, 2),
        ("and", ["same"] * 2, [MISSING, value(1)], 0.0, 1),
        ("or", ["same"] * 3, [value(0.3), value(1), value(1)], 1.0, 2),  # stops at the whole
        ("or", ["same"] * 3, [value(0.3), value(0.6), value(0)], 0.6, 3),
        ("or", ["fail", "same"], [value(1), value(0.6)], 0.6, 2),
        ("or", ["same"] * 2, [MISSING, value(0.6)], 0.6, 2),
        ("or", ["same"] * 2, [value(0), value(0)], 0.0, 2),
        (None, ["same"] * 2, [value(0.5), value(0.7)], 0.6, 2),  # and
    ],
)
def test_several_metrics_of_osworld(
    problem: Callable[..., osworld.Problem],
    conjunction: str | None,
    metrics: list[str],
    results: list[Any],
    score: float,
    looked_at: int,
) -> None:
    desktop = Desktop()
    found = problem(func=metrics, result=results, **({"conj": conjunction} if conjunction else {}))
    assert osworld.score(found, ["DONE"], desktop.tools) == pytest.approx(score)
    assert len([call for call in desktop.calls if not isinstance(call, tuple) and call != "fail"]) == looked_at


def test_several_metrics_have_each_its_own(problem: Callable[..., osworld.Problem]) -> None:
    desktop = Desktop()
    found = problem(
        func=["same", "same"], result=[value(3), value(1)], expected=[value(3), None], options=[{"a": 1}, None]
    )
    assert osworld.score(found, ["DONE"], desktop.tools) == 1
    assert desktop.calls == [3, 3, (3, 3, {"a": 1}), 1, (1, {})]


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        ({"func": "compare", "result": value(1)}, r"task os/a needs the metric 'compare', and there is none"),
        ({"func": "same", "result": {"type": "vm_file"}}, r"needs the getter 'vm_file'"),
        ({"func": "same", "result": value(1), "expected": {"type": "rule"}}, r"needs the getter 'rule'"),
        (
            {"func": "same", "result": value(1), "postconfig": [{"type": "open", "parameters": {}}]},
            r"needs the step 'open'",
        ),
        ({"func": ["same", "compare"], "result": [value(0), value(1)]}, r"needs the metric 'compare'"),
    ],
)
def test_what_osworld_does_not_find_by_its_name(
    problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], says: str
) -> None:
    desktop = Desktop()
    with pytest.raises(ValueError, match=says):
        osworld.score(problem(**evaluator), ["FAIL"], desktop.tools)
    assert desktop.calls == []


def test_runs_without_a_result_stay_in_what_osworld_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [os_task("done", func="same", result=value(1)), os_task("unwritten", func="same", result=value(1))]
    # one id in two domains, as officially
    folder = os_folder(tmp_path, monkeypatch, os=rows, vlc=[os_task("done", func="infeasible")])
    problems = osworld.load(folder)
    for name, text in (("os/done", "0.5\n"), ("vlc/done", "1")):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "result.txt").write_text(text)
    marked = osworld.marked(problems, tmp_path / "run")
    assert [(one.item.id, one.verdict) for one in marked] == [
        ("os/done", Verdict(0.5, "0.5")),
        ("os/unwritten", Verdict(0.0, None)),
        ("vlc/done", Verdict(1.0, "1")),
    ]
    assert mean(marked) == 0.5
    assert mean([one for one in marked if "feasible" in osworld.groups(one.item)]) == 0.25

    for text in ("True", "2", "nan", ""):
        (tmp_path / "run" / "os/done" / "result.txt").write_text(text)
        with pytest.raises(ValueError, match=rf"result.txt: a result is a number from 0 to 1, not '{text}'"):
            osworld.marked(problems, tmp_path / "run")


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        ({"func": "same", "result": value(1), "conj": "xor"}, r"os/a.json: conj is and or or, not 'xor'"),
        ({"func": ["same"], "result": value(1)}, r"evaluator: result must be a list of 1, as func is"),
        ({"func": ["same"] * 2, "result": [value(1)]}, r"evaluator: result must be a list of 2, as func is"),
        ({"func": "same", "result": [value(1)]}, r"evaluator: result is a list, and func is none"),
        ({"func": [], "result": []}, r"evaluator: func names no metric"),
        ({"func": "same"}, r"evaluator: a row must be an object, not NoneType"),
        ({"func": "same", "result": {"is": 1}}, r"evaluator: type missing; there are is"),
        ({"result": value(1)}, r"evaluator: func missing; there are result"),
        ({"func": "same", "result": value(1), "postconfig": [{"type": "sleep"}]}, r"postconfig: parameters missing"),
    ],
)
def test_broken_tasks_of_osworld(problem: Callable[..., osworld.Problem], evaluator: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        problem(**evaluator)


def test_osworld_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(osworld.load, tmp_path, r"has no test_all.json or evaluation_examples/test_all.json")
    task = os_task("a", func="infeasible")
    fails(osworld.load, os_folder(tmp_path, monkeypatch, os=[task, task]), r"'os/a' 2 times, and must have it once")
    folder = os_folder(tmp_path, monkeypatch, os=[task])
    monkeypatch.setattr(osworld, "_COUNT", 369)
    fails(osworld.load, folder, r"test_all.json has 1 items, and the benchmark 369")
    write_json(folder / "examples" / "os" / "a.json", {**task, "id": "b"})
    fails(osworld.load, folder, r"os/a.json is the task 'b': the file of each is called by its id")
    (folder / "examples" / "os" / "a.json").unlink()
    fails(osworld.load, folder, r"test_all.json: there is no task .*examples/os/a.json")
    write_json(folder / "test_all.json", ["a"])
    fails(osworld.load, folder, r"test_all.json must have a list of ids for each domain")
