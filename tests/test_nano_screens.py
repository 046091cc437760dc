"""Screens of text: what the page's script sees, and samples of a small made screen and of the stored ones."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from recipes.nano import books, packages
from recipes.nano import sources as nano
from recipes.nano.conversation import Conversation
from recipes.nano.fonts import Split
from recipes.nano.questions import CANNOT_TELL
from recipes.nano.samples import tokenizer
from recipes.nano.screens import capture, icons, shots, sources, targets, view, wordings
from recipes.nano.screens import questions as screen_questions
from recipes.nano.sets import SETS
from recipes.nano.text import CHARACTERS
from tests.nano import needs_screens

Draw = Callable[[int, int, Split], Conversation]
SAMPLES: dict[str, Draw] = {
    "grounding": sources.grounding_sample,
    "grounding piece": partial(sources.grounding_sample, pieces=True),
    "element": sources.element_sample,
    "element piece": partial(sources.element_sample, pieces=True),
    "line": sources.line_sample,
    "paragraph": sources.paragraph_sample,
    "reading": sources.screen_reading_sample,
    "question": sources.screen_question_sample,
}
GROUPS = ("train", "heldout", "heldout-large")

PAGE = """
<body style="margin: 0; font: 16px/24px monospace; width: 400px">
<h1 style="font-size: 20px">A heading</h1>
<p style="width: 200px; margin: 0">Some words of prose that are broken <b>into</b> several lines.</p>
<p>漢字</p>
<p style="text-transform: uppercase">shown large</p>
<p style="visibility: hidden">never seen</p>
<a href="#">a link</a>
<span data-role=checkbox data-on=1><input type=checkbox checked>ticked</span>
<span data-role=field data-name=Name data-value=Ada style="border: 1px solid">Ada</span>
<div style="position: relative; height: 24px">covered<i style="position: absolute; inset: 0; background: red"></i></div>
<div style="position: relative; width: 380px">a line on which a menu hangs
<i style="position: absolute; left: 70px; width: 25px; height: 24px; top: 0; background: red"></i></div>
<div style="position: absolute; top: 390px">cut by the edge</div>
</body>
"""


@pytest.fixture
def small_shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One made screen in the place of all the stored ones."""
    record, packed = _made_screen()
    monkeypatch.setattr(shots, "SCREENS", tmp_path)
    caches = (
        shots.screens,
        shots._archive,
        shots._picture,
        sources._runs,
        targets._names,
        targets._rich,
        screen_questions._varied,
    )
    for cached in caches:
        cached.cache_clear()
    for group in GROUPS:
        shots.write(tmp_path / f"{group}.zip", [record, _other(record)], [packed, packed])
    yield
    for cached in caches:
        cached.cache_clear()


def _made_screen() -> tuple[capture.Record, bytes]:
    picture = Image.new("RGB", (320, 200), "white")
    pen = ImageDraw.Draw(picture)
    lines, elements = [], []
    for row, text in enumerate(("A heading", "First line of text.", "Second line of text.", "Third line.")):
        pen.text((10, 10 + 20 * row), text, "black")
        lines.append([min(row, 1), 10, 10 + 20 * row, 150, 24 + 20 * row, text])
    elements.append(["heading", "A heading", "", None, 10, 10, 150, 24, 1])
    for column, (role, name, on) in enumerate(
        (("button", "Save", None), ("button", "Cancel", None), ("checkbox", "Bold", 1), ("icon", "search", None))
    ):
        box = (10 + 75 * column, 120, 70 + 75 * column, 140)
        pen.rectangle(box, outline="gray")
        elements.append([role, name, "", on, *box, 1])
        if role != "icon":
            pen.text((box[0] + 4, 123), name, "black")
            lines.append([5 + column, box[0] + 4, 122, box[2] - 4, 138, name])
    # Two of one name: not to be asked for.
    elements += [["link", "Twice", "", None, 10 + 90 * i, 160, 60 + 90 * i, 175, 1] for i in range(2)]
    record = {"size": [320, 200], "source": "made", "lines": lines, "elements": elements}
    return record, capture.packed(picture)


