"""What a server goes through: clients that leave, too many at once, its end, steps without end, helpers that die."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from kimi_vl.config import a3b
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.serve.opening import Wishes
from kimi_vl.serve.run import listening_socket
from tests.serving import LINE_PART, Server, encoded, serving, shown, user
from tests.test_serve_chat import LINE_SAYS, PATH

# without an end token, which nano would draw sooner or later
NO_END = {"3841": -100, "3842": -100}
ENDLESS = {"temperature": 1.0, "logit_bias": NO_END, "max_tokens": 3000, "seed": 1, "messages": user("Go on.")}


SMALL = ("--answers", "2", "--limit", "waiting_answers=4", "--limit", "drain_seconds=2")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is soon overloaded, and at rest before and after each test."""
    with serving(tmp_path_factory.mktemp("small"), *SMALL) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """One that a test may end, or count what it has done."""
    with serving(tmp_path, *SMALL) as running:
        yield running


def leave(server: Server, body: dict[str, Any], seconds: float) -> None:
    """Asks, and hangs up after so long."""
    try:
        with httpx2.stream("POST", server.url + PATH, json=body, timeout=httpx2.Timeout(20, read=seconds)) as response:
            until = time.monotonic() + seconds
            for _ in response.iter_bytes():
                if time.monotonic() > until:
                    break
    except httpx2.ReadTimeout:
        pass


def test_clients_that_leave_leave_nothing_behind(server: Server) -> None:
    """200 in a row, at all moments, streamed or not (D11)."""
    server.wait_for_rest()
    before = server.metric("generated_tokens_total")
    r = random.Random(0)
    for number in range(200):
        content = user(LINE_PART, "Go on.") if number % 3 else user("Go on.")
        body = {**ENDLESS, "messages": content, "stream": number % 2 == 0, "seed": number}
        leave(server, body, r.choice([0.001, 0.01, 0.03, 0.08]))
    server.wait_for_rest()
    spent = server.metric("generated_tokens_total") - before
    assert spent < 200 * 600  # of the 200 * 3000 that were asked for
    assert server.metric("abandoned_requests_total") >= 100
    assert server.chat(LINE_PART, "Read the text.").json()["choices"][0]["message"]["content"] == LINE_SAYS


def test_a_slot_is_free_within_a_step(small: Server) -> None:
    """Both slots are taken by clients who leave; whoever waits comes next."""
    leaving = [threading.Thread(target=leave, args=(small, {**ENDLESS, "stream": bool(n)}, 0.6)) for n in range(2)]
    for thread in leaving:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert small.chat("Hi", max_tokens=2).status_code == 200
    assert time.monotonic() - began < 2
    for thread in leaving:
        thread.join()
    small.wait_for_rest()


def test_too_many_are_told_to_come_back_and_then_may(small: Server) -> None:
    """Four times as many as there is room for: only 429, and no waiting for it."""
    body = {**ENDLESS, "max_tokens": 400}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda seed: small.post(PATH, {**body, "seed": seed}), range(24)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 6
    for answer in answers:
        if answer.status_code == 429:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "overloaded")
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
    small.wait_for_rest(10)
    assert small.post(PATH, {**body, "seed": 1}).status_code == 200
    assert 'kimi_vl_errors_total{code="overloaded"}' in small.get("/metrics").text


def test_more_answers_than_there_is_room_for_are_no_overload(small: Server) -> None:
    response = small.chat("Hi", n=7)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "too_many_answers"


def events(server: Server, body: dict[str, Any]) -> list[str]:
    try:
        with httpx2.stream("POST", server.url + PATH, json={**body, "stream": True}, timeout=30) as response:
            return [line for line in response.iter_lines() if line.startswith("data: ")]
    except httpx2.HTTPError as error:
        return [repr(error)]


