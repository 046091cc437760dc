"""The chat page by the names of what is on it: a test finds and does what a visitor would."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, Request, expect

from tests.page.servers import Scripted

LINE = Path(__file__).parents[2] / "docs" / "line.png"
expect.set_options(timeout=15_000)


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
