"""The chat page for everyone: by keyboard, on a phone, by a screen reader, in the dark."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Page, expect

from tests.page.driving import (
    LINE,
    answers,
    ask,
    attach,
    box,
    button,
    file_of,
    forgive,
    png,
    questions,
    said,
    send,
    settings,
)
from tests.page.servers import Reply, Scripted, ending, held_after, says
from tests.page.test_looks import DISPLAYED, MARKDOWN


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