def _other(record: capture.Record) -> capture.Record:
    """The same with other names, so that there is something to ask for in vain."""
    elements = [[role, name[::-1], *rest] for role, name, *rest in record["elements"]]
    lines = [[*line[:5], line[5][::-1]] for line in record["lines"]]
    return record | {"elements": elements, "lines": lines}


# The page's script --------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_the_script_sees_what_a_reader_sees(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "page.html").write_text(f"<meta charset=utf-8>{PAGE}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=capture.FLAGS)
        page = browser.new_page(viewport={"width": 640, "height": 400})
        page.goto((tmp_path / "page.html").as_uri())
        record = capture._shot(page, (640, 400), "test")
        browser.close()
    screen = shots.screen_from(record, "test", 0)
    texts = [line.text for line in screen.lines if line.text]
    prose = texts[1 : texts.index("SHOWN LARGE")]
    assert texts[0] == "A heading"
    assert len(prose) > 2
    assert " ".join(prose) == "Some words of prose that are broken into several lines."
    assert not {"never seen", "covered", "cut by the edge", "a line on which a menu hangs"} & set(texts)
    # What cannot be read is known to be there, unless it is not to be seen at all.
    hidden = [line.box for line in screen.lines if not line.text]
    assert len(hidden) == 4
    assert [box[0] < 70 for box in hidden] == [True, True, False, True]
    found = {element.role: element for element in screen.elements}
    assert set(found) == {"heading", "link", "checkbox", "field"}
    assert found["checkbox"].on is True
    assert (found["field"].name, found["field"].value) == ("Name", "Ada")
    assert all(element.clear for element in screen.elements)
    # A heading is as wide as its words and not as its block.
    assert found["heading"].box[2] < 250


# A made screen ------------------------------------------------------------------------------------------


def test_points_are_written_and_read() -> None:
    assert sources.point(0.5119, 0.043) == "click(x=0.512, y=0.043)"
    assert sources.parsed_point("click(x=0.512, y=0.043)") == (0.512, 0.043)
    assert sources.parsed_point(wordings.NOT_THERE) is None


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_made_samples_repeat(kind: str, split: Split, small_shelf: None) -> None:
    for index in range(20):
        _check_repeats(SAMPLES[kind], index, split)


def test_the_reading_head_sees_the_line_that_is_asked_for(small_shelf: None) -> None:
    for sample in (nano.screen_line(0, 3), nano.captioned_screen_line(0, 3)):
        assert sample.written
        assert tokenizer().decode(sample.input_ids[sample.answer_mask].tolist()).startswith(sample.written)
    assert nano.screen_paragraph(0, 3).written is None


def test_made_targets_are_unique(small_shelf: None) -> None:
    screen = shots.screens("train")[0]
    assert {element.name for element in targets.targets(targets.as_stored(screen))} == {
        "A heading",
        "Save",
        "Cancel",
        "Bold",
        "search",
    }


def test_made_questions_are_answered_by_the_screen(small_shelf: None) -> None:
    answers: dict[str, set[str]] = {}
    for index in range(300):
        for turn in sources.screen_question_sample(2, index, "heldout").turns:
            if turn.answer != CANNOT_TELL:
                answers.setdefault(turn.question, set()).add(turn.answer)
    assert answers['Which button is right of "Save"?'] == {"Cancel"}
    assert answers['Which button is left of "Cancel"?'] == {"Save"}
    assert answers['Is "Bold" checked?'] == {"yes"}
    assert answers["How many buttons are there?"] == {"2"}


def test_one_in_eight_is_not_there(small_shelf: None) -> None:
    refusals = {sources.grounding_sample: wordings.NOT_THERE, sources.screen_question_sample: CANNOT_TELL}
    for draw, refusal in refusals.items():
        turns = [turn for index in range(400) for turn in draw(7, index, "train").turns]
        share = sum(turn.answer == refusal for turn in turns) / len(turns)
        assert 0.08 < share < 0.17


