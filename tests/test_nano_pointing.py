"""Points of nano's small pictures lie on the things, words and icons that they are asked for."""

import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import ImageChops

from recipes.nano import paragraphs, pointing
from recipes.nano.fonts import Split
from recipes.nano.icon_sheets import SMALLEST, STEP, sheet
from recipes.nano.questions import COLOURS
from recipes.nano.screens import icon_styles
from recipes.nano.screens.sources import parsed_point
from recipes.nano.screens.wordings import NOT_THERE
from tests.nano import needs_data


@needs_data
def test_points_lie_on_the_things_that_were_asked_for() -> None:
    """The middle of a filled shape has its colour, up to light and noise."""
    checked = reversed_ = 0
    for index in range(150):
        shown = pointing.things_sample(1, index, "train")
        pixels = np.asarray(shown.pictures[0], np.int32)
        for turn in shown.turns:
            place = parsed_point(turn.answer)
            called = re.search(r"(\w+) (square|circle|hexagon|star|heart|cross)\b", turn.question)
            if place is None and turn.answer != NOT_THERE:
                x, y = map(float, re.findall(r"\d\.\d{3}", turn.question))
                called = re.fullmatch(r"(\w+) (square|circle|hexagon|star|heart|cross)", turn.answer)
                place, reversed_ = (x, y), reversed_ + bool(called)
            if place is None or called is None or called[1] not in COLOURS:
                continue
            x, y = round(place[0] * pixels.shape[1]), round(place[1] * pixels.shape[0])
            found = pixels[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)
            assert np.abs(found - COLOURS[called[1]]).max() < 45, (index, turn)
            checked += 1
    assert checked > 70 and reversed_ > 15


@pytest.mark.parametrize(
    ("file", "name"),
    [("trash fill", "trash"), ("arrow u up left bold", "undo"), ("lock", "lock"), ("x", "close"), ("xbox logo", None)],
)
@needs_data
def test_icons_of_every_style_are_called_the_same(file: str, name: str | None) -> None:
    assert icon_styles._name(file) == name


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_points_lie_on_the_icons_that_were_asked_for(split: Split) -> None:
    alone = 0
    for index in range(150):
        shown = sheet(Random(index), split)
        names = [name for name, _ in shown.icons]
        assert len(set(names)) == len(names)
        assert not set(shown.absent.split()) & {word for name in names for word in name.split()}
        assert not any(side % STEP for side in shown.image.size)
        if len(names) > 1:
            continue
        pixels = np.asarray(shown.image, np.int32)
        ys, xs = np.nonzero(np.abs(pixels - pixels[0, 0]).max(-1) > 40)
        ((_, (x, y)),) = shown.icons
        # An icon need not fill its square, but a frame around it does.
        assert abs(x * pixels.shape[1] - (xs.min() + xs.max()) / 2) < SMALLEST / 2
        assert abs(y * pixels.shape[0] - (ys.min() + ys.max()) / 2) < SMALLEST / 2
        alone += 1
    assert alone > 5


@needs_data
def test_points_lie_on_the_words_that_were_asked_for() -> None:
    """The last word of a line is what changes when it is left out."""
    checked = 0
    for index in range(60):
        blocks, size, _ = paragraphs._page(Random(index), "train")
        _, words = paragraphs.words_drawn(Random(index), "train")
        assert len(words) == sum(len(line.split()) for block in blocks for line in block.lines)
        at = len(blocks[0].lines[0].split()) - 1
        if at < 1 or blocks[0].spread:
            continue
        short = replace(blocks[0], lines=(blocks[0].lines[0].rsplit(" ", 1)[0], *blocks[0].lines[1:]))
        whole, without = (paragraphs.drawn(Random(1), (block,), size).convert("L") for block in (blocks[0], short))
        box = ImageChops.difference(whole, without).point(lambda light: 255 * (light > 60)).getbbox()
        assert box is not None
        name, (x, y) = words[at]
        assert name == paragraphs._bare(blocks[0].lines[0].split()[-1])
        # Signs around the word belong to what changes.
        assert box[0] <= x * size[0] <= box[2] and abs(x * size[0] - (box[0] + box[2]) / 2) < 6
        assert box[1] - 1 <= y * size[1] <= box[3] + 1
        checked += 1
    assert checked > 25
