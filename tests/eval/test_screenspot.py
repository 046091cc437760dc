"""ScreenSpot-v2 and ScreenSpot-Pro: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kimi_vl.chat import PicturePart, TextPart
from kimi_vl.eval.task import Marked, Verdict
from kimi_vl.eval.tasks import screenspot
from tests.eval.films import LOTS, Rows, fails, write_json, write_picture

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