def test_a_piece_of_a_screen_shows_what_it_was_cut_around_and_no_half_of_a_target(small_shelf: None) -> None:
    screen = shots.screens("train")[0]
    wanted = {element.name: element for element in targets.targets(targets.as_stored(screen))}
    areas = []
    for seed in range(200):
        name = sorted(wanted)[seed % len(wanted)]
        part = view.piece(Random(seed), screen, wanted[name].box)
        areas.append(part.image.width * part.image.height / (screen.size[0] * screen.size[1]))
        found = {element.name: element for element in targets.targets(part)}
        assert name in found
        for other in found.keys() & wanted.keys():  # what is there twice may be on the piece but once
            element = found[other]
            as_high = [(box[3] - box[1]) / (box[2] - box[0]) for box in (element.box, wanted[other].box)]
            assert as_high[0] == pytest.approx(as_high[1], rel=0.05)
    assert min(areas) < 0.15
    assert max(areas) > 0.8


def test_margins_end_where_other_text_begins() -> None:
    others = [(0.0, 0.0, 100.0, 19.0), (60.0, 20.0, 100.0, 40.0)]
    for seed in range(50):
        left, top, right, bottom = view.with_margin(Random(seed), (20, 20, 58, 40), others, (100, 45), 10)
        assert 10 <= left < 20
        assert (top, right) == (19, right)
        assert 58 < right <= 60
        assert 40 < bottom <= 45


def test_rows_are_read_from_left_to_right() -> None:
    boxes = {"b": (50, 1, 80, 11), "a": (0, 0, 40, 10), "c": (0, 20, 40, 30)}
    lines = [shots.Line(0, box, text) for text, box in boxes.items()]
    assert [line.text for line in sources.in_reading_order(lines)] == ["a", "b", "c"]


def test_no_book_icon_or_wording_of_two_splits() -> None:
    assert not set(books.TRAINING_BOOKS) & set(books.HELDOUT_BOOKS)
    assert icons.LUCIDE != icons.BREEZE
    assert len(set(icons.NAMES)) == len(icons.NAMES) > 70
    frequent = (wordings.POINT, wordings.WHAT_IS_AT, wordings.READ_SCREEN, wordings.HOLDS)
    assert all(len(set(ways)) >= 6 for ways in frequent)
    assert all(set(wording) <= set(CHARACTERS) for wording in wordings.every_wording())


def test_each_group_is_planned_to_the_last_shot() -> None:
    for group in (group for of in SETS.values() for group in capture.groups(of)):
        planned = capture.visits(group)
        assert sum(visit.shots for visit in planned) == group.count
        assert len({visit.place for visit in planned}) == len(planned)


# The stored screens -------------------------------------------------------------------------------------


def _check_repeats(draw: Draw, index: int, split: Split) -> Conversation:
    one, again = draw(5, index, split), draw(5, index, split)
    assert one.turns == again.turns
    assert one.pictures[0].tobytes() == again.pictures[0].tobytes()
    assert one.pictures[0].mode == "RGB"
    assert 1 <= len(one.turns) <= sources.MOST_TURNS
    for turn in one.turns:
        assert turn.answer and "{" not in turn.question
        assert set(turn.answer) <= {*CHARACTERS, "\n"}
        assert len(turn.answer) <= sources.LONGEST
    return one


@needs_screens
@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_samples_repeat(kind: str, split: Split) -> None:
    for index in range(25):
        sample = _check_repeats(SAMPLES[kind], index, split)
        assert np.asarray(sample.pictures[0]).std() > 1


