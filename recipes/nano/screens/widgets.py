"""Buttons, fields, lists and the like, as HTML.

Comes in: words of a split's book, icons. Goes out: pieces of a page in which what can be pointed at is marked.
Knows nothing of how they are put together (site.py) or what they look like.
"""

import base64
import re
from html import escape
from random import Random

from recipes.nano.fonts import Split
from recipes.nano.screens.icons import called, drawing, some_names
from recipes.nano.screens.look import Look
from recipes.nano.text import book

_COMMANDS = """
Save|Cancel|OK|Open|Close|Apply|Delete|Edit|New|Back|Next|Finish|Retry|Send|Reply|Print|Copy|Paste|Undo|Redo|Import|Export
Download|Upload|Share|Add|Remove|Rename|Search|Refresh|Reset|Help|About|Sign in|Sign out|Continue|Submit|Update|Install
Select all|Save as|Learn more|Show all|Not now|Yes|No|Stop|Start|Connect|Browse
"""
_TITLES = """
File|Edit|View|Insert|Format|Tools|Window|Help|General|Account|Privacy|Network|Display|Sound|Language|Advanced|Security
Storage|Inbox|Sent|Drafts|Archive|Home|Documents|Pictures|Music|Settings|Profile|History|Bookmarks|Overview|Details|Name
Email|Password|City|Country|Street|Phone|Date|Title|Comment|Size|Type|Status
"""
COMMANDS, TITLES = (tuple(re.split(r"[|\n]", names.strip())) for names in (_COMMANDS, _TITLES))
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Widgets:
    """The maker of one page's parts: it uses no label and no icon twice."""

    def __init__(self, random: Random, split: Split, look: Look) -> None:
        self._random, self._split, self.look = random, split, look
        self._used: set[str] = set()
        self._case = random.choices(("title", "sentence", "lower", "upper"), (30, 55, 10, 5))[0]
        self._inline = random.random() < 0.5
        self._framed = " framed" if random.random() < 0.3 else ""
        self._icon_supply = some_names(random, split, 48)

    # Words ----------------------------------------------------------------------------------------------

    def words(self, fewest: int, most: int) -> str:
        """Words that follow each other in the book."""
        paragraphs = book(self._split)
        count = self._random.randint(fewest, most)
        while True:
            found = re.findall(r"[A-Za-z][a-z]+", self._random.choice(paragraphs))
            if len(found) >= count:
                start = self._random.randrange(len(found) - count + 1)
                return " ".join(found[start : start + count])

    def label(self, known: tuple[str, ...] = TITLES) -> str:
        """A short name that nothing else of the page has."""
        while True:
            text = self._random.choice(known) if self._random.random() < 0.45 else self.words(1, 3)
            if text.lower() not in self._used and 2 <= len(text) <= 26:
                self._used.add(text.lower())
                return self._cased(text)

    def sentence(self) -> str:
        """Some words of prose, ready for HTML."""
        text = self.words(5, 14)
        return escape(text[0].upper() + text[1:] + self._random.choice((".", ".", "?")))

    def paragraph(self) -> str:
        """Prose of a few lines, ready for HTML."""
        while True:
            text = self._random.choice(book(self._split))
            if len(text) > 60:
                return escape(text[:420].rsplit(" ", 1)[0])

    def value(self) -> str:
        """What could stand in a field or a cell."""
        random = self._random
        kind = random.randrange(7)
        if kind == 0:
            return str(random.randint(0, 9999))
        if kind == 1:
            return f"{random.randint(1, 28)} {random.choice(_MONTHS)} {random.randint(1990, 2030)}"
        if kind == 2:
            return (
                f"{random.randint(1, 999)}.{random.randint(0, 9)} {random.choice(('KB', 'MB', 'GB', '%', '€', 'kg'))}"
            )
        if kind == 3:
            return f"{self.words(1, 1).lower()}.{random.choice(('txt', 'html', 'png', 'pdf', 'py', 'csv'))}"
        if kind == 4:
            return f"{self.words(1, 1).lower()}@{self.words(1, 1).lower()}.org"
        if kind == 5:
            return f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
        return self.words(1, 3)

    # Parts ----------------------------------------------------------------------------------------------

    def heading(self) -> str:
        """The heading of a page."""
        return f"<h2>{escape(self.label())}</h2>"

    def icon(self, *, kind: str = "") -> str:
        """An icon that no other place of the page has, or nothing when there are no more."""
        if not self._icon_supply:
            return ""
        name = self._icon_supply.pop()
        svg = drawing(name, self._split, self.look.pen)
        if not self._inline:
            svg = f"<img src='data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}'>"
        return f"<span class='icon{kind}' data-role=icon data-name='{called(name, self._split)}'>{svg}</span>"

    def button(self, *, main: bool = False) -> str:
        """A button with words, now and then with an icon before them."""
        icon = self.icon() if self._random.random() < 0.12 else ""
        text = escape(self.label(COMMANDS))
        return f"<span class='button{' main' if main else ''}' data-role=button>{icon}{text}</span>"

    def buttons(self) -> str:
        """A row of 1 to 4 buttons, one of them the main one."""
        count = self._random.randint(1, 4)
        main = self._random.randrange(count)
        return f"<div class=buttons>{''.join(self.button(main=i == main) for i in range(count))}</div>"

    def link(self) -> str:
        """A link."""
        return f"<a href='#'>{escape(self.label())}</a>"

    def side_list(self) -> str:
        """A column of links."""
        return f"<nav>{''.join(self.link() for _ in range(self._random.randint(3, 8)))}</nav>"

    def field(self) -> str:
        """A labelled field, sometimes empty."""
        name, value = escape(self.label()), escape(self.value()) if self._random.random() < 0.85 else ""
        mark = f"data-role=field data-name='{name}' data-value='{value}'"
        return f"<div class=field><span class=label>{name}</span><span class=holds {mark}>{value}</span></div>"

    def checkbox(self) -> str:
        """A box to tick, with its label."""
        return self._ticked("checkbox", on=self._random.random() < 0.5)

    def choice(self) -> str:
        """Two to four options of which one is chosen."""
        count = self._random.randint(2, 4)
        chosen = self._random.randrange(count)
        return " &nbsp; ".join(self._ticked("radio", on=i == chosen) for i in range(count))

    def switch(self) -> str:
        """A switch, with its label."""
        on = self._random.random() < 0.5
        knob = f"<span class='switch{' on' if on else ''}'><i></i></span>"
        return f"<span class=tick data-role=switch data-on={int(on)}>{knob}{escape(self.label())}</span>"

    def tabs(self) -> str:
        """A row of tabs, one of them chosen."""
        count = self._random.randint(2, 5)
        chosen = self._random.randrange(count)
        parts = [
            f"<span class='tab{' on' if i == chosen else ''}' data-role=tab data-on={int(i == chosen)}>"
            f"{escape(self.label())}</span>"
            for i in range(count)
        ]
        return f"<div class=bar>{''.join(parts)}</div>"

    def menu_bar(self) -> str:
        """The menus of a window."""
        parts = [f"<span data-role=menu style='padding:1px 5px'>{escape(self.label())}</span>" for _ in range(5)]
        return f"<div class=bar>{''.join(parts[: self._random.randint(3, 5)])}</div>"

    def menu(self, count: int) -> str:
        """An open menu: items with or without keys."""
        items = []
        icons = self._random.random() < 0.5
        for _ in range(count):
            name = escape(self.label(COMMANDS))
            keys = self._keys() if self._random.random() < 0.6 else ""
            icon = self.icon() if icons else ""
            shown = f"<span class=keys>{keys}</span>" if keys else ""
            mark = f"data-role=item data-name='{name}' data-value='{keys}'"
            items.append(f"<div class=item {mark}>{icon}<span>{name}</span>{shown}</div>")
        return "".join(items)

    def toolbar(self, count: int, *, upright: bool = False) -> str:
        """A row or a column of icons."""
        icons = "".join(self.icon(kind=self._framed) for _ in range(count))
        return f"<div class='bar{' upright' if upright else ''}'>{icons}</div>"

    def app_bar(self) -> str:
        """A title with icons and perhaps a button."""
        last = self.button(main=True) if self._random.random() < 0.5 else self.icon()
        icons = "".join(self.icon(kind=self._framed) for _ in range(self._random.randint(1, 5)))
        first = self.icon() if self._random.random() < 0.6 else ""
        title = f"<h3 style='margin:0'>{escape(self.label())}</h3>"
        return f"<div class=bar>{first}{title}<span class=space></span>{icons}{last}</div>"

    def status_bar(self) -> str:
        """One faint line at the foot."""
        if self._random.random() < 0.5:
            return ""
        first, last = escape(self.value()), self.sentence()
        return f"<div class='bar faint'><span>{first}</span><span class=space></span><span>{last}</span></div>"

    def table(self, rows: int, columns: int) -> str:
        """A table whose first column names the rows."""
        head = "".join(f"<th>{escape(self.label())}</th>" for _ in range(columns))
        linked = self._random.random() < 0.5
        body = []
        for _ in range(rows):
            first = self.link() if linked else escape(self.label())
            cells = "".join(f"<td>{escape(self.value())}</td>" for _ in range(columns - 1))
            body.append(f"<tr><td>{first}</td>{cells}</tr>")
        return f"<table><tr>{head}</tr>{''.join(body)}</table>"

    def entry(self) -> str:
        """One thing of a list: an icon, a name, a line about it, and what can be done with it."""
        first = self.icon() if self._random.random() < 0.6 else ""
        name = self.link() if self._random.random() < 0.5 else f"<b>{escape(self.label())}</b>"
        last = self._random.choice(
            (self.button, self.icon, lambda: f"<span class=faint>{escape(self.value())}</span>")
        )()
        about = f"<div class=faint>{self.sentence()}</div>" if self._random.random() < 0.7 else ""
        return f"<div class=entry>{first}<div class=grow>{name}{about}</div>{last}</div>"

    def card(self) -> str:
        """A frame with a heading, some text and what can be done."""
        first = self.icon() if self._random.random() < 0.5 else ""
        text = f"<p>{self.sentence()}</p>" if self._random.random() < 0.7 else f"<p>{escape(self.value())}</p>"
        last = self._random.choice((self.button, self.link, lambda: ""))()
        return f"<div class=card>{first}<h3>{escape(self.label())}</h3>{text}{last}</div>"

    def tile(self, *, named: bool) -> str:
        """A large icon, perhaps with some word below."""
        text = f"<span>{escape(self.label())}</span>" if named else ""
        return f"<span class=tile>{self.icon(kind=self._framed)}{text}</span>"

    def _ticked(self, role: str, *, on: bool) -> str:
        box = f"<input type={role}{' checked' if on else ''}>"
        return f"<span class=tick data-role={role} data-on={int(on)}>{box}{escape(self.label())}</span>"

    def _keys(self) -> str:
        front = self._random.choice(("Ctrl+", "Ctrl+", "Alt+", "Shift+", "Ctrl+Shift+", "F"))
        last = str(self._random.randint(1, 12)) if front == "F" else self._random.choice("ABCDEFGHKLNOPQRSTVWXYZ")
        return front + last

    def _cased(self, text: str) -> str:
        if self._case == "title":
            return " ".join(word[0].upper() + word[1:] for word in text.split())
        if self._case == "sentence":
            return text[0].upper() + text[1:]
        return text.lower() if self._case == "lower" else text.upper()