def test_the_end_lets_those_finish_who_are_being_answered(own: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(events, own, {**ENDLESS, "max_tokens": 100, "seed": seed}) for seed in range(4)]
        while own.metric("answers") < 4:
            time.sleep(0.01)
        own.process.send_signal(signal.SIGTERM)
        for each in asked:
            assert each.result()[-1] == "data: [DONE]"
    own.process.wait(10)
    with pytest.raises(httpx2.ConnectError):
        own.chat("Hi")
    assert "Traceback" not in own.log.read_text()


def test_the_end_does_not_wait_for_ever_and_says_so(own: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(events, own, {**ENDLESS, "max_tokens": 100_000})
        while own.metric("running_answers") < 1:
            time.sleep(0.01)
        own.process.send_signal(signal.SIGTERM)
        last = asked.result()[-1]
    own.process.wait(10)
    error = json.loads(last.removeprefix("data: "))["error"]
    assert "shutting down" in error["message"]
    assert error["code"] == "shutting_down"


def test_health_and_metrics_tell_what_happens(own: Server) -> None:
    assert own.get("/health").json() == {
        "status": "ok",
        "step_seconds": own.get("/health").json()["step_seconds"],
        "answers": 0,
    }
    assert own.get("/ready").status_code == 200
    assert own.chat(LINE_PART, "Read the text.").status_code == 200
    text = own.get("/metrics").text
    for line in (
        'kimi_vl_requests_total{route="/v1/chat/completions"} 1.0',
        'kimi_vl_finished_answers_total{reason="stop"} 1.0',
        "kimi_vl_prompt_tokens_total 79.0",
        "kimi_vl_image_tokens_total 48.0",
        'kimi_vl_pictures_total{outcome="read"} 1.0',
        "kimi_vl_time_to_first_token_seconds_count 1.0",
        "kimi_vl_time_per_output_token_seconds_count 1.0",
        "kimi_vl_request_seconds_count 1.0",
    ):
        assert line in text, line
    own.chat("Hi", temperature=-1)
    own.chat(shown(b"none"))
    text = own.get("/metrics").text
    assert 'kimi_vl_errors_total{code="invalid_value"} 1.0' in text
    assert 'kimi_vl_errors_total{code="invalid_image"} 1.0' in text
    assert 'kimi_vl_pictures_total{outcome="refused"} 1.0' in text


def test_a_step_that_does_not_end_is_told(tmp_path: Path) -> None:
    """A large picture takes longer than this server has patience for (B16)."""
    picture = shown(encoded(Image.effect_noise((450, 450), 60)))
    with serving(tmp_path, "--limit", "step_seconds=0.05") as impatient:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(impatient.chat, picture, "x", max_tokens=1)
            seen = set()
            while not asked.done():
                response = impatient.get("/health")
                seen.add((response.status_code, response.json()["status"]))
                time.sleep(0.01)
            response = asked.result()
        assert (503, "stuck") in seen
        assert response.status_code in (500, 503)
        assert response.json()["error"]["code"] in ("engine_stuck", "engine_failed")
        while impatient.get("/health").status_code != 200:
            time.sleep(0.05)
        impatient.wait_for_rest()


def test_processes_that_open_pictures_may_die(server: Server) -> None:
    """One after the other is killed while others ask; they get their answers, or a 400 of their own."""
    stop = threading.Event()

    def kill() -> None:
        r = random.Random(0)
        while not stop.is_set():
            for child in psutil.Process(server.process.pid).children():
                if "kimi_vl.serve.picture_process" in child.cmdline() and r.random() < 0.3:
                    child.kill()
            time.sleep(0.15)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: server.chat(LINE_PART, "Read the text."), range(40)))
    finally:
        stop.set()
        killer.join()
    for answer in answers:
        if answer.status_code == 400:
            assert "decoder failed" in answer.json()["error"]["message"]
        else:
            assert answer.json()["choices"][0]["message"]["content"] == LINE_SAYS
    assert server.chat(LINE_PART, "Read the text.").json()["choices"][0]["message"]["content"] == LINE_SAYS
    server.wait_for_rest()