@needs_screens
@pytest.mark.parametrize(("split", "pieces"), [("train", False), ("train", True), ("heldout", False)])
def test_points_lie_in_what_was_asked_for(split: Split, pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[view.View] = []
    shown_by: Callable[..., view.View] = view.piece if pieces else view.whole

    def kept(*given: object) -> view.View:
        views.append(shown_by(*given))
        return views[-1]

    monkeypatch.setattr(targets, shown_by.__name__, kept)
    for index in range(40):
        sample = sources.grounding_sample(3, index, split, pieces=pieces)
        shown = views[-1]
        assert shown.image is sample.pictures[0]
        for turn in sample.turns:
            place = sources.parsed_point(turn.answer)
            named = [e for e in targets.targets(shown) if _names(turn.question, e)]
            if place is None:
                assert turn.answer == wordings.NOT_THERE
                assert not named
                continue
            (element,) = named
            x, y = place[0] * shown.image.width, place[1] * shown.image.height
            assert element.box[0] <= x <= element.box[2]
            assert element.box[1] <= y <= element.box[3]


def _names(question: str, element: shots.Element) -> bool:
    return targets.reference(element) in question


@needs_screens
@pytest.mark.parametrize("group", GROUPS)
def test_boxes_hold_the_ink(group: str) -> None:
    shelf = shots.screens(group)
    bare = total = 0
    for screen in Random(1).sample(shelf, min(20, len(shelf))):
        pixels = np.asarray(screen.picture().convert("L"), np.int32)
        assert pixels.shape == (screen.size[1], screen.size[0])
        for line in screen.lines:
            x0, y0, x1, y1 = map(int, line.box)
            assert 0 <= x0 < x1 <= screen.size[0]
            assert 0 <= y0 < y1 <= screen.size[1]
            if line.text:
                total += 1
                bare += int(np.ptp(pixels[y0:y1, x0:x1]) < 40)
    assert total > 100
    assert bare < 0.01 * total


@needs_screens
def test_no_heldout_page_is_trained_on() -> None:
    def shown(group: str) -> set[str]:
        return {screen.source.split("/")[0] for screen in shots.screens(group)} - {"application"}

    assert shown("train") <= set(books.TRAINING_BOOKS)
    for group in GROUPS[1:]:
        assert shown(group) <= set(books.HELDOUT_BOOKS)
    # Whole lines that stand in both are the common words of buttons.
    trained = {line.text for screen in shots.screens("train") for line in screen.lines}
    read = [line.text for screen in shots.screens("heldout") for line in screen.lines if len(line.text) > 30]
    assert sum(text in trained for text in read) <= 0.01 * len(read)


@needs_screens
def test_the_heldout_sets_are_whole_and_fixed() -> None:
    lines = sources.heldout_lines(60)
    assert [text for _, text in lines] == [text for _, text in sources.heldout_lines(60)]
    assert all(len(text) >= 4 and image.height < 60 for image, text in lines)
    for size in sources.HELDOUT_GROUPS:
        found = sources.heldout_targets(size, 30)
        assert sum(target.kind == "icon" for target in found) == 15
        for target in found:
            assert target.image.size == size
            assert 0 <= target.box[0] < target.box[2] <= 1
            assert 0 <= target.box[1] < target.box[3] <= 1
            assert re.fullmatch(r"Where is the .+\?", target.question)


@needs_screens
def test_icons_of_the_two_splits_are_different_files() -> None:
    if not (packages.folder("npm", icons.LUCIDE).exists() and packages.folder("deb", icons.BREEZE).exists()):
        pytest.skip("the icons' packages were not fetched here")
    for name in icons.icon_names("heldout"):
        assert icons.drawing(name, "heldout", "#123456") != icons.drawing(name, "train", "#123456")
    # A drawing that lies in the package under two names is always called the same.
    assert icons.called("circle alert", "train") == icons.called("alert circle", "train")
    known = {icons.called(name, "train") for name in icons.icon_names("train")}
    shown = {e.name for screen in shots.screens("train") for e in screen.elements if e.role == "icon"}
    assert shown <= known


def test_packing_keeps_a_screen_of_few_colours() -> None:
    picture = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(picture).text((4, 4), "Text", (200, 10, 10))
    back = Image.open(io.BytesIO(capture.packed(picture))).convert("RGB")
    assert np.abs(np.asarray(back, np.int32) - np.asarray(picture, np.int32)).max() < 24
