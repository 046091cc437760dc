"""What fails under the chat page is said, and nothing that somebody wrote is lost."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Page, expect

from tests.engines import LINE_SAYS
from tests.page.driving import LINE, ask, attach, box, button, file_of, forgive, questions, said, send
from tests.page.servers import Reply, Scripted, Servers, ending, held_after, says, sent


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
