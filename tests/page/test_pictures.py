"""Pictures on the chat page: how they come in, how many, how large, and what becomes of those that cannot be sent."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Page, Route, expect

from tests.engines import LINE_SAYS
from tests.page.driving import (
    LINE,
    answers,
    ask,
    attach,
    attached,
    box,
    button,
    data_url,
    data_urls,
    figures_like,
    file_of,
    png,
    questions,
    said,
)
from tests.page.servers import Scripted, Servers


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
