"""The chat page in a real browser: with servers that answer with nano, and one that answers by script.

What nano cannot do (Markdown, hostile text, a stream that breaks off where a test wants it) comes from ``Scripted``:
the same page with the same headers, and events that a test wrote.
"""

from __future__ import annotations

import base64
import io
import json
import queue
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect, sync_playwright

from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LINE = Path(__file__).parent.parent / "docs" / "line.png"
LINE_SAYS = "Turn left at the second street."
KEY = "sesame"
expect.set_options(timeout=15_000)


# -- servers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    plain: str
    thinking: str  # wants KEY


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """With the slash at the end that a browser's addresses have."""
    with started() as plain, started("--thinking", "--thinking-budget", "12", "--api-key", KEY) as thinking:
        yield Servers(address(plain), address(thinking))


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"answers at (http\S+)", line):
            return f"{found[1]}/"
    raise AssertionError("".join(said))


def metric(server: str, name: str) -> float:
    with urllib.request.urlopen(f"{server}metrics") as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@dataclass(frozen=True)
class Reply:
    """``pieces`` are sent one by one; an iterator may wait between them."""

    pieces: Iterable[bytes]
    status: int = 200
    kind: str = "text/event-stream"


class Scripted(ThreadingHTTPServer):
    """Serves the page as the real server does, and answers with what ``replies`` holds."""

    daemon_threads = True

    def __init__(self, real: str) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        with urllib.request.urlopen(real) as response:
            policy = response.headers["Content-Security-Policy"]
            self.pages = {"/": (response.read(), "text/html", policy)}
        with urllib.request.urlopen(f"{real}v1/models") as response:
            self.pages["/v1/models"] = (response.read(), "application/json", policy)
        self.replies: queue.Queue[Reply] = queue.Queue()
        self.bodies: list[dict[str, Any]] = []
        self.left = threading.Event()  # by a client, before all was sent

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def say(self, text: str, *, thought: str = "", usage: bool = True) -> None:
        self.replies.put(Reply([thinks(thought), says(text), ending(usage=usage)]))

    def refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "", "param": None, "code": ""}
        self.replies.put(Reply([json.dumps({"error": error}).encode()], status, "application/json"))


