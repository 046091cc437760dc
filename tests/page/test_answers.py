"""Answers on the chat page: seen as they come, kept, asked for again, and under settings."""

from __future__ import annotations

import json
import threading

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Page, Route, expect

from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor
from tests.page.driving import (
    LINE,
    answers,
    ask,
    attach,
    attached,
    body_of,
    box,
    button,
    data_url,
    data_urls,
    figures_like,
    file_of,
    forgive,
    png,
    questions,
    said,
    send,
    settings,
    shown,
)
from tests.page.servers import KEY, Reply, Scripted, Servers, held_after, metric, says


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


def test_answers_and_code_can_be_copied(page: Page, scripted: Scripted) -> None:
    source = "See `this`:\n\n```python\nprint(1)\n\nprint(2)\n```"
    text = shown(page, scripted, source)
    for name, copied in {"Copy code": "print(1)\n\nprint(2)", "Copy answer": source, "Copy message": "?"}.items():
        button(page, name).click()
        expect(button(page, name)).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == copied
    expect(text.locator("figcaption")).to_contain_text("python")
