"""Benchmarks on the command line, of nano: runs that are killed, endpoints, samples, comparisons and the page."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kimi_vl import KimiVLProcessor
from kimi_vl.eval import naming
from kimi_vl.eval.asking import Answered, Endpoint, Question
from kimi_vl.eval.record import Record, begin, records_of, settings_of
from kimi_vl.eval.run import choose
from kimi_vl.eval.task import user
from kimi_vl.eval.tasks.mathvision import MATHVISION
from kimi_vl.marks import THOUGHT
from tests.browsing import opened
from tests.eval.small import COUNT, SMALL, write_small
from tests.serving import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

TASK = "tests.eval.small:SMALL"
CLOCK = ("seconds",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data") / "small")


def command(data: Path, run: Path, *more: str) -> list[str]:
    options = ("--data", str(data), "--run", str(run), "--threads", "1", *more)
    return [sys.executable, "-m", "kimi_vl.cli", "eval", TASK, *options]


def ran(data: Path, run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(data, run, *more), capture_output=True, text=True, check=False, timeout=120)


def kept(run: Path, way: str = "reading") -> Path:
    return run / "nano" / f"small.{way}"


def alike(folder: Path) -> list[dict[str, Any]]:
    """All that a run kept, in its order, but for how long it took."""
    lines = map(json.loads, (folder / "items.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole")
    ended = ran(data, run)
    assert ended.returncode == 0, ended.stderr
    assert f"{TASK}, the reading way, nano: 12 items" in ended.stdout
    return run


def test_a_run_keeps_every_item(whole: Path) -> None:
    records = records_of(kept(whole))
    assert [one.id for one in records] == [str(number) for number in range(COUNT)]
    assert [one.number for one in records] == list(range(COUNT))
    assert sum(one.score for one in records) >= COUNT / 2  # nano reads digits
    for one in records:
        assert len(one.prompt) == len(one.pictures[0]) == 64
        assert one.prompt_tokens > 20 and one.completion_tokens > 0 and one.finish == "stop"
    assert len({one.pictures for one in records}) == COUNT


def test_peers_are_asked_the_same_and_stand_beside(data: Path, tmp_path: Path) -> None:
    ended = ran(data, tmp_path, "--limit", "8")
    assert ended.returncode == 0, ended.stderr
    lot, missing = (tmp_path / name / "small.reading" for name in ("letters-by-lot", "a-program"))
    (row,) = (line for line in ended.stdout.splitlines() if line.startswith("letters by lot"))
    records = records_of(lot)
    assert row.split()[3] == f"{sum(one.score for one in records) / 8:.1%}"
    assert [(one.id, one.pictures) for one in records] == [(one.id, one.pictures) for one in records_of(kept(tmp_path))]
    items = choose(SMALL, data, way=None, limit=8, seed=0).items.values()
    assert [one.raw for one in records] == [SMALL.peers["letters by lot"].answer(item) for item in items]
    assert "small: a program is not installed here, and is left out" in ended.stderr and not missing.exists()
    assert _diff(kept(tmp_path), lot).stdout.startswith("8 items of both")


def test_killed_at_any_moment_it_ends_as_an_unbroken_run(data: Path, whole: Path, tmp_path: Path) -> None:
    """Ten times, nothing asked twice."""
    lots = random.Random(5)
    begun = 0
    for _ in range(10):
        process = subprocess.Popen(command(data, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = min(COUNT, _lines(tmp_path) + lots.randint(0, 2))
        until = time.monotonic() + 60
        while process.poll() is None and _lines(tmp_path) < wanted and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(lots.random() / 20)
        if process.poll() is None:
            begun += 1
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert begun >= 5
    before = {one.id: one.seconds for one in records_of(kept(tmp_path))}
    assert ran(data, tmp_path).returncode == 0
    assert alike(kept(tmp_path)) == alike(kept(whole))
    after = {one.id: one.seconds for one in records_of(kept(tmp_path))}
    assert {name: after[name] for name in before} == before


def test_a_line_that_a_kill_cut_is_asked_again(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = kept(tmp_path) / "items.jsonl"
    whole_lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole_lines[:5]) + whole_lines[5][:40])
    settings = settings_of(kept(tmp_path))
    assert settings is not None
    # Else the next line would be a part of it, for whoever comes after a second kill.
    assert len(begin(kept(tmp_path), settings)) == 5
    assert path.read_text() == "".join(whole_lines[:5])
    assert ran(data, tmp_path).returncode == 0
    assert alike(kept(tmp_path)) == alike(kept(whole))


def _lines(run: Path) -> int:
    path = kept(run) / "items.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--deterministic") as running:
        yield running


def test_an_endpoint_gives_the_same_answers(data: Path, whole: Path, endpoint: Server, tmp_path: Path) -> None:
    ended = ran(data, tmp_path, "--endpoint", f"{endpoint.url}/v1")
    assert ended.returncode == 0, ended.stderr
    told = ("id", "raw", "read", "score", "prompt", "pictures", "prompt_tokens", "finish")
    ours, theirs = ([{name: one[name] for name in told} for one in alike(kept(run))] for run in (tmp_path, whole))
    assert ours == theirs
    compared = _diff(kept(whole), kept(tmp_path))
    assert compared.stdout.startswith("12 items of both")
    assert "0 better, 0 worse" in compared.stdout


def _diff(before: Path, after: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "kimi_vl.cli", "eval", "diff", str(before), str(after)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_an_endpoint_that_is_not_there_ends_the_run_and_loses_nothing(data: Path, tmp_path: Path) -> None:
    ended = ran(data, tmp_path, "--endpoint", "http://127.0.0.1:9/v1", "--limit", "1")
    assert ended.returncode == 2
    assert "http://127.0.0.1:9/v1/chat/completions cannot be reached" in ended.stderr and ended.stderr.count("\n") == 1
    assert records_of(kept(tmp_path)) == []


def test_a_sample_is_drawn_by_its_seed(data: Path) -> None:
    def ids(seed: int) -> list[str]:
        return [one.id for one in choose(SMALL, data, way=None, limit=4, seed=seed).items.values()]

    assert ids(1) == ids(1) != ids(2)
    assert len(ids(1)) == 4 and ids(1) == sorted(ids(1), key=int)
    assert choose(SMALL, data, way=None, limit=40, seed=1).items.keys() == set(range(COUNT))


def test_a_folder_is_of_one_run(data: Path, whole: Path) -> None:
    ended = ran(data, whole, "--limit", "3")
    assert ended.returncode == 2
    assert "is a run with count 12, not 3" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mathvison", "there is no task 'mathvison'; is it mathvision or mathvista? `kimi-vl eval list` shows all"),
        ("x", "there is no task 'x': `kimi-vl eval list` shows all"),
        ("no.module:X", "needs the module no, which is not installed"),
        ("tests.eval.small:COUNT", "'COUNT' in tests.eval.small is no task"),
    ],
)
def test_what_is_no_task_is_told(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        naming.task_of(name)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"way": "my"}, "small is not asked the way 'my'; known are reading, official, lmms-eval"),
        ({"limit": 0}, "the limit must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_chosen_is_told(data: Path, wishes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        choose(SMALL, data, **{"way": None, "limit": None, "seed": 0, **wishes})


def test_ones_own_module_is_listed_from_where_it_lies(tmp_path: Path) -> None:
    """As the installed command does, which does not look there by itself."""
    (tmp_path / "mine.py").write_text("from tests.eval.small import SMALL as MINE\nOTHER = 1\n")
    code = "from kimi_vl.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONSAFEPATH": "1"}
    told = [
        subprocess.run(
            [sys.executable, "-c", code, "eval", "list", module],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )
        for module in ("mine", "json")
    ]  # fmt: skip
    assert told[0].returncode == 0, told[0].stderr
    assert told[0].stdout.split()[:3] == ["mine:MINE", "reading,", "official,"]
    assert (told[1].returncode, told[1].stderr) == (2, "kimi-vl: there are no tasks in json\n")


def test_data_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="there is no folder nowhere"):
        naming.data_of(SMALL, Path("nowhere"), offline=True, any_version=False)
    with pytest.raises(ValueError, match="the data of small is on no hub: give its folder with --data"):
        naming.data_of(SMALL, None, offline=True, any_version=False)


def test_data_of_another_version_is_told(data: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "kimi_vl.cli", "eval", "mathvision", "--data", str(data), "--run", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "test.jsonl is not the published file, or of another version (SHA-256" in ended.stderr
    assert "36608758db62…" in ended.stderr and ended.stderr.count("\n") == 1
    assert naming.data_of(MATHVISION, data, offline=True, any_version=True) == data
    sums = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in MATHVISION.published}
    ours = replace(MATHVISION, published={**sums, "not/there": "0"})
    assert naming.data_of(ours, data, offline=True, any_version=False) == data


def test_mistakes_are_told_before_a_model_is_opened(tmp_path: Path) -> None:
    ended = ran(Path("tests"), tmp_path / "run", "--model", "no-such-model")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "it is not this benchmark in its official format" in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_picture_that_cannot_be_opened_costs_its_own_item_only(data: Path, tmp_path: Path) -> None:
    broken = write_small(tmp_path / "data")
    (broken / "images" / "4.png").write_bytes(b"no picture")
    ended = ran(broken, tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    records = records_of(kept(tmp_path / "run"))
    refused = [one for one in records if one.refused is not None]
    assert [(one.id, one.score) for one in refused] == [("4", 0.0)]
    assert len(records) == COUNT
    assert "1 refused" in ended.stdout


def test_a_difference_names_what_changed(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "settings.json").write_bytes((kept(whole) / "settings.json").read_bytes())
    lines = [json.loads(line) for line in (kept(whole) / "items.jsonl").read_text().splitlines()]
    turned = next(line for line in lines if line["score"] == 1.0)
    turned |= {"score": 0.0, "read": "nothing"}
    (other / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = _diff(kept(whole), other).stdout
    assert "0 better, 1 worse; by chance as far apart with p = 1" in told
    assert f"worse {turned['id']}: " in told and "-> 'nothing'" in told


def test_records_are_read_back(whole: Path) -> None:
    lines = (kept(whole) / "items.jsonl").read_text().splitlines()
    assert [Record.of(json.loads(line)) for line in lines] == records_of(kept(whole))


def test_a_run_goes_on_wherever_its_data_lies(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "moved")
    ended = ran(tmp_path / "moved", whole)
    assert ended.returncode == 0, ended.stderr
    assert "12 items" in ended.stdout


def test_a_thought_is_bounded_and_no_part_of_what_is_read(data: Path, tmp_path: Path) -> None:
    few = ("--limit", "2", "--max-new-tokens", "40")
    ended = ran(data, tmp_path, *few, "--thinking", "--thinking-budget", "3")
    assert ended.returncode == 0, ended.stderr
    assert "a thought first of at most 3 tokens" in ended.stdout
    tokenizer = KimiVLProcessor.from_pretrained("nano").tokenizer
    for one in records_of(kept(tmp_path)):
        thought, closed, said = one.raw.removeprefix(THOUGHT.opening).partition(THOUGHT.closing)
        assert one.raw.startswith(THOUGHT.opening) and closed and said
        assert len(tokenizer.encode(thought)) <= 3
    ended = ran(data, tmp_path, *few)
    assert (
        ended.returncode == 2 and "is a run with thinking True, not None, thinking_budget 3, not None" in ended.stderr
    )
    ended = ran(data, tmp_path / "other", "--thinking-budget", "3")
    assert ended.returncode == 2 and "--thinking-budget is given, but this model does not think" in ended.stderr


def test_an_endpoint_hears_of_the_budget() -> None:
    heard: list[dict[str, Any]] = []

    class Hearing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"message": {"content": "4"}}]}')

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hearing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for budget in (7, None):
            url = f"http://127.0.0.1:{server.server_port}/v1"
            asker = Endpoint(url, "m", key=None, together=1, temperature=0.0, seed=0, thinking_budget=budget)
            (answer,) = asker.ask(iter([Question(0, (user("Hi"),), 5)]))
            assert isinstance(answer, Answered) and answer.text == "4"
        server.shutdown()
    assert [body.get("thinking_budget") for body in heard] == [7, None]


@pytest.mark.parametrize("answer", ["<html>hello</html>", '{"choices": []}', "[1]"])
def test_what_does_not_speak_chat_completions_is_told(answer: str) -> None:
    class Strange(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        asker = Endpoint(url, "m", key=None, together=1, temperature=0.0, seed=0)
        with pytest.raises(ValueError, match="does not speak OpenAI's chat completions"):
            list(asker.ask(iter([Question(0, (user("Hi"),), 5)])))
        server.shutdown()


@pytest.fixture
def page() -> Iterator[Page]:
    with opened() as browser:
        yield browser.new_page()


def test_the_page_shows_each_item_and_what_changed(data: Path, whole: Path, page: Page, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(kept(whole), before)
    lines = [json.loads(line) for line in (before / "items.jsonl").read_text().splitlines()]
    first = next(line for line in lines if line["score"] == 1.0)
    first |= {"score": 0.0, "raw": "<b>bold</b>", "read": None}
    (before / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = tmp_path / "page.html"
    words = ["report", str(kept(whole)), "--data", str(data), "--before", str(before), "-o", str(target)]
    made = subprocess.run(
        [sys.executable, "-m", "kimi_vl.cli", "eval", *words], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url)
    )
    page.goto(target.as_uri())
    status, articles = page.get_by_role("status"), page.locator("article")
    assert status.inner_text() == "12 of 12"
    assert articles.count() == 12
    assert page.get_by_role("row", name="letters by lot").count() == 1
    assert page.locator("article img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    page.get_by_label("Which items").select_option("changed")
    assert status.inner_text() == "1 of 12"
    assert articles.locator("h2").inner_text() == first["id"]
    # What a model said is text, and no part of the page.
    assert "<b>bold</b>" in articles.inner_text() and page.locator("article b").count() == 0
    page.get_by_label("Which items").select_option("all")
    page.get_by_label("Group").select_option("algebra")
    assert status.inner_text() == "6 of 12"
    page.get_by_label("Words").fill("24")
    assert status.inner_text() == "1 of 12"
    assert troubles == []