class ScriptedHandler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        body, kind, policy = self.server.pages[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        reply = self.server.replies.get(timeout=10)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.end_headers()
        try:
            for piece in reply.pieces:
                self.wfile.write(piece)
        except OSError:
            self.server.left.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


def sent(event: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(event)}\n\n".encode()


def says(text: str) -> bytes:
    return sent({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def thinks(text: str) -> bytes:
    return sent({"choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]})


def ending(finish: str = "stop", *, usage: bool = True) -> bytes:
    figures = {
        "prompt_tokens": 1251, "completion_tokens": 42,
        "prompt_tokens_details": {"image_tokens": 1220, "cached_tokens": 31},
        "completion_tokens_details": {"reasoning_tokens": 29},
    }  # fmt: skip
    last = sent({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return last + (sent({"choices": [], "usage": figures}) if usage else b"") + b"data: [DONE]\n\n"


@pytest.fixture
def scripted(servers: Servers) -> Iterator[Scripted]:
    with Scripted(servers.plain) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


# -- the browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def troubles() -> list[str]:
    """What a page complains of, and what it asks of others. Empty at a test's end, or the test fails."""
    return []


@pytest.fixture
def page(browser: Browser, troubles: list[str]) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            troubles.append(message.text)

    def see(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            troubles.append(f"asked for {request.url}")

    page.on("console", hear)
    page.on("request", see)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    assert troubles == []


def forgive(troubles: list[str], what: str = "Failed to load resource") -> None:
    """Takes away what a browser itself says of an answer that was refused."""
    assert troubles and all(what in trouble for trouble in troubles)
    troubles.clear()


def box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def attached(page: Page) -> Locator:
    return page.get_by_role("list", name="Pictures to send").get_by_role("img")


def questions(page: Page) -> Locator:
    return page.get_by_role("article", name="You")


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="nano")


def said(page: Page) -> Locator:
    """The text of the last answer."""
    return answers(page).last.locator(":scope > .markdown")


def attach(page: Page, *files: Path | dict[str, Any]) -> None:
    before = attached(page).count()
    page.get_by_label("Pictures", exact=True).set_input_files(list(files))  # type: ignore[arg-type]
    expect(attached(page)).to_have_count(before + len(files))


def ask(page: Page, text: str) -> None:
    """Sends it, and waits for the whole answer."""
    send(page, text)
    expect(button(page, "Send")).to_be_visible()


def send(page: Page, text: str) -> None:
    count = answers(page).count()
    box(page).fill(text)
    box(page).press("Enter")
    expect(answers(page)).to_have_count(count + 1)


@contextmanager
def settings(page: Page, where: Locator | None = None) -> Iterator[Locator]:
    button(page if where is None else where, "Settings").click()
    dialog = page.get_by_role("dialog", name="Settings")
    expect(dialog).to_be_visible()
    yield dialog
    button(dialog, "Done").click()
    expect(dialog).to_be_hidden()


def shown(page: Page, scripted: Scripted, text: str) -> Locator:
    """What an answer of this text looks like."""
    page.goto(scripted.url)
    scripted.say(text)
    ask(page, "?")
    return said(page)


def png(width: int, height: int, colour: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "PNG")
    return data.getvalue()


def figures_like(text: str) -> re.Pattern[str]:
    """With any number for N, and any blanks."""
    return re.compile(re.escape(text).replace("N", r"[\d.,]+").replace("\\ ", r"\s"))


def file_of(name: str, data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": data}


def body_of(request: Request) -> dict[str, Any]:
    body = request.post_data_json
    assert isinstance(body, dict)
    return body


def data_urls(body: dict[str, Any], turn: int = -1) -> list[str]:
    return [part["image_url"]["url"] for part in body["messages"][turn]["content"] if part["type"] == "image_url"]


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


# -- pictures --------------------------------------------------------------------------------------------


def test_a_picked_picture_is_read_and_the_figures_stand_below(page: Page, servers: Servers) -> None:
    page.goto(servers.plain)
    with page.expect_file_chooser() as chooser:
        button(page, "Add pictures").click()
    chooser.value.set_files(LINE)
    expect(attached(page)).to_have_count(1)
    ask(page, "Read the text.")
    expect(said(page)).to_have_text(LINE_SAYS)
    expect(questions(page).get_by_role("img", name="line.png")).to_be_visible()
    figures = "79 prompt tokens (48 image, N cached) · 10 answer tokens · N tokens/s · first token after N s"
    expect(answers(page).locator(".figures")).to_have_text(figures_like(figures))
    expect(attached(page)).to_have_count(0)
    button(page, "Show line.png").click()
    expect(page.get_by_role("dialog", name="Picture").get_by_role("img")).to_be_visible()


FILE_OF_BASE64 = """
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    const file = new File([bytes], "brought.png", { type: "image/png" });
"""


def test_a_pasted_picture_is_read(page: Page, servers: Servers) -> None:
    page.goto(servers.plain)
    write = "await navigator.clipboard.write([new ClipboardItem({ [file.type]: file })]);"
    page.evaluate(f"async (base64) => {{ {FILE_OF_BASE64} {write} }}", base64.b64encode(LINE.read_bytes()).decode())
    box(page).press("Control+V")
    expect(attached(page)).to_have_count(1)
    ask(page, "Read the text.")
    expect(said(page)).to_have_text(LINE_SAYS)


def test_a_dropped_picture_is_read(page: Page, servers: Servers) -> None:
    page.goto(servers.plain)
    brought = page.evaluate_handle(
        f"(base64) => {{ {FILE_OF_BASE64} const all = new DataTransfer(); all.items.add(file); return all; }}",
        base64.b64encode(LINE.read_bytes()).decode(),
    )
    body = page.locator("body")
    body.dispatch_event("dragover", {"dataTransfer": brought})
    expect(body).to_have_class("dropping")
    body.dispatch_event("drop", {"dataTransfer": brought})
    expect(body).not_to_have_class("dropping")
    expect(page.get_by_role("img", name="brought.png")).to_be_visible()
    ask(page, "Read the text.")
    expect(said(page)).to_have_text(LINE_SAYS)


def test_whoever_sends_at_once_sends_the_picture_too(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    scripted.say("Fast.")
    box(page).fill("Read the text.")
    page.evaluate(
        f"""(base64) => {{
            {FILE_OF_BASE64}
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(file);
            document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true }}));
            document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", bubbles: true }}));
        }}""",
        base64.b64encode(LINE.read_bytes()).decode(),
    )
    expect(said(page)).to_have_text("Fast.")
    assert data_urls(scripted.bodies[0]) == [data_url(LINE.read_bytes())]


def test_several_pictures_go_in_order_before_the_text_and_one_can_be_removed(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    pictures = {colour: png(30, 20, colour) for colour in ("red", "green", "blue")}
    attach(page, *(file_of(f"{colour}.png", data) for colour, data in pictures.items()))
    button(page, "Remove green.png").click()
    expect(attached(page)).to_have_count(2)
    attach(page, file_of("green again.png", pictures["green"]))
    scripted.say("Three.")
    ask(page, "How many?")
    assert data_urls(scripted.bodies[0]) == [data_url(pictures[colour]) for colour in ("red", "blue", "green")]
    assert scripted.bodies[0]["messages"][0]["content"][-1] == {"type": "text", "text": "How many?"}


def limited(page: Page, **limits: int) -> None:
    """Has the server say that it takes less."""

    def change(route: Route) -> None:
        models = route.fetch().json()
        models["data"][0]["picture_limits"] |= limits
        route.fulfill(json=models)

    page.route("**/v1/models", change)


def test_more_pictures_than_the_server_takes_are_left_out(page: Page, scripted: Scripted) -> None:
    limited(page, pictures=2)
    page.goto(scripted.url)
    attach(page, LINE)
    scripted.say("One.")
    ask(page, "Read the text.")
    page.get_by_label("Pictures", exact=True).set_input_files([LINE, LINE])
    expect(
        page.get_by_text("A conversation with this server may have 2 pictures. The others were left out.")
    ).to_be_visible()
    expect(attached(page)).to_have_count(1)


def test_pictures_that_make_a_request_too_large_are_left_out(page: Page, scripted: Scripted) -> None:
    limited(page, request_bytes=4 * LINE.stat().st_size)
    page.goto(scripted.url)
    attach(page, LINE, LINE)
    scripted.say("Two.")
    ask(page, "Read the text.")
    page.get_by_label("Pictures", exact=True).set_input_files([LINE])
    expect(page.get_by_text("MiB of pictures. The others were left out.")).to_be_visible()
    expect(attached(page)).to_have_count(0)


def test_a_picture_over_the_limits_is_made_smaller_and_that_is_said(page: Page, scripted: Scripted) -> None:
    limited(page, pixels=20_000)
    page.goto(scripted.url)
    attach(page, file_of("large.png", png(400, 200)))
    expect(
        page.get_by_text("large.png is sent smaller, 200 × 100 pixels, to fit what this server takes.")
    ).to_be_visible()
    scripted.say("Red.")
    ask(page, "Which colour?")
    (url,) = data_urls(scripted.bodies[0])
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) as picture:
        assert picture.size == (200, 100)


def test_what_cannot_be_sent_says_why(page: Page, scripted: Scripted) -> None:
    limited(page, bytes=2**10)
    page.goto(scripted.url)
    files = page.get_by_label("Pictures", exact=True)
    for name, kind, size, why in [
        ("notes.txt", "text/plain", 10, "notes.txt: this is no picture."),
        ("photo.jxl", "image/jxl", 10, "photo.jxl: this server reads JPEG, PNG, WEBP"),
        ("broken.png", "image/png", 2**11, "broken.png: over the server’s limit of 0 MiB."),
    ]:
        files.set_input_files(file_of(name, b"x" * size, kind))  # type: ignore[arg-type]
        expect(page.get_by_text(why)).to_be_visible()
    expect(attached(page)).to_have_count(0)


# -- answers ---------------------------------------------------------------------------------------------


def test_an_answer_is_seen_as_it_comes_and_stopping_keeps_it_and_frees_the_server(page: Page, servers: Servers) -> None:
    ends = {str(token): -100 for token in KimiVLProcessor.from_pretrained(NANO).tokenizer.end_ids}

    def without_end(route: Route) -> None:
        route.continue_(post_data=json.dumps(body_of(route.request) | {"logit_bias": ends}))

    page.goto(servers.plain)
    page.route("**/v1/chat/completions", without_end)
    attach(page, LINE)
    send(page, "Read the text.")
    expect(said(page)).to_contain_text("Turn left")
    expect(button(page, "Stop")).to_be_visible()
    assert metric(servers.plain, "kimi_vl_answers") == 1
    button(page, "Stop").click()
    expect(answers(page).locator(".figures")).to_contain_text("stopped")
    expect(said(page)).to_contain_text("Turn left")
    for _ in range(100):
        if metric(servers.plain, "kimi_vl_answers") == 0:
            break
        page.wait_for_timeout(20)
    else:
        pytest.fail("the server goes on with an answer that nobody waits for")


def test_a_thought_is_folded(page: Page, servers: Servers, troubles: list[str]) -> None:
    """Of a server that wants a key, which is asked for in place."""
    page.goto(servers.thinking)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This server wants an API key")
    forgive(troubles)
    with settings(page, alert) as form:
        form.get_by_label("API key").fill(KEY)
    expect(alert).to_have_count(0)
    with settings(page) as form:
        form.get_by_label("Temperature").fill("0")
        form.get_by_label("Max tokens").fill("80")
        expect(form.get_by_label("Thinking", exact=True)).to_be_checked()
    attach(page, LINE)
    ask(page, "Read the text.")
    thought = answers(page).locator("details")
    expect(thought).not_to_have_attribute("open", "")
    expect(thought.locator(".markdown")).to_be_hidden()
    thought.get_by_text("Thought", exact=True).click()
    expect(thought.locator(".markdown")).to_be_visible()
    expect(thought.locator(".markdown")).not_to_be_empty()
    expect(answers(page).locator(".figures")).to_have_text(figures_like("N answer tokens (N thought)"))
    with settings(page) as form:
        form.get_by_label("Thinking budget").fill("5")
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Again.")
    assert body_of(request.value)["thinking_budget"] == 5
    with settings(page) as form:
        form.get_by_label("Thinking", exact=True).uncheck()
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Once more.")
    assert body_of(request.value)["thinking"] == {"type": "disabled"}
    assert "thinking_budget" not in body_of(request.value)
    expect(answers(page).last.locator("details")).to_be_hidden()


def test_settings_reach_the_request_and_are_kept(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    with settings(page) as form:
        expect(form.get_by_label("Thinking", exact=True)).to_be_hidden()
        form.get_by_label("System prompt").fill("Be brief.")
        form.get_by_label("Temperature").fill("0.5")
        form.get_by_label("Max tokens").fill("3")
    page.reload()
    scripted.say("Hi.")
    ask(page, "Hello")
    assert scripted.bodies[0] == {
        "model": "nano",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 3,
    }
    with settings(page) as form:
        expect(form.get_by_label("System prompt")).to_have_value("Be brief.")
        for name in ("System prompt", "Temperature", "Max tokens"):
            form.get_by_label(name).fill("")
    # a wish of a model that thinks, which this one would refuse
    page.evaluate("localStorage['kimi-vl.settings'] = JSON.stringify({ thinks: false, budget: '5' })")
    page.reload()
    expect(said(page)).to_have_text("Hi.")
    scripted.say("Hi.")
    ask(page, "Hello")
    assert scripted.bodies[1].keys() == {"model", "messages", "stream", "stream_options"}


def test_an_answer_that_is_cut_off_says_so(page: Page, servers: Servers) -> None:
    page.goto(servers.plain)
    with settings(page) as form:
        form.get_by_label("Max tokens").fill("3")
    attach(page, LINE)
    ask(page, "Read the text.")
    expect(answers(page).locator(".figures")).to_have_text(figures_like("cut off at max tokens"))
    expect(answers(page).locator(".figures")).to_have_text(figures_like("3 answer tokens"))


def test_regenerate_asks_for_the_last_answer_again(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    for text in ("one", "two", "three"):
        scripted.say(text)
    ask(page, "First?")
    ask(page, "Second?")
    expect(button(page, "Regenerate")).to_have_count(1)
    button(page, "Regenerate").click()
    expect(said(page)).to_have_text("three")
    expect(answers(page)).to_have_count(2)
    assert scripted.bodies[2] == scripted.bodies[1]
    assert [each["content"] for each in scripted.bodies[1]["messages"]] == ["First?", "one", "Second?"]


def test_an_earlier_question_is_edited_and_what_followed_is_dropped(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    for text in ("one", "two", "three"):
        scripted.say(text)
    attach(page, file_of("red.png", png(30, 20)))
    ask(page, "First?")
    ask(page, "Second?")
    box(page).fill("not yet sent")
    button(questions(page).first, "Edit").click()
    expect(box(page)).to_have_value("First?")
    expect(attached(page)).to_have_count(1)
    button(page, "Cancel").click()
    expect(box(page)).to_have_value("not yet sent")
    button(questions(page).first, "Edit").click()
    page.reload()
    expect(page.get_by_text("Editing an earlier message.")).to_be_visible()
    box(page).fill("Other?")
    box(page).press("Enter")
    expect(said(page)).to_have_text("three")
    expect(questions(page)).to_have_count(1)
    expect(answers(page)).to_have_count(1)
    expect(box(page)).to_have_value("not yet sent")
    assert len(scripted.bodies[2]["messages"]) == 1
    assert scripted.bodies[2]["messages"][0]["content"][1]["text"] == "Other?"


def test_a_reload_keeps_the_conversation_its_pictures_and_what_is_being_written(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    scripted.say("A **line**.", thought="Hm.")
    scripted.say("Yes.")
    attach(page, LINE)
    ask(page, "Read the text.")
    attach(page, file_of("blue.png", png(30, 20, "blue")))
    box(page).press_sequentially("Are you su")
    before = page.get_by_role("log").inner_text()
    page.reload()
    expect(page.get_by_role("log")).to_have_text(before, use_inner_text=True)
    expect(questions(page).get_by_role("img", name="line.png")).to_have_js_property("naturalWidth", 253)
    expect(page.get_by_role("img", name="blue.png")).to_have_js_property("naturalWidth", 30)
    expect(box(page)).to_have_value("Are you su")
    ask(page, "Are you sure?")
    assert data_urls(scripted.bodies[1], 0) == [data_url(LINE.read_bytes())]
    assert data_urls(scripted.bodies[1]) == [data_url(png(30, 20, "blue"))]
    assert scripted.bodies[1]["messages"][1] == {"role": "assistant", "content": "A **line**."}


def test_an_answer_that_the_page_did_not_see_to_its_end_can_be_asked_for_again(page: Page, scripted: Scripted) -> None:
    asked_for_its_card: list[Route] = []
    page.route("**/v1/models", lambda route: asked_for_its_card.append(route))
    page.goto(scripted.url)
    scripted.replies.put(Reply(held_after(says("Half"), threading.Event())))
    box(page).fill("Tell me.")
    box(page).press("Enter")
    expect(page.get_by_role("article", name="Answer")).to_be_visible()  # it is not known yet whose
    asked_for_its_card[0].continue_()
    page.unroute("**/v1/models")
    expect(said(page)).to_have_text("Half")
    other = page.context.new_page()  # which finds what would be found if the first were gone
    other.goto(scripted.url)
    expect(questions(other)).to_contain_text("Tell me.")
    expect(other.get_by_role("alert")).to_contain_text("The page was left before the answer was whole")
    expect(answers(other)).to_have_attribute("aria-busy", "false")
    expect(said(other)).to_have_text("Half")
    other.close()
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("whole")
    scripted.say("Whole.")
    button(page, "Try again").click()
    expect(said(page)).to_have_text("Whole.")


def test_a_new_conversation_can_be_undone(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    scripted.say("one")
    ask(page, "First?")
    button(page, "New conversation").click()
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()
    expect(questions(page)).to_have_count(0)
    button(page, "Undo").click()
    expect(said(page)).to_have_text("one")
    button(page, "New conversation").click()
    page.reload()
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()
    button(page, "Read the text.").click()
    expect(box(page)).to_have_value("Read the text.")


def held_after(first: bytes, until: threading.Event, rest: bytes = b"") -> Iterator[bytes]:
    yield first
    until.wait(10)
    yield rest


def test_answers_and_code_can_be_copied(page: Page, scripted: Scripted) -> None:
    source = "See `this`:\n\n```python\nprint(1)\n\nprint(2)\n```"
    text = shown(page, scripted, source)
    for name, copied in {"Copy code": "print(1)\n\nprint(2)", "Copy answer": source, "Copy message": "?"}.items():
        button(page, name).click()
        expect(button(page, name)).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == copied
    expect(text.locator("figcaption")).to_contain_text("python")


# -- errors ----------------------------------------------------------------------------------------------


def test_a_file_that_is_no_picture_is_refused_and_nothing_is_lost(
    page: Page, servers: Servers, troubles: list[str]
) -> None:
    page.goto(servers.plain)
    attach(page, file_of("hostile.png", b"<b>no picture</b>"))
    attach(page, LINE)
    ask(page, "Read the text.")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server refused this (400)")
    expect(alert).to_contain_text("picture 1 of 2: is no picture in a known format")
    expect(questions(page)).to_contain_text("Read the text.")
    button(page, "Try again").click()
    expect(alert).to_contain_text("picture 1 of 2")
    button(page, "Edit").click()
    expect(box(page)).to_have_value("Read the text.")
    button(page, "Remove hostile.png").click()
    box(page).press("Enter")
    expect(said(page)).to_have_text(LINE_SAYS)
    forgive(troubles)


def test_a_server_that_cannot_be_reached(page: Page, scripted: Scripted, troubles: list[str]) -> None:
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.goto(scripted.url)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    box(page).fill("Hello?")
    box(page).press("Enter")
    expect(alert).to_have_count(2)
    page.unroute("**/v1/**")
    button(alert.first, "Try again").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("nano")
    scripted.say("Here.")
    button(alert, "Try again").click()
    expect(alert).to_have_count(0)
    expect(said(page)).to_have_text("Here.")
    assert scripted.bodies[0]["messages"] == [{"role": "user", "content": "Hello?"}]
    forgive(troubles)


@pytest.mark.parametrize(
    ("last", "title", "reason"),
    [
        (sent({"error": {"message": "the step failed"}}, "error"), "The answer broke off", "the step failed"),
        (b"", "The connection broke off", "The answer is not whole."),
        (b"data: {oops\n\n", "This page failed", "JSON"),
    ],
)
def test_a_stream_that_fails_keeps_what_came(
    page: Page, scripted: Scripted, last: bytes, title: str, reason: str
) -> None:
    page.goto(scripted.url)
    scripted.replies.put(Reply([says("Half an "), last]))
    ask(page, "Tell me.")
    expect(said(page)).to_have_text("Half an")
    expect(page.get_by_role("alert")).to_contain_text(title)
    expect(page.get_by_role("alert")).to_contain_text(reason)
    scripted.say("A whole answer.")
    button(page, "Try again").click()
    expect(said(page)).to_have_text("A whole answer.")
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (429, "The server is busy (429)"),
        (413, "This is too large for the server (413)"),
        (503, "The server failed (503)"),
    ],
)
def test_a_refusal_says_why(page: Page, scripted: Scripted, troubles: list[str], status: int, title: str) -> None:
    page.goto(scripted.url)
    scripted.refuse(status, "because of <b>this</b>")
    ask(page, "Tell me.")
    expect(page.get_by_role("alert")).to_contain_text(title)
    expect(page.get_by_role("alert")).to_contain_text("because of <b>this</b>")
    expect(button(page, "Try again")).to_be_visible()
    forgive(troubles)


SLOW = """
const open = indexedDB.open.bind(indexedDB);
indexedDB.open = (...of) => {
  const slow = {}, request = open(...of);
  request.onupgradeneeded = () => slow.onupgradeneeded();
  Object.defineProperty(slow, "result", { get: () => request.result });
  request.onsuccess = () => setTimeout(() => slow.onsuccess(), 500);
  return slow;
};
"""


def test_who_asks_before_the_conversation_is_there_is_answered(page: Page, scripted: Scripted) -> None:
    page.add_init_script(SLOW)
    page.goto(scripted.url)
    go = threading.Event()
    scripted.replies.put(Reply(held_after(says("An "), go, says("answer.") + ending())))
    send(page, "Tell me.")
    page.wait_for_timeout(700)
    expect(page.get_by_role("alert")).to_have_count(0)
    go.set()
    expect(said(page)).to_have_text("An answer.")
    page.reload()
    expect(said(page)).to_have_text("An answer.")


# -- what an answer looks like ---------------------------------------------------------------------------

HOSTILE = """\
<img src=x onerror=alert(1)> <script>alert(2)</script> <iframe src="https://evil.example/"></iframe>

[x](javascript:alert(3)) [y]( JaVaScRiPt:alert(4)) [z](data:text/html,<script>alert(5)</script>) <javascript:alert(6)>
[tab](java\tscript:alert(7)) [here](//evil.example/a) [file](file:///etc/passwd)

![a picture](https://evil.example/pixel.png) ![](https://evil.example/no-name.png)

[<img src=x onerror=alert(8)>](https://example.com/?"onmouseover=alert(9)) `<b>` **<i onclick=alert(10)>**

| <img src=x onerror=alert(11)> |
| --- |
| <svg onload=alert(12)> |

```"><img src=x onerror=alert(13)>
</code></pre><script>alert(14)</script>
```

$\\text{<img src=x onerror=alert(15)>} \\href{javascript:alert(16)}{x}$ $\\text{</math><img src=x>}$
"""


def test_hostile_text_stays_text(page: Page, scripted: Scripted) -> None:
    text = shown(page, scripted, HOSTILE)
    harmful = "img, script, iframe, object, embed, form, b, i, style, link, svg:not(.icon)"
    expect(text.locator(harmful)).to_have_count(0)
    attributes = text.evaluate("(text) => [...text.querySelectorAll('*')].flatMap((each) => each.getAttributeNames())")
    assert {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")} == set()
    addresses = text.get_by_role("link").evaluate_all("(links) => links.map((each) => each.href)")
    assert addresses == [
        "https://evil.example/",
        "https://evil.example/pixel.png",
        "https://evil.example/no-name.png",
        "https://example.com/?%22onmouseover=alert(9)",
    ]
    for link in text.get_by_role("link").all():
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(link).to_have_attribute("target", "_blank")
    expect(text.get_by_role("link").nth(1)).to_have_text("a picture")
    for part in ("onerror=alert(1)", "<script>alert(2)</script>", "[x](javascript:alert(3))", "alert(14)"):
        expect(text).to_contain_text(part)
    expect(text.locator("code.tex")).to_contain_text("\\href{javascript:alert(16)}")


def test_endless_nesting_is_survived(page: Page, scripted: Scripted) -> None:
    """Thousands of roots within one another would take the tab down with them."""
    page.goto(scripted.url)
    for source in (">" * 5000, "*a _b " * 5000, "[" * 5000, "1. " * 5000, "$" + "\\sqrt " * 1000 + "x$"):
        scripted.say(source)
        ask(page, "?")
        expect(said(page)).not_to_be_empty()
    expect(said(page).locator("code.tex")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)


MARKDOWN = """\
# One
### Three

Some **bold**, *italic*, ***both***, __bold__ and _italic_, ~~gone~~, snake_case_name, 2 * 3 * 4, `code *not*`.
The next line, \\*escaped\\*, [a link](https://example.com/a_(b) "title") and https://example.com/c_d.

1. first
   - inner
     - innermost
2. second

   its second paragraph
5) other

- [x] done
* * *
> quoted
> - in it

| Left | Right | *Mid* |
|:-----|------:|:-----:|
| `a|b` | 2 \\| 3 | **x** |
| only one |

~~~
fenced # not a heading
~~~
"""


def test_markdown_becomes_elements(page: Page, scripted: Scripted) -> None:
    text = shown(page, scripted, MARKDOWN)
    expect(text.locator("h2")).to_have_text("One")
    expect(text.locator("h4")).to_have_text("Three")
    first = text.locator("p").first
    expect(first.locator("strong:not(em strong)")).to_have_text(["bold", "bold"])
    expect(first.locator("em:not(:has(strong))")).to_have_text(["italic", "italic"])
    expect(first.locator("em > strong")).to_have_text("both")
    expect(first.locator("del")).to_have_text("gone")
    expect(first.locator("code")).to_have_text("code *not*")
    expect(first.locator("br")).to_have_count(1)
    for plain in ("snake_case_name", "2 * 3 * 4", "*escaped*"):
        expect(first).to_contain_text(plain)
    addresses = first.get_by_role("link").evaluate_all("(links) => links.map((each) => each.href)")
    assert addresses == ["https://example.com/a_(b)", "https://example.com/c_d"]
    expect(text.locator(":scope > ol > li")).to_have_count(3)
    expect(text.locator(":scope > ol > li > ul > li > ul > li")).to_have_text("innermost")
    expect(text.locator(":scope > ol > li").nth(1).locator("p")).to_have_text(["second", "its second paragraph"])
    expect(text.locator(":scope > ul > li")).to_have_text("☑ done")
    expect(text.locator("hr")).to_have_count(1)
    expect(text.locator("blockquote li")).to_have_text("in it")
    expect(text.locator("pre")).to_have_text("fenced # not a heading")
    expect(text.get_by_role("table").get_by_role("columnheader")).to_have_text(["Left", "Right", "Mid"])
    expect(text.get_by_role("table").get_by_role("cell").nth(1)).to_have_css("text-align", "right")
    expect(text.get_by_role("table").get_by_role("row")).to_have_count(3)


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        (r"\(\frac{a}{b^2}\)", "<mfrac><mi>a</mi><msup><mi>b</mi><mn>2</mn></msup></mfrac>"),
        (r"$\sqrt[3]{x_i}$", "<mroot><msub><mi>x</mi><mi>i</mi></msub><mn>3</mn></mroot>"),
        (r"$\alpha \le \Omega$", '<mrow><mi>α</mi><mo>≤</mo><mi mathvariant="normal">Ω</mi></mrow>'),
        (r"$f''$", "<msup><mi>f</mi><mrow><mo>′′</mo></mrow></msup>"),
        (r"$\text{if } x$", "<mrow><mtext>if&nbsp;</mtext><mi>x</mi></mrow>"),
        (r"$\mathbb{R}$", "<mrow><mi>ℝ</mi></mrow>"),
        (r"$\frac12$", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
    ],
)
def test_formulas_become_mathml(page: Page, scripted: Scripted, source: str, inside: str) -> None:
    math = shown(page, scripted, f"So {source} holds.").locator("math")
    expect(math).to_have_attribute("display", "inline")
    assert math.inner_html() == inside


DISPLAYED = r"""
$$
\sum_{i=1}^{n} \int_0^\infty e^{-x}\,dx
$$

\[ A = \begin{pmatrix} a & b \\ c & d \end{pmatrix}, \left\{ \frac{x}{y} \right. \]

$$f(x) = \begin{cases} x & \text{if } x > 0 \\ -x & \text{else} \end{cases}$$

\begin{align}
a &= b \\
- c &= \mathbf{d}
\end{align}

It costs $5, or $10 for two. But $\unknown{x}$ and $\frac{1}$ and $x^{2$ are shown as they came.
"""


def test_displayed_formulas_and_what_is_not_understood(page: Page, scripted: Scripted) -> None:
    text = shown(page, scripted, DISPLAYED)
    assert [math.get_attribute("display") for math in text.locator("math").all()] == ["block"] * 4
    expect(text.locator("munderover")).to_have_count(1)
    expect(text.locator("msubsup")).to_have_count(1)
    expect(text.locator("mtable")).to_have_count(3)
    expect(text.locator("mtable").first.locator("mtr").first.locator("mtd")).to_have_text(["a", "b"])
    assert text.locator("mo[fence]").all_text_contents()[:4] == ["(", ")", "{", ""]
    expect(text.locator("p").last).to_contain_text("It costs $5, or $10 for two.")
    assert text.locator("code.tex").all_inner_texts() == [r"$\unknown{x}$", r"$\frac{1}$", "$x^{2$"]


def test_a_text_that_grows_ends_as_one_that_came_at_once(page: Page, scripted: Scripted) -> None:
    whole = f"{MARKDOWN}\n{DISPLAYED}\n{HOSTILE}"
    page.goto(scripted.url)
    ready, count = threading.Event(), 7

    def slowly() -> Iterator[bytes]:
        for at in range(0, len(whole), count):
            yield says(whole[at : at + count])
            if at % (20 * count) == 0:
                ready.wait(0.01)  # a few frames' worth of states
        yield ending()

    scripted.replies.put(Reply(slowly()))
    ask(page, "Tell me all.")
    grown = said(page).inner_html()
    page.reload()
    expect(said(page)).to_contain_text("innermost")
    assert said(page).inner_html() == grown


def test_what_is_settled_is_not_drawn_again(page: Page, scripted: Scripted) -> None:
    go = threading.Event()
    page.goto(scripted.url)
    scripted.replies.put(Reply(held_after(says("# One\n\nTwo\n\nThree\n\nFo"), go, says("ur") + ending())))
    send(page, "?")
    expect(said(page)).to_contain_text("Fo")
    said(page).evaluate("(text) => { window.before = [...text.children]; }")
    go.set()
    expect(said(page)).to_contain_text("Four")
    assert said(page).evaluate("(text) => [...text.children].map((each, at) => each === window.before[at])") == [
        True, True, False, False,
    ]  # fmt: skip


# -- for everyone ----------------------------------------------------------------------------------------


def test_dark_and_light_are_kept(page: Page, scripted: Scripted) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(scripted.url)
    body, switch = page.locator("body"), button(page, "Dark colours")
    light = "rgb(251, 250, 248)"
    expect(body).to_have_css("background-color", light)
    expect(switch).to_have_attribute("aria-pressed", "false")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(body).not_to_have_css("background-color", light)
    page.reload()
    expect(body).not_to_have_css("background-color", light)
    page.emulate_media(color_scheme="dark")
    switch.click()
    expect(body).to_have_css("background-color", light)
    switch.click()
    page.emulate_media(color_scheme="light")  # back at the system's choice, which is followed again
    expect(body).to_have_css("background-color", light)


FOCUSED = """() => {
    const it = document.activeElement;
    if (it === document.body) return ["the page", true];
    const { outlineStyle, boxShadow } = getComputedStyle(it.id === "text" ? it.closest("form") : it);
    return [it.ariaLabel ?? it.textContent, outlineStyle !== "none" || boxShadow !== "none"];
}"""


def test_the_keyboard_is_enough(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    go = threading.Event()
    scripted.replies.put(Reply(held_after(says("Slow"), go, says("er"))))
    expect(box(page)).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(said(page)).to_have_text("Slow")
    assert scripted.bodies[0]["messages"][0]["content"] == "one\ntwo"
    page.keyboard.type("typed meanwhile")
    page.keyboard.press("Enter")  # nothing is sent before the answer has ended
    page.keyboard.press("Escape")
    expect(answers(page).locator(".figures")).to_contain_text("stopped")
    expect(box(page)).to_have_value("typed meanwhile")
    go.set()
    reached = []
    page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
    for _ in range(11):
        page.keyboard.press("Tab")
        name, is_seen = page.evaluate(FOCUSED)
        reached.append(name)
        assert is_seen, f"{name} does not show that it has the focus"
    for name in ("New conversation", "Dark colours", "Settings", "Edit", "Copy answer", "Regenerate", "Add pictures"):
        assert name in reached
    button(page, "Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("System prompt")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button(page, "Settings")).to_be_focused()


WIDE = f"""
| {" | ".join(f"column {number}" for number in range(12))} |
|{"---|" * 12}

```
{"x" * 300}
```

{"y" * 300} [{"z" * 200}](https://example.com/)

$${" + ".join(f"a_{{{number}}}" for number in range(60))}$$

In a line: ${" + ".join(f"a_{{{number}}}" for number in range(60))}$, and `{"w" * 200}`.
"""


def test_a_narrow_phone_needs_no_sideways_scrolling(page: Page, scripted: Scripted) -> None:
    page.set_viewport_size({"width": 360, "height": 640})

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(
            "[...document.querySelectorAll('button')].every((each) => each.getBoundingClientRect().right <= 360)"
        )

    page.goto(scripted.url)
    fits()
    attach(
        page, file_of("a long name of a file that goes on and on.png", png(3000, 40)), file_of("b.png", png(40, 3000))
    )
    fits()
    scripted.say(WIDE, thought=WIDE)
    ask(page, "q" * 300)
    page.locator("summary").click()
    fits()
    with settings(page):
        fits()
    scripted.refuse(400, "r" * 300)
    page.keyboard.press("Escape")
    button(questions(page).first, "Edit").click()
    fits()


def test_everything_has_a_name_and_answers_are_announced_once(page: Page, scripted: Scripted) -> None:
    page.goto(scripted.url)
    page.evaluate(
        """() => {
            const region = document.querySelector("[aria-live=polite]");
            window.told = [];
            new MutationObserver(() => told.push(region.textContent)).observe(region, { childList: true });
        }"""
    )
    attach(page, LINE)
    scripted.replies.put(Reply([*(says(f"word{number} ") for number in range(50)), ending()]))
    ask(page, "Tell me.")
    attach(page, LINE)
    heard = page.evaluate("told")
    assert heard[0] == "Answering."
    assert heard[1].startswith("Answer complete. word0 word1")
    assert len(heard) == 2
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")
    button(page, "Settings").click()
    unnamed = nameless(page)
    page.keyboard.press("Escape")
    assert unnamed + nameless(page) == []


def nameless(page: Page) -> list[str]:
    """Roles of what can be used or looked at, and has no name in the browser's own tree for screen readers."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "checkbox", "spinbutton", "image", "link", "dialog", "article", "log", "list"}
    seen = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    assert len(seen) > 5
    return [node["role"]["value"] for node in seen if not node.get("name", {}).get("value")]


CONTRASTS = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        const colour = channels(getComputedStyle(element).backgroundColor);
        return colour.length === 4 && colour[3] === 0 && element.parentElement ? behind(element.parentElement) : colour;
    };
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const texts = [...document.querySelectorAll("body *")]
        .filter((element) => hasText(element) && element.checkVisibility() && !element.closest(":disabled"));
    return texts.map((element) => {
        const [one, other] = [channels(getComputedStyle(element).color), behind(element)].map(light);
        return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.textContent.trim().slice(0, 40)];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(page: Page, scripted: Scripted, troubles: list[str], scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(scripted.url)
    scripted.say(f"{MARKDOWN}\n{DISPLAYED}", thought="Hm.")
    scripted.refuse(400, "no")
    ask(page, "?")
    page.locator("summary").click()
    ask(page, "!")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [each for each in contrasts if each[0] < 4.5] == []
    forgive(troubles)


def test_motion_is_reduced_for_those_who_ask(page: Page, scripted: Scripted) -> None:
    go = threading.Event()
    page.goto(scripted.url)
    scripted.replies.put(Reply(held_after(b": still at work\n\n", go, says("Done.") + ending())))
    send(page, "?")
    expect(page.get_by_text("Reading…")).to_have_css("animation-name", "breathe")
    page.emulate_media(reduced_motion="reduce")
    expect(page.get_by_text("Reading…")).to_have_css("animation-name", "none")
    go.set()
    expect(said(page)).to_have_text("Done.")
