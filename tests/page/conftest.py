"""A real browser on the chat page: of servers that answer with nano, and of one that answers by script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browsing import opened
from tests.page.servers import KEY, Scripted, Servers, address, started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture(scope="package")
def servers() -> Iterator[Servers]:
    """With the slash at the end that a browser's addresses have."""
    with started() as plain, started("--thinking", "--thinking-budget", "12", "--api-key", KEY) as thinking:
        yield Servers(address(plain), address(thinking))


@pytest.fixture
def scripted(servers: Servers) -> Iterator[Scripted]:
    with Scripted(servers.plain) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def troubles() -> list[str]:
    """What a page complains of, and what it asks of others. Empty at a test's end, or the test fails."""
    return []


@pytest.fixture
def page(browser: Browser, troubles: list[str], scripted: Scripted) -> Iterator[Page]:
    """Closed before the server of a script is: a page that still asks for something would complain."""
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
