"""Charts, tables and receipts: answers follow from the numbers, held-out tables stay apart, samples repeat."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recipes.nano import text
from recipes.nano.conversation import Conversation
from recipes.nano.figures import chart_drawing, chart_questions, charts, numbers, tables, wordings
from recipes.nano.figures.chart_pieces import SHADES, Chart, Kind
from recipes.nano.figures.charts import (
    ChartQuestion,
    best_guess,
    chart_and_questions,
    chart_sample,
    chart_table_sample,
    heldout_charts,
    relaxed_match,
)
from recipes.nano.figures.known_tables import HELDOUT_TABLES, TRAINING_TABLES, Group, Measure, Table
from recipes.nano.figures.receipts import GOODS, HELDOUT_GOODS, receipt_and_questions, receipt_sample
from recipes.nano.figures.tables import Grid, table_and_questions, table_read_sample, table_sample
from recipes.nano.figures.views import View, said, tidy
from recipes.nano.figures.wordings import BETWEEN
from recipes.nano.fonts import Split
from recipes.nano.questions import CANNOT_TELL
from tests.nano import needs_data

Draw = Callable[[int, int, Split], Conversation]
DRAWS: tuple[Draw, ...] = (chart_sample, chart_table_sample, table_sample, table_read_sample, receipt_sample)


def _view(*values: tuple[float, ...], timed: bool = False, pair: bool = False) -> View:
    count = len(values[0])
    return View(
        title="Fruit by town",
        measure="Fruit",
        unit="kg",
        axis="Year" if timed else "Town",
        categories=tuple(str(1990 + n) for n in range(count)) if timed else ("Aa", "Bb", "Cc", "Dd", "Ee")[:count],
        series=("Plums", "Pears", "Figs")[: len(values)],
        values=values,
        timed=timed,
        parts=True,
        pair=pair,
        others=("2033",) if timed else ("Zz",),
        source="test",
    )


def _chart(view: View, kind: Kind = "bars", grain: float = 0.0) -> Chart:
    return Chart(
        view=view,
        kind=kind,
        title=view.title,
        category_axis=view.axis,
        value_axis="Fruit (kg)",
        colours=("red", "blue", "green")[: len(view.series)],
        labelled=not grain,
        grains=(grain,) * len(view.series),
        sign="",
    )


def _asked(chart: Chart, seeds: int = 60) -> dict[str, str]:
    """Everything that is asked of a chart in the plainest wordings."""
    found: dict[str, str] = {}
    for seed in range(seeds):
        for one in chart_questions.ask(Random(seed), chart, "heldout", 5):
            assert found.setdefault(one.question, one.answer) == one.answer
    return found


# Pure parts ---------------------------------------------------------------------------------------------


def test_ten_tables_are_held_out_and_no_file_is_on_both_sides() -> None:
    held_out = {table.file for table in HELDOUT_TABLES}
    assert len(held_out) == 10
    assert not held_out & {table.file for table in TRAINING_TABLES}
    assert not set(GOODS) & set(HELDOUT_GOODS)


def test_numbers_are_said_plainly() -> None:
    assert [said(n) for n in (1200.0, 3.50, 0.0, 0.25, 10.0, 1e6)] == ["1200", "3.5", "0", "0.25", "10", "1000000"]


def test_relaxed_match() -> None:
    assert relaxed_match("104", "100")
    assert not relaxed_match("106", "100")
    assert relaxed_match("1,210", "1200")
    assert relaxed_match("24%", "23%")
    assert not relaxed_match("1951", "1950"), "years are exact"
    assert relaxed_match(" Yes.", "yes")
    assert not relaxed_match("plum", "plums")
    assert not relaxed_match("", "3")
    assert not relaxed_match("nan", "3")
    assert relaxed_match("0", "0")


def test_the_best_guess_knows_kinds_but_no_pictures() -> None:
    nothing = Image.new("RGB", (28, 28))
    kinds = ("value", "value", "comparison", "comparison", "comparison")
    answers = ("10", "100", "yes", "yes", "no")
    questions = [ChartQuestion(nothing, "?", answer, kind) for answer, kind in zip(answers, kinds, strict=True)]
    assert best_guess(questions) == pytest.approx(3 / 5)


def test_rows_become_means_sums_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    where, when = Group("where", "Where"), Group("when", "Year", "year", timed=True)
    table = Table("x.json", "X", (where, when), ())
    rows: tuple[numbers.Row, ...] = (
        {"where": "Oslo", "when": "2001-03-01", "n": 1.0},
        {"where": "Oslo", "when": "Mar 5 2001", "n": "3"},
        {"where": "Rome", "when": "2001/03/07", "n": None},
        {"where": None, "when": "2001", "n": 5.0},
    )
    monkeypatch.setattr(numbers, "_rows", lambda of: rows)
    pivot = numbers._pivot.__wrapped__
    mean, total, count = Measure("n", "N"), Measure("n", "N", how="sum"), Measure("", "Rows", how="sum")
    assert pivot(table, where, None, None, mean) == {("Oslo", "*", "*"): 2.0}
    assert pivot(table, where, when, None, total) == {("Oslo", "2001", "*"): 4.0}
    assert pivot(table, where, None, None, count) == {("Oslo", "*", "*"): 2, ("Rome", "*", "*"): 1}
    assert numbers._time("2001-03-01", "month") == numbers._time("Mar 5 2001", "month") == "Mar"
    assert numbers.shortened("Wholesale and Retail Trade") == "Wholesale"
    assert len(numbers.shortened("x" * 40)) <= numbers.LONGEST_NAME


def test_large_numbers_get_a_unit_and_few_digits() -> None:
    view = tidy(Random(0), _view((12_345_678.0, 2_000_000.0, 9.0)))
    assert view.unit == "million kg"
    assert sorted(map(round, view.values[0])) == [0, 2, 12]


def test_shares_add_up_and_coarse_numbers_are_near() -> None:
    for seed in range(100):
        values = tuple(Random(seed).uniform(0.1, 873) for _ in range(5))
        shares = chart_drawing._shares(_view(values)).values[0]
        assert sum(shares) == 100
        assert all(abs(share - 100 * value / sum(values)) < 1 for share, value in zip(shares, values, strict=True))
        coarse = chart_drawing._coarse(_view(values)).values[0]
        assert all(abs(a - b) <= 0.026 * max(values) / 2 for a, b in zip(coarse, values, strict=True))


def test_questions_of_one_series_are_answered_by_its_numbers() -> None:
    asked = _asked(_chart(_view((30, 10, 25))))
    assert asked["What is the value of Aa?"] == "30"
    assert asked["What is the value of Zz?"] == CANNOT_TELL
    assert asked["Which town has the highest value?"] == "Aa"
    assert asked["Which town has the lowest value?"] == "Bb"
    assert asked["What is the difference between Cc and Bb?"] == "15"
    assert asked["Is Bb larger than Cc?"] == "no"
    assert asked["Is Bb smaller than Cc?"] == "yes"
    assert asked["How many values are above 20?"] == "2"
    assert asked["What has the value 25?"] == "Cc"
    assert asked["How many bars are there?"] == "3"
    assert asked["What is the label of the vertical axis?"] == "Fruit (kg)"
    assert asked["What is the title of the chart?"] == "Fruit by town"


def test_questions_of_several_series_are_answered_by_their_numbers() -> None:
    asked = _asked(_chart(_view((1, 5, 3), (4, 2, 8), timed=True), "lines"), 300)
    assert asked["What is the value of Pears in 1992?"] == "8"
    assert asked["What is the value of Plums in 2033?"] == CANNOT_TELL
    assert asked["Which year has the highest value of Plums?"] == "1991"
    assert asked["Which series is highest in 1991?"] == "Plums"
    assert asked["Does Plums rise or fall from 1990 to 1992?"] == chart_questions.RISES
    assert asked["Does Pears rise or fall from 1990 to 1991?"] == chart_questions.FALLS
    assert asked["How many lines are there?"] == "2"
    assert asked["What colour is Pears?"] == "blue"
    assert asked["What is red?"] == "Plums"


def test_nothing_is_asked_that_cannot_be_seen() -> None:
    # A pixel is worth 1: 30 can be read within 5 % (1.5 pixels are too few), 100 can; 100 and 102 look alike.
    asked = _asked(_chart(_view((100, 102, 30)), grain=1.0))
    assert asked["What is the value of Aa?"] == "100"
    assert "What is the value of Cc?" not in asked
    assert "Which town has the highest value?" not in asked
    assert asked["Which town has the lowest value?"] == "Cc"
    assert not {"Is Aa larger than Bb?", "Is Bb larger than Aa?"} & set(asked)


def test_wordings_have_only_names_that_are_put_in() -> None:
    allowed = {"of", "measure", "name", "axis", "series", "at", "one", "other", "what", "start", "end", "marks"}
    allowed |= {"colour", "number", "column", "row", "cell", "item", "price"}
    for wording in wordings.every_figure_wording():
        assert set(re.findall(r"{(\w+)}", wording)) <= allowed
        assert set(wording) <= set(text.CHARACTERS)


# With the downloads -------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_samples_repeat_in_our_characters_and_sizes(draw: Draw, split: Split) -> None:
    for index in range(40):
        one, again = draw(5, index, split), draw(5, index, split)
        assert one.turns == again.turns
        assert 1 <= len(one.turns) <= (8 if split == "train" else 6)
        assert len({turn.question for turn in one.turns}) == len(one.turns)
        (image,), (same,) = one.pictures, again.pictures
        assert image.mode == "RGB"
        assert image.tobytes() == same.tobytes()
        assert not any(side % 28 for side in image.size)
        assert max(image.size) <= 476
        assert np.asarray(image).std() > 3
        for turn in one.turns:
            assert turn.answer
            assert "{" not in turn.question
            assert set(turn.question + turn.answer) <= {*text.CHARACTERS, "\n"}


@needs_data
def test_heldout_tables_never_come_in_training() -> None:
    held_out = {table.file for table in HELDOUT_TABLES}
    trained = {numbers.draw_view(Random(seed), "train").source for seed in range(400)}
    asked = {numbers.draw_view(Random(seed), "heldout").source for seed in range(200)}
    assert not trained & held_out
    assert len(trained) > 15
    assert asked == held_out


@needs_data
def test_views_are_small_and_their_names_differ() -> None:
    for seed in range(300):
        view = numbers.draw_view(Random(seed), "train" if seed % 2 else "heldout")
        names = (*view.categories, *view.series)
        assert 3 <= len(view.categories) <= 8
        assert 1 <= len(view.series) <= 3
        assert len(set(view.categories)) == len(view.categories)
        assert len(set(view.series)) == len(view.series)
        assert {len(line) for line in view.values} == {len(view.categories)}
        assert view.smallest >= 0
        assert view.largest > 0
        assert set("".join((view.title, view.measure, view.unit, view.axis, *names))) <= set(text.CHARACTERS)
        assert not set(view.others) & set(view.categories)


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_answers_of_drawn_charts_follow_from_their_numbers(split: Split) -> None:
    checked = 0
    for index in range(100):
        chart, _, asked = chart_and_questions(6, index, split)
        view = chart.view
        every = [value for line in view.values for value in line]
        for one in asked:
            if one.kind in ("value", "sum", "difference"):
                assert float(one.answer.removesuffix("%")) >= 0
            if one.kind == "value":
                shown = [
                    value
                    for name, line in zip(view.series, view.values, strict=True)
                    for category, value in zip(view.categories, line, strict=True)
                    if category in one.question and (len(view.series) == 1 or name in one.question)
                ]
                assert float(one.answer.removesuffix("%")) in shown
                checked += 1
            elif one.kind in ("most", "least"):
                lines = [line for n, line in zip(view.series, view.values, strict=True) if n in one.question]
                lines = lines or list(view.values)
                at = view.categories.index(one.answer)
                end = max if one.kind == "most" else min
                assert any(line[at] == end(line) for line in lines)
                checked += 1
            elif one.kind == "difference":
                gaps = {round(abs(a - b), 4) for a in every for b in every}
                assert round(float(one.answer.removesuffix("%")), 4) in gaps
            elif one.kind == "absent":
                assert one.answer == CANNOT_TELL
    assert checked > 60


@needs_data
@pytest.mark.parametrize("by_matplotlib", [0.0, 1.0])
def test_bars_are_as_high_as_their_numbers(by_matplotlib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_drawing, "MATPLOTLIB", by_matplotlib)
    checked = 0
    for index in range(40):
        chart, image, _ = chart_and_questions(7, index, "heldout")
        view = chart.view
        plain = chart.kind == "bars" and len(view.series) == 1 and chart.colours[0] not in ("black", "gray")
        if not plain or view.smallest < 6 * chart.grains[0]:
            continue
        pixels = np.asarray(image, np.int32)
        shades = np.array(SHADES[chart.colours[0]])
        bar = (np.abs(pixels[:, :, None] - shades).max(-1) <= 2).any(-1)
        filled = bar.sum(0) > 3
        starts = np.flatnonzero(filled & ~np.roll(filled, 1))
        ends = np.flatnonzero(filled & ~np.roll(filled, -1))
        assert len(starts) == len(view.categories)
        for start, end, value in zip(starts, ends, view.values[0], strict=True):
            # The edge of a bar takes a pixel at each end, and smoothing another.
            rows = np.flatnonzero(bar[:, (start + end) // 2])
            assert abs((rows[-1] - rows[0] + 1) * chart.grains[0] - value) < 4 * chart.grains[0]
        checked += 1
    assert checked >= 2


@needs_data
def test_charts_are_written_down_as_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Chart] = []

    def kept(*given: Any) -> tuple[Chart, Image.Image]:
        drawn.append((found := chart_drawing.draw_chart(*given))[0])
        return found

    monkeypatch.setattr(charts, "draw_chart", kept)
    several = 0
    for index in range(40):
        rows = [row.split(BETWEEN) for row in chart_table_sample(4, index, "heldout").turns[0].answer.split("\n")]
        view, sign = drawn[-1].view, drawn[-1].sign
        if len(view.series) > 1:
            assert tuple(rows.pop(0)) == view.series
            several += 1
        assert [row[0] for row in rows] == list(view.categories)
        for row, values in zip(rows, zip(*view.values, strict=True), strict=True):
            assert all(cell.endswith(sign) for cell in row[1:])
            assert [float(cell.removesuffix(sign)) for cell in row[1:]] == pytest.approx(values, abs=1e-4)
    assert 5 < several < 35


@needs_data
def test_tables_are_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Grid] = []
    draw = tables._drawn

    def kept(random: Random, grid: Grid, split: Split) -> Image.Image:
        drawn.append(grid)
        return draw(random, grid, split)

    monkeypatch.setattr(tables, "_drawn", kept)
    for index in range(40):
        header, *rows = table_read_sample(4, index, "train").turns[0].answer.split("\n")
        assert tuple(header.split(BETWEEN)) == drawn[-1].header
        assert tuple(tuple(row.split(BETWEEN)) for row in rows) == drawn[-1].rows


@needs_data
def test_answers_of_drawn_tables_follow_from_their_cells() -> None:
    checked = 0
    for index in range(150):
        grid, _, asked = table_and_questions(6, index, "heldout")
        by_name = {row[0]: row for row in grid.rows}
        for one in asked:
            if one.kind == "cell":
                match = re.fullmatch(r"What is the (.+) of (.+)\?", one.question)
                assert match is not None
                assert one.answer == by_name[match[2]][grid.header.index(match[1])]
                checked += 1
            elif one.kind == "row":
                assert tuple(one.answer.split(BETWEEN)) in grid.rows
            elif one.kind == "most":
                column = grid.header.index(one.question.split(" has the largest ")[1].rstrip("?"))
                best = max(grid.rows, key=lambda row: float(row[column]))
                assert one.answer == best[0]
                checked += 1
    assert checked > 80


@needs_data
def test_receipts_add_up() -> None:
    for index in range(60):
        receipt, _, asked = receipt_and_questions(6, index, "heldout")
        for one in asked:
            if one.kind == "total":
                assert round(100 * float(one.answer.strip("$€£"))) == sum(receipt.cents)
            elif one.kind == "price":
                at = receipt.items.index(one.question.removeprefix("What is the price of ").rstrip("?"))
                assert one.answer == f"{receipt.cents[at] // 100}.{receipt.cents[at] % 100:02}"
            elif one.kind == "bought":
                assert tuple(one.answer.split(", ")) == receipt.items
        assert not {item.lower() for item in receipt.items} & set(GOODS)


@needs_data
def test_the_heldout_questions_are_many_kinds_and_hard_to_guess() -> None:
    questions = heldout_charts(60)
    assert len({one.kind for one in questions}) >= 8
    assert best_guess(questions) < 0.6
    assert [one.answer for one in heldout_charts(5)] == [one.answer for one in questions[:5]]
