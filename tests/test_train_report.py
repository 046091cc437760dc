"""The page by which a run is watched: from real files, its curves to the pixel, its alarms, and in a real browser."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from kimi_vl.cli import train
from kimi_vl.train import loop
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.watching.curves import LEFT, RIGHT
from kimi_vl.train.watching.report import in_words, report
from kimi_vl.train.watching.watched import Line, Stage, alarms, read_stage, rising, runs_in, seconds_left, seconds_of
from tests import browsing
from tests.conftest import random_model
from tests.training import TINY, pupil_of, words

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<script>window.hit = 1</script><!--STAGES--> & \"quoted\" 'too'"
STEADY = {"lr": 1e-3, "grad_norm": 1.0, "busiest": 1.5, "idlest": 0.5}
FEW = [{"step": 10 * n, "seconds": 2.0 * n, "text": 4.0 - n / 10, **STEADY} for n in range(1, 21)]


def run_of(folder: Path, lines: Sequence[dict[str, Any]] = FEW, *, planned: int = 400, after: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + after)
    (folder / "schedule.json").write_text(json.dumps({"steps": planned, "batch_size": 4, "peak": 1e-3}))
    return folder


def with_samples(folder: Path) -> Path:
    (folder / "seen").mkdir()
    Image.new("RGB", (80, 20), "red").save(folder / "seen" / "one.png")
    shown = [
        {"step": step, "question": HOSTILE, "answer": answer, "wanted": "red", "pictures": ["seen/one.png"]}
        for step, answer in ((100, "<b>green"), (200, " red\n"))
    ]
    shown.append({"step": 200, "question": "Hello?", "answer": "Hello.", "wanted": None, "pictures": []})
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in shown))
    return folder


def page_of(run: Path) -> str:
    target = run.parent / f"{run.name}.html"
    report(run, target)
    return target.read_text(encoding="utf-8")


def stage_of(figures: Sequence[dict[str, float]], *, planned: int | None = None) -> Stage:
    lines = [Line(n, float(n), each) for n, each in enumerate(figures, 1)]
    return Stage(Path("run"), lines, planned, None, ())


# -- what is read ----------------------------------------------------------------------------------------


def test_a_run_of_the_trainer_is_read_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = Mixture([Source("all", 1.0, lambda seed, index: words(6, index, 2))], seed=1, batch_size=4)
    schedule = loop.Schedule(steps=6, peak=1e-3, warmup=2)
    loop.train(pupil_of(random_model(config=TINY), reading=0.0), data, schedule, tmp_path / "run", workers=0)
    stage = read_stage(tmp_path / "run")
    assert [line.step for line in stage.lines] == [1, 2, 3, 4, 5, 6]
    assert (stage.planned, stage.samples_per_step) == (6, 4)
    assert set(stage.losses) == {"text", "balance"}
    page = page_of(tmp_path / "run")
    assert "<dt>samples a step</dt><dd>4</dd>" in page
    assert "<dt>steps</dt><dd>6 of 6</dd>" in page
    assert "<dt>left</dt><dd>done</dd>" in page


@pytest.mark.parametrize("half", ['{"step": 210, "te', "12", "{}", '{"step": 210, "seconds": "x"}', "\ufffd", "null"])
def test_a_last_line_half_written_is_left_out(tmp_path: Path, half: str) -> None:
    assert len(read_stage(run_of(tmp_path / "run", after=half)).lines) == len(FEW)


def test_a_last_line_cut_within_a_letter_is_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    with (run / "log.jsonl").open("ab") as log:
        log.write('{"step": 210, "ü'.encode()[:-1])
    assert len(read_stage(run).lines) == len(FEW)


@pytest.mark.parametrize(
    "broken", ['{"step": 210, "te', "12", "", '{"step": 210}', '{"seconds": 1}', '{"step": Infinity, "seconds": 1}']
)
def test_any_other_broken_line_is_named(tmp_path: Path, broken: str) -> None:
    run = run_of(tmp_path / "run", after=f'{broken}\n{{"step": 220, "seconds": 50}}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 21 cannot be read"):
        report(run, tmp_path / "page.html")
    assert not list(tmp_path.glob("page*"))


def test_samples_are_read_by_the_same_rule(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    good = json.dumps({"step": 1, "question": "a\u2028b", "answer": 7, "wanted": 7}, ensure_ascii=False)
    (run / "samples.jsonl").write_text(f'{good}\n{{"step": 2, "quest', encoding="utf-8")
    (shown,) = read_stage(run).shown
    assert (shown.question, shown.wrong, shown.pictures) == ("a\u2028b", False, ())
    bad = '{"step": 1, "question": "", "answer": "", "pictures": "one.png"}'
    (run / "samples.jsonl").write_text(f"{bad}\n{good}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"samples\.jsonl, line 1 cannot be read"):
        read_stage(run)


def test_steps_that_go_back_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 21: step 10 comes after step 200"):
        read_stage(run_of(tmp_path / "run", [*FEW, FEW[0]]))


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    page = page_of(run_of(tmp_path / "run", []))
    assert "0 of 400" in page
    assert "<svg" not in page


def test_a_plan_that_cannot_be_read_is_named_and_none_is_none(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    (run / "schedule.json").write_text("{")
    with pytest.raises(ValueError, match=r"schedule\.json does not tell how many steps"):
        read_stage(run)
    (run / "schedule.json").unlink()
    assert read_stage(run).planned is None
    assert "<dt>steps</dt><dd>200</dd>" in page_of(run)


def test_stages_come_in_the_order_in_which_they_ran(tmp_path: Path) -> None:
    now = time.time()
    for age, name in enumerate(("joint", "alignment", "vision", "text")):
        log = run_of(tmp_path / "recipe" / name) / "log.jsonl"
        os.utime(log, (now - 60 * age, now - 60 * age))
    (tmp_path / "recipe" / "no run").mkdir()
    assert [run.name for run in runs_in(tmp_path / "recipe")] == ["text", "vision", "alignment", "joint"]
    headings = re.findall(r"<h2>(\w+)</h2>", page_of(tmp_path / "recipe"))
    assert headings == ["text", "vision", "alignment", "joint"]


def test_time_is_summed_over_beginnings_and_what_is_left_goes_by_the_present_speed() -> None:
    lines = [Line(n, 10.0 * n, {}) for n in range(1, 21)] + [Line(20 + n, 2.0 * n, {}) for n in range(1, 6)]
    stage = Stage(Path(), lines, 125, None, ())
    assert seconds_of(lines) == 200 + 10
    assert seconds_left(stage) == pytest.approx(100 * 2.0)
    assert seconds_left(Stage(Path(), lines[:21], 125, None, ())) is None  # one line tells no speed
    assert seconds_left(Stage(Path(), lines, None, None, ())) is None
    assert seconds_left(Stage(Path(), lines, 20, None, ())) == 0
    assert [in_words(s) for s in (0.4, 59.6, 3599.7, 3661, 200_000)] == [
        "0 s", "1 min 0 s", "1 h 0 min", "1 h 1 min", "2 d 7 h",
    ]  # fmt: skip


# -- alarms ----------------------------------------------------------------------------------------------


def test_a_dead_expert_is_told_after_fifty_lines() -> None:
    alive, dead = {"idlest": 0.2}, {"idlest": 0.0}
    assert alarms(stage_of([alive] * 5 + [dead] * 49 + [alive] + [dead] * 10)) == []
    (told,) = alarms(stage_of([alive] * 5 + [dead] * 50))
    assert told == "An expert is dead: in 50 logged steps, 6 to 55, it got nothing."


def test_a_balance_loss_below_what_even_experts_give_is_told() -> None:
    """(H10)"""
    assert alarms(stage_of([{"balance": 0.5}] * 9 + [{"balance": 0.95}] * 10)) == []
    (told,) = alarms(stage_of([{"balance": 1.2}] * 9 + [{"balance": 0.5}] * 10))
    assert told == "The loss balance is 0.50: below 1 the router has found a way round it."


def test_skipped_steps_are_told_by_number() -> None:
    spikes = [{"skipped": 1.0 + (n == 9)} if n in (4, 9) else {} for n in range(1, 20)]
    (told,) = alarms(stage_of(spikes))
    assert told == "Steps skipped: 3 left out because of the gradient (spikes), told at steps 4, 9."
    (told,) = alarms(stage_of([{"skipped": 1.0}] * 25))
    assert told.endswith("19, 20 and 5 more.")


def test_a_loss_that_is_not_finite_is_told_and_drawn_as_a_gap(tmp_path: Path) -> None:
    lines = [{**line, "text": math.nan} if line["step"] in (50, 60) else line for line in FEW]
    run = run_of(tmp_path / "run", lines)
    assert alarms(read_stage(run)) == ["The loss text is not finite at 2 logged steps, 50 to 60."]
    page = page_of(run)
    (line,) = re.findall(r'class="line c0" d="([^"]*)"', page)[:1]
    assert line.count("M") == 2
    assert "nan" not in line
    (told,) = alarms(stage_of([{"text": 1.0}, {"text": math.inf}]))
    assert told == "The loss text is not finite at step 2."


def test_answers_that_do_not_end_are_told() -> None:
    """(I6)"""
    fine = {"right": 0.5, "cut": 0.1, "alike": 0.5, "grad_norm": 1.0}
    assert alarms(stage_of([fine | {"cut": 0.9}] * 5 + [fine] * 10)) == []
    (told,) = alarms(stage_of([fine] * 5 + [fine | {"cut": 0.3}] * 10))
    assert told.startswith("Of the last answers 30% did not end: allow more max_new_tokens")


def test_a_policy_that_learns_nothing_is_told() -> None:
    """(I7)"""
    fine = {"right": 0.5, "cut": 0.0, "alike": 0.9, "grad_norm": 1.0}
    assert alarms(stage_of([fine] * 20)) == []
    (told,) = alarms(stage_of([fine | {"alike": 0.95}] * 20))
    assert told.startswith("Of the last problems 95% had answers that all were worth the same")
    _same, still = alarms(stage_of([fine] * 5 + [fine | {"alike": 1.0, "grad_norm": 0.0}] * 10))
    assert still == "The gradient has been 0 for 10 logged steps: nothing is learned."
    # A reward is no loss: that it rises is what is wanted.
    assert alarms(stage_of([fine | {"right": n / 100, "reward": n / 100} for n in range(90)])) == []


def test_a_loss_that_rises_over_the_last_third_is_told() -> None:
    falling = [4.0 - n / 50 + 0.02 * (-1) ** n for n in range(60)]
    assert alarms(stage_of([{"text": value} for value in falling])) == []
    turned = [*falling, *(falling[-1] + n / 50 for n in range(30))]
    (told,) = alarms(stage_of([{"text": value} for value in turned]))
    assert told == f"The loss text rises: by {rising(turned):.1%} within the last third."
    assert rising([1.0 + 0.5 * (-1) ** n + n / 1000 for n in range(60)]) is None  # by chance
    assert rising([float(n) for n in range(29)]) is None  # too few to tell


def test_alarms_stand_at_the_top_with_their_stage(tmp_path: Path) -> None:
    run_of(tmp_path / "all" / "<fine>")
    run_of(tmp_path / "all" / "<odd>", [{**line, "skipped": 1.0} if line["step"] == 70 else line for line in FEW])
    page = page_of(tmp_path / "all")
    told = "<li><b>&lt;odd&gt;</b> Steps skipped: 1 left out because of the gradient (spikes), told at step 70.</li>"
    assert page.index(told) < page.index("<h2>")
    assert "Nothing alarming" not in page
    assert "Nothing alarming" in page_of(tmp_path / "all" / "<fine>")


# -- the page --------------------------------------------------------------------------------------------


def test_the_page_is_one_file_and_no_text_becomes_markup(tmp_path: Path) -> None:
    page = page_of(with_samples(run_of(tmp_path / "<i>run", [{**line, "<u>loss": 1.0} for line in FEW])))
    assert not re.search(r"https?://|<link|@import|url\(", page)
    assert page.count("<script") == 1
    assert page.count("&lt;script&gt;window.hit") == 1  # a question that was asked twice stands there once
    assert page.count("data:image/png;base64,") == 1
    assert "&lt;b&gt;green" in page
    for markup in ("<i>run", "<u>loss", "<b>green", "<!--STAGES"):
        assert markup not in page
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["<i>run.html"]


def test_wrong_answers_are_marked_and_the_last_step_is_shown(tmp_path: Path) -> None:
    page = page_of(with_samples(run_of(tmp_path / "run")))
    assert re.findall(r'<p class="answer (\w+)" data-step="(\d+)"( hidden)?>', page) == [
        ("wrong", "100", " hidden"), ("right", "200", ""), ("right", "200", ""),
    ]  # fmt: skip
    assert re.findall(r"<option[^>]*>([^<]*)", page) == ["step 100: 0 of 1 right", "step 200: 1 of 1 right"]


def test_a_picture_lies_in_the_folder_or_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(b"secret")
    shown = {"step": 1, "question": "", "answer": "", "wanted": "", "pictures": ["gone.png", "log.jsonl"]}
    (run / "samples.jsonl").write_text(json.dumps(shown))
    page = page_of(run)
    assert "gone.png is not there" in page
    assert "log.jsonl is not there, or not a picture" in page
    (run / "samples.jsonl").write_text(json.dumps(shown | {"pictures": ["../secret.png"]}))
    with pytest.raises(ValueError, match="does not lie in the run's folder"):
        page_of(run)


# -- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("report")(train.report)
    return app


def test_the_command_prints_the_path(tmp_path: Path, app: typer.Typer) -> None:
    run = run_of(tmp_path / "run")
    result = CliRunner().invoke(app, [str(run)])
    assert (result.exit_code, result.stdout.strip()) == (0, str(run / "report.html"))
    other = tmp_path / "other.html"
    result = CliRunner().invoke(app, [str(run), "--out", str(other)])
    assert (result.exit_code, result.stdout.strip()) == (0, str(other))
    assert "<h2>run</h2>" in other.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_without_a_log_is_one_line(tmp_path: Path, app: typer.Typer, name: str) -> None:
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, [str(tmp_path / name)])
    # of which kimi_vl.cli makes one line and exit code 2
    assert isinstance(result.exception, ValueError)
    assert f"{name} has no log.jsonl" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_target_that_cannot_be_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    for target in (tmp_path, tmp_path / "absent" / "page.html"):
        with pytest.raises(ValueError, match="needs the name of a file in a folder that exists"):
            report(run, target)


# -- in a browser ----------------------------------------------------------------------------------------

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    long = [{**line, "a name of a figure that goes on and on": 0.1, "skipped": 1.0} for line in FEW]
    run_of(folder / "runs" / "first", long)
    with_samples(run_of(folder / "runs" / "second"))
    report(folder / "runs", folder / "page.html")
    return (folder / "page.html").as_uri()


@pytest.fixture
def opened(shown: str) -> Iterator[Open]:
    """Opens the page at a width. Nothing may be complained of, nor asked of others."""
    troubles: list[str] = []
    with browsing.opened() as browser:

        def at(width: int, scheme: Any = "light") -> Page:
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.on("console", lambda message: troubles.append(message.text))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith(("data:", shown)) else troubles.append(r.url))
            page.goto(shown)
            return page

        yield at
    assert troubles == []


def test_hovering_shows_the_values_at_a_step_in_all_charts_of_the_stage(opened: Open) -> None:
    page = opened(1280)
    first, second = page.locator(".stage").first, page.locator(".stage").nth(1)
    values = first.locator("figcaption b")
    before = values.all_inner_texts()
    assert before == ["2", "0.1", "0.001", "1", "1.5", "0.5"]
    svg = first.locator("svg").first
    box = svg.bounding_box()
    assert box is not None
    x = box["width"] * (LEFT + (RIGHT - LEFT) * 100 / 200) / 360
    svg.hover(position={"x": x, "y": 60})
    assert values.all_inner_texts() == ["3", *before[1:]]
    assert set(first.locator(".at").all_text_contents()) == {"step 100"}
    assert first.locator(".cursor:not([hidden])").count() == 5
    assert second.locator(".cursor:not([hidden])").count() == 0
    page.mouse.move(5, 5)
    assert values.all_inner_texts() == before
    assert first.locator(".cursor:not([hidden])").count() == 0
    svg.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert values.first.inner_text() == "2.1"


def test_the_chooser_shows_another_step(opened: Open) -> None:
    page = opened(1280)
    assert [text.strip() for text in page.locator(".answer:visible").all_inner_texts()] == ["red", "Hello."]
    assert page.locator("article:visible").count() == 2
    page.locator("select").select_option("100")
    assert page.locator(".answer:visible").all_inner_texts() == ["wrong<b>green"]
    assert page.locator(".wanted:visible").all_inner_texts() == ["wanted red"]
    assert page.locator("article:visible").count() == 1
    assert page.evaluate("window.hit") is None
    assert page.locator("img").evaluate("(image) => image.naturalWidth") == 80


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits(opened: Open, width: int) -> None:
    page = opened(width)
    page.locator("svg").last.hover()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ends = page.locator("svg text").evaluate_all(
        "(texts) => texts.map((text) => [text, text.closest('figure')].map((e) => e.getBoundingClientRect()))"
        ".filter(([text, figure]) => text.right > figure.right || text.left < figure.left).length"
    )
    assert ends == 0
    assert page.locator("text.x").first.evaluate("(text) => text.getBoundingClientRect().height") >= 9


def test_dark_is_dark(opened: Open) -> None:
    colours = [
        opened(800, scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(251, 250, 248)", "rgb(23, 23, 22)"]
