"""ScreenSpot-v2: 1,272 instructions for screenshots of phones, desktops and pages; ScreenSpot-Pro: 1,581 of experts.

Both ask where to click. Their boxes have other forms, which nothing but the dataset tells apart: x, y, width and height
in v2, and both corners in Pro. Official is Kimi-VL's own prompt and reading, as Pro's repository has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, UnidentifiedImageError

from kimi_vl.chat import Message
from kimi_vl.eval.files import beside, checked_count, checked_unique, found, json_rows, picture
from kimi_vl.eval.scoring import points
from kimi_vl.eval.scoring.points import Box, Point
from kimi_vl.eval.task import Marked, Source, Task, Verdict, Way, macro, system, user

_V2_COUNT = 1272
_PRO_COUNT = 1581
_PLATFORMS = ("mobile", "desktop", "web")
_KINDS = ("text", "icon")
_V2_COLUMNS = ("img_filename", "bbox", "instruction", "data_type", "data_source")
_PRO_COLUMNS = ("id", "img_filename", "bbox", "instruction", "img_size", "application", "group", "ui_type")

_SYSTEM = (
    "You are a GUI agent. You are given a task and a screenshot of a computer screen. You need to perform a action and "
    "pyautogui code to complete the task. Provide your response in this format:\n\n## Action:\nProvide clear, concise, "
    "and actionable instructions.\n\n## Code:\nGenerate a corresponding Python code snippet using pyautogui that "
    "clicks on the identified UI element using normalized screen coordinates (values between 0 and 1). The script "
    "should dynamically adapt to the current screen resolution by converting the normalized coordinates to actual "
    "pixel positions."
)
_VLMEVALKIT_SYSTEM = (
    "You are a GUI agent. You are given a task and a screenshot of the screen. You need to perform pyautogui "
    "click/moveTo action to complete the task. The answer format is `pyautogui.click(x=?, y=?), x and y is necessary`"
)
_VLMEVALKIT_TASK = "Please complete the following tasks by clicking using `pyautogui.click`:\n"
_CORNER = (0.0, 0.0)


@dataclass(frozen=True)
class Target:
    """``box`` is left, top, right and bottom in pixels of the original picture, whose width and height is ``size``.

    ``group`` is a platform in v2, and a field of work in Pro; ``application`` is empty in v2.
    """

    id: str
    instruction: str
    box: Box
    size: tuple[int, int]
    kind: str
    group: str
    application: str
    picture: Path

    def share_of(self, box: Box) -> Box:
        (left, top, right, bottom), (width, height) = box, self.size
        return left / width, top / height, right / width, bottom / height


def _load_v2(folder: Path) -> list[Target]:
    targets = []
    for platform in _PLATFORMS:
        path = found(folder, f"screenspot_{platform}_v2.json")
        for number, (where, row) in enumerate(json_rows(path, _V2_COLUMNS)):
            left, top, width, height = _four(row["bbox"], where)
            name = f"screenspotv2_image/{row['img_filename']}"
            shown = beside(folder, name, where, "picture", way_out="unpack screenspotv2_image.zip there")
            targets.append(
                Target(
                    id=f"{platform}/{number}",
                    instruction=row["instruction"],
                    box=_checked((left, top, left + width, top + height), where),
                    size=_size(shown, where),
                    kind=_kind(row["data_type"], where),
                    group=platform,
                    application="",
                    picture=shown,
                )
            )
    checked_count(targets, _V2_COUNT, str(folder))
    return targets


def _load_pro(folder: Path) -> list[Target]:
    paths = sorted((folder / "annotations").glob("*.json"))
    if not paths:
        raise ValueError(f"{folder} has no annotations/*.json: it is not this benchmark in its official format")
    targets = []
    for path in paths:
        for where, row in json_rows(path, _PRO_COLUMNS):
            targets.append(
                Target(
                    id=str(row["id"]),
                    instruction=row["instruction"],
                    box=_checked(_four(row["bbox"], where), where),
                    size=_original_size(row["img_size"], where),
                    kind=_kind(row["ui_type"], where),
                    group=row["group"],
                    application=row["application"],
                    picture=picture(folder / "images", row["img_filename"], where),
                )
            )
    checked_count(targets, _PRO_COUNT, str(folder / "annotations"))
    checked_unique([target.id for target in targets], str(folder / "annotations"))
    return targets


def _four(box: Any, where: str) -> Box:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(one, int | float) for one in box):
        raise ValueError(f"{where}: a bbox is four numbers, not {box!r}")
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom


def _checked(box: Box, where: str) -> Box:
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise ValueError(f"{where}: nothing is inside the box from {left:g}, {top:g} to {right:g}, {bottom:g}")
    return box


def _kind(kind: Any, where: str) -> str:
    if kind not in _KINDS:
        raise ValueError(f"{where}: a target is {' or '.join(_KINDS)}, not {kind!r}")
    return str(kind)


def _size(path: Path, where: str) -> tuple[int, int]:
    """From the beginning of a file: v2 does not say it."""
    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{where}: {path} is no picture: {error}") from error


def _original_size(size: Any, where: str) -> tuple[int, int]:
    match size:
        case [int(width), int(height)] if width > 0 and height > 0:
            return width, height
    raise ValueError(f"{where}: img_size is a width and a height, not {size!r}")


# ---- official ----


def _ask(target: Target) -> tuple[Message, ...]:
    return system(_SYSTEM), user(target.picture, f"## Task Instruction:\n{target.instruction}")


def _mark(target: Target, said: str, lots: Random) -> Verdict:
    point = points.kimi_vl(said)
    if point is None:
        return Verdict(0.0, None)
    return Verdict(float(points.inside(point, target.share_of(target.box))), _told(point))


def _told(point: Point) -> str:
    return "{:g}, {:g}".format(*point)


# ---- VLMEvalKit ----


def _ask_vlmevalkit(target: Target) -> tuple[Message, ...]:
    return system(_VLMEVALKIT_SYSTEM), user(target.picture, f"{_VLMEVALKIT_TASK}{target.instruction}")


def _mark_v2_vlmevalkit(target: Target, said: str, lots: Random) -> Verdict:
    """The last row and column of pixels do not count."""
    left, top, right, bottom = target.box
    return _marked_vlmevalkit(target, (left, top, right - 1, bottom - 1), said)


def _mark_pro_vlmevalkit(target: Target, said: str, lots: Random) -> Verdict:
    return _marked_vlmevalkit(target, target.box, said)


def _marked_vlmevalkit(target: Target, box: Box, said: str) -> Verdict:
    """Pixels are told from shares by their size. No point at all is the upper left corner, which a box may touch."""
    x, y = points.vlmevalkit(said)
    nothing = (x, y) == _CORNER
    if x > 1 or y > 1:
        x, y = x / target.size[0], y / target.size[1]
    score = float(points.inside((x, y), target.share_of(box)))
    return Verdict(score, None, fixed=0.0) if nothing else Verdict(score, _told((x, y)))


# ---- figures ----


def _v2_groups(target: Target) -> Sequence[str]:
    return (target.group, target.kind, _cell(target))


def _pro_groups(target: Target) -> Sequence[str]:
    return (target.group, target.kind, _cell(target), target.application)


def _cell(target: Target) -> str:
    return f"{target.group}, {target.kind}"


def _mean_of_cells(marked: Sequence[Marked[Target]]) -> float:
    return macro(marked, _cell)


# Of v2, reports like Kimi-VL's quote the mean of all items, and others that of its six cells.
_V2_MORE = {"mean of the six cells": _mean_of_cells}

SCREENSPOT_V2 = Task(
    name="screenspot-v2",
    about="ScreenSpot-v2: 1,272 instructions for screenshots of phones, desktops and pages, to be clicked.",
    load=_load_v2,
    wanted=lambda item: ", ".join(f"{edge:g}" for edge in item.box),
    ways={
        "official": Way(_ask, _mark, more=_V2_MORE, max_new_tokens=8192),
        "vlmevalkit": Way(_ask_vlmevalkit, _mark_v2_vlmevalkit, more=_V2_MORE, max_new_tokens=4096),
    },
    groups=_v2_groups,
    source=Source("OS-Copilot/ScreenSpot-v2", ("screenspot_*_v2.json", "screenspotv2_image.zip")),
)

SCREENSPOT_PRO = Task(
    name="screenspot-pro",
    about="ScreenSpot-Pro: 1,581 instructions for large screenshots of 23 programs of experts, to be clicked.",
    load=_load_pro,
    wanted=lambda item: ", ".join(f"{edge:g}" for edge in item.box),
    ways={
        "official": Way(_ask, _mark, max_new_tokens=8192),
        "vlmevalkit": Way(_ask_vlmevalkit, _mark_pro_vlmevalkit, max_new_tokens=4096),
    },
    groups=_pro_groups,
    source=Source("likaixin/ScreenSpot-Pro", ("annotations/*.json", "images/*")),
)