def test_small_answers_are_sent_at_once() -> None:
    """Not held back for 40 ms until the client confirms what came before (Nagle's algorithm)."""
    with listening_socket("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "can be reached from other machines: give an API key"),
        (("--host", "203.0.113.7", "--without-key"), "cannot listen at 203.0.113.7"),
        (("--api-key", "two words"), "an API key must be printable ASCII without blanks"),
        (("--limit", "pictures=0"), "limit pictures must be above 0, not 0"),
        (("--limit", "picture=3"), "there is no limit 'picture'; known are connections, "),
        (("--limit", "fetch_private=yes"), "limit fetch_private must be true or false, not 'yes'"),
        (("--limit", "body_bytes=many"), "limit body_bytes must be a whole number, not 'many'"),
        (("--thinking-budget", "5"), "--thinking-budget is given, but this model does not think"),
        (("--kv-cache-dtype", "int4"), "--kv-cache-dtype must be bfloat16 or int8, not 'int4'"),
        (("--context", "100000000000"), "memory|context"),
        (("no-such-model",), "no model 'no-such-model'"),
    ],
)
def test_a_server_that_cannot_begin_says_why(options: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", "--port", "0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert any(each in ended.stderr for each in says.split("|"))


def test_another_models_tokenizer_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    KimiVLProcessor.from_pretrained("nano").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(a3b().to_dict()))
    with pytest.raises(ValueError, match="the tokenizer has 4096 ids, the model 163840: load both from the same"):
        Wishes(str(folder)).open()


@pytest.mark.parametrize("alone", [True, False])
def test_the_marks_of_thoughts_are_the_checkpoints(tmp_path: Path, nano4_folder: Path, alone: bool) -> None:
    """Whether its chat template is a file of its own, or stands among the tokenizer's settings."""
    folder = tmp_path / "model"
    shutil.copytree(nano4_folder, folder)
    path, template = folder / "tokenizer_config.json", "{{ messages[0].content.split('</think>')[-1] }}"
    if alone:
        (folder / "chat_template.jinja").write_text(template)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    assert Wishes(str(folder)).open().habits.marks.answer == "</think>"


def test_a_port_that_is_taken_is_told_before_the_model_is_opened(small: Server) -> None:
    port = small.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in ended.stderr


def test_nano_is_quantised_once(tmp_path: Path) -> None:
    """Into a cache, by two servers at a time too; and a folder of 4 bits is served as it is."""
    with serving(tmp_path, XDG_CACHE_HOME=str(tmp_path)) as one, serving(tmp_path, XDG_CACHE_HOME=str(tmp_path)) as two:
        assert one.chat("Hi", max_tokens=2).json()["choices"] == two.chat("Hi", max_tokens=2).json()["choices"]
    (folder,) = (tmp_path / "kimi-vl").iterdir()
    made = folder.stat().st_mtime_ns
    with serving(tmp_path, str(folder), "--name", "mine", "--name", "yours") as three:
        assert [card["id"] for card in three.get("/v1/models").json()["data"]] == ["mine", "yours"]
        assert three.chat("Hi", model="yours", max_tokens=2).json()["model"] == "yours"
    with serving(tmp_path, XDG_CACHE_HOME=str(tmp_path)):
        assert [path.stat().st_mtime_ns for path in (tmp_path / "kimi-vl").iterdir()] == [made]


@pytest.mark.parametrize(
    ("wishes", "thinks"),
    [
        (Wishes("thinking-2506"), True),
        (Wishes("moonshotai/Kimi-VL-A3B-Thinking"), True),
        (Wishes("/srv/thinking/instruct-int4"), False),
        (Wishes("instruct", thinking=True), True),
        (Wishes("thinking", thinking=False), False),
    ],
)
def test_a_model_that_thinks_is_told_by_its_name(wishes: Wishes, thinks: bool) -> None:
    assert wishes.thinks is thinks


def test_names_that_clients_may_use() -> None:
    assert Wishes("thinking").shown_names == ("thinking", "moonshotai/Kimi-VL-A3B-Thinking")
    assert Wishes("/srv/instruct-int4").shown_names == ("/srv/instruct-int4", "instruct-int4")
    assert Wishes("nano", names=("a", "b")).shown_names == ("a", "b")
