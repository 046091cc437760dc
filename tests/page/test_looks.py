"""What an answer looks like on the chat page: Markdown, formulas, and text that means harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from playwright.sync_api import Page, expect

from tests.page.driving import ask, said, send, shown
from tests.page.servers import Reply, Scripted, ending, held_after, says

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
