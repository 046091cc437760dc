"""(Random, split) -> the HTML of a page that looks like an application.

Comes in: words of the books, icons. Goes out: HTML in which all that can be pointed at is marked by `data-role`,
`data-name`, `data-value` and `data-on`, as seen.py reads them. Every text is text of a node: none stands in an
attribute or in a sheet.
"""

from collections.abc import Callable
from random import Random

from recipes.nano.fonts import Split
from recipes.nano.screens.look import Look, look
from recipes.nano.screens.widgets import Widgets


def application_page(random: Random, split: Split, size: tuple[int, int]) -> tuple[str, str]:
    """The kind of a page and its HTML, made to fill a window of this size about once."""
    kind = random.choice(tuple(_PAGES))
    of = look(random, split)
    widgets = Widgets(random, split, of)
    body = _PAGES[kind](widgets, random, size)
    return kind, f"<!DOCTYPE html><html><head><meta charset='utf-8'><style>{_sheet(random, of)}</style></head>{body}"


def _settings(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    count = _rows(size, make.look, 130)
    rows = [random.choice((make.checkbox, make.switch, make.field, make.choice))() for _ in range(count)]
    side = make.side_list() if random.random() < 0.4 else ""
    head = random.choice((make.tabs, make.app_bar, lambda: ""))()
    main = f"{make.heading()}{''.join(f'<div class=row>{row}</div>' for row in rows)}{make.buttons()}"
    return f"<body>{head}<div class=split>{side}<main>{main}</main></div></body>"


def _form(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    fields = [make.field() for _ in range(max(2, _rows(size, make.look, 110) - 1))]
    if random.random() < 0.5:
        fields = [f"<div class=two>{one}{make.field()}</div>" for one in fields]
    tick = make.checkbox() if random.random() < 0.6 else ""
    text = f"<p>{make.sentence()}</p>" if random.random() < 0.5 else ""
    return (
        f"<body><main>{make.heading()}{text}{''.join(fields)}<div class=row>{tick}</div>{make.buttons()}</main></body>"
    )


def _editor(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    text = "".join(f"<p>{make.paragraph()}</p>" for _ in range(4))
    head = random.choice((make.tabs, lambda: ""))()
    return (
        f"<body>{make.menu_bar()}{make.toolbar(random.randint(5, 14))}{head}"
        f"<main>{make.heading()}{text}</main>{make.status_bar()}</body>"
    )


def _files(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    table = make.table(_rows(size, make.look, 100), random.randint(2, 4))
    side = make.side_list() if random.random() < 0.6 else ""
    bar = random.choice((lambda: make.toolbar(random.randint(3, 9)), make.app_bar))()
    return f"<body>{bar}<div class=split>{side}<main>{table}</main></div>{make.status_bar()}</body>"


def _list(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    rows = "".join(make.entry() for _ in range(max(2, _rows(size, make.look, 80) // 2)))
    tabs = make.tabs() if random.random() < 0.4 else ""
    return f"<body>{make.app_bar()}{tabs}<main>{rows}</main></body>"


def _cards(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    cards = "".join(make.card() for _ in range(random.choice((2, 3, 4, 6))))
    head = random.choice((make.app_bar, make.tabs, make.menu_bar))()
    return f"<body>{head}<main>{make.heading()}<div class=cards>{cards}</div></main></body>"


def _dialog(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    behind = "".join(f"<p>{make.paragraph()}</p>" for _ in range(3))
    inner = "".join(random.choice((make.checkbox, make.field))() for _ in range(random.randint(0, 2)))
    box = f"{make.heading()}<p>{make.sentence()}</p>{inner}{make.buttons()}"
    width = round(size[0] * random.uniform(0.5, 0.75))
    left, top = random.uniform(0.05, 0.2) * size[0], random.uniform(0.05, 0.3) * size[1]
    place = f"left:{left:.0f}px;top:{top:.0f}px;width:{width}px"
    return (
        f"<body>{make.toolbar(random.randint(3, 8))}<main>{behind}</main><div class=shade></div>"
        f"<div class=dialog style='{place}'>{box}</div></body>"
    )


def _menu(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    text = "".join(f"<p>{make.paragraph()}</p>" for _ in range(3))
    place = f"left:{random.randint(2, size[0] // 2)}px;top:{random.randint(28, 60)}px"
    return (
        f"<body>{make.menu_bar()}<main>{text}</main>"
        f"<div class=dialog style='{place};padding:4px 0'>{make.menu(random.randint(3, 8))}</div></body>"
    )


def _icons(make: Widgets, random: Random, size: tuple[int, int]) -> str:
    tiles = "".join(make.tile(named=random.random() < 0.3) for _ in range(random.randint(6, 20)))
    head = random.choice((make.app_bar, make.tabs, make.heading))()
    side = f"<nav>{make.toolbar(random.randint(3, 6), upright=True)}</nav>" if random.random() < 0.4 else ""
    return f"<body>{head}<div class=split>{side}<main><div class=tiles>{tiles}</div></main></div></body>"


_PAGES: dict[str, Callable[[Widgets, Random, tuple[int, int]], str]] = {
    "settings": _settings,
    "form": _form,
    "editor": _editor,
    "files": _files,
    "list": _list,
    "cards": _cards,
    "dialog": _dialog,
    "menu": _menu,
    "icons": _icons,
}


def _rows(size: tuple[int, int], of: Look, taken: int) -> int:
    """How many rows of controls go into the height that other things leave."""
    return max(2, round((size[1] - taken) / (of.size * 2.6)))


def _sheet(random: Random, of: Look) -> str:
    pad = random.randint(2, 7)
    flat = random.random() < 0.4
    edge = "transparent" if flat and random.random() < 0.5 else of.rule
    columns = random.choice((2, 2, 3))
    return f"""{of.fonts}
* {{ box-sizing: border-box; font-variant-ligatures: no-contextual; font-family: Page, sans-serif }}
html, body {{ margin: 0; height: 100%; background: {of.paper}; color: {of.pen}; font-size: {of.size}px;
  line-height: {of.leading:.2f}; overflow: hidden }}
body {{ display: flex; flex-direction: column }}
main {{ flex: 1; padding: {random.randint(6, 20)}px {random.randint(8, 28)}px; overflow: hidden; min-width: 0 }}
.split {{ display: flex; flex: 1; min-height: 0 }}
nav {{ background: {of.panel}; padding: 6px; border-right: 1px solid {edge}; overflow: hidden; flex: none;
  max-width: 35% }}
h2, h3 {{ margin: 2px 0 {pad + 2}px; font-size: {random.uniform(1.1, 1.7):.2f}em; line-height: 1.3 }}
h3 {{ font-size: 1.05em }}
p {{ margin: 3px 0 8px }}
.bar {{ display: flex; align-items: center; gap: {random.randint(1, 10)}px; background: {of.panel}; flex: none;
  padding: {random.randint(1, 6)}px {random.randint(4, 12)}px; border-bottom: 1px solid {edge}; white-space: nowrap;
  overflow: hidden }}
.upright {{ flex-direction: column }}
.space {{ flex: 1 }}
.button {{ display: inline-flex; align-items: center; gap: 6px; padding: {pad}px {pad + random.randint(4, 12)}px;
  border: 1px solid {edge}; border-radius: {of.radius}px; background: {of.panel}; white-space: nowrap }}
.main {{ background: {of.accent}; color: {of.on_accent}; border-color: {of.accent} }}
.buttons {{ display: flex; gap: {random.randint(4, 14)}px; margin-top: {pad + 4}px; flex-wrap: wrap;
  justify-content: {random.choice(("flex-start", "flex-end", "center"))} }}
.icon {{ display: inline-flex; padding: {random.randint(1, 6)}px; border-radius: {of.radius}px }}
.icon > * {{ display: block; width: {random.randint(14, 24)}px; height: auto }}
.icon.framed {{ border: 1px solid {of.rule} }}
.tab {{ padding: {pad}px {pad + 7}px; border-bottom: 2px solid transparent; display: inline-block;
  white-space: nowrap }}
.tab.on {{ border-bottom-color: {of.accent}; {random.choice(("font-weight: 700", f"color: {of.accent}"))} }}
.row {{ margin: {pad}px 0 }}
.field {{ margin-bottom: {pad + 2}px; {random.choice(("", "display: flex; gap: 10px; align-items: center"))} }}
.field > .label {{ min-width: 28%; {random.choice(("", f"color: {of.faint}"))}; display: block }}
.holds {{ border: 1px solid {of.rule}; border-radius: {of.radius}px; padding: {pad}px 7px; flex: 1; display: block;
  min-height: {of.size * of.leading + 2 * pad + 2:.0f}px; white-space: nowrap; overflow: hidden;
  background: {random.choice((of.paper, of.panel))} }}
.two {{ display: flex; gap: 14px }} .two > * {{ flex: 1; min-width: 0 }}
.tick {{ display: inline-flex; align-items: center; gap: 7px }}
.tick input {{ margin: 0; accent-color: {of.accent}; width: {random.randint(12, 16)}px; height: 14px }}
.switch {{ display: inline-block; width: 30px; height: 16px; border-radius: 8px; background: {of.rule}; padding: 2px }}
.switch i {{ display: block; width: 12px; height: 12px; border-radius: 6px; background: {of.paper} }}
.switch.on {{ background: {of.accent} }} .switch.on i {{ margin-left: 14px }}
a {{ color: {of.accent}; text-decoration: {random.choice(("none", "underline"))} }}
nav a {{ display: block; padding: {pad}px 8px; white-space: nowrap }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: {pad}px 8px; border-bottom: 1px solid {of.rule}; white-space: nowrap }}
th {{ background: {of.panel} }}
.entry {{ display: flex; gap: 10px; align-items: center; padding: {pad + 1}px 2px; border-bottom: 1px solid {edge} }}
.entry .grow {{ flex: 1; min-width: 0 }} .faint {{ color: {of.faint} }}
.cards {{ display: grid; grid-template-columns: repeat({columns}, 1fr); gap: {random.randint(6, 14)}px }}
.card {{ border: 1px solid {of.rule}; border-radius: {of.radius}px; padding: {pad + 5}px;
  background: {random.choice((of.paper, of.panel))}; min-width: 0 }}
.tiles {{ display: flex; flex-wrap: wrap; gap: {random.randint(8, 26)}px }}
.tile {{ display: inline-flex; flex-direction: column; align-items: center }}
.tile .icon > * {{ width: {random.randint(18, 40)}px }}
.shade {{ position: fixed; inset: 0; pointer-events: none;
  background: rgba(0, 0, 0, {random.choice((0.0, 0.25, 0.5))}) }}
.dialog {{ position: fixed; background: {of.paper}; border: 1px solid {of.rule}; border-radius: {of.radius}px;
  padding: {random.randint(10, 22)}px; box-shadow: 0 3px 14px rgba(0, 0, 0, {random.choice((0.0, 0.35))}) }}
.item {{ display: flex; gap: 8px; align-items: center; padding: {pad}px 14px; min-width: 150px; white-space: nowrap }}
.item .keys {{ margin-left: auto; padding-left: 24px; color: {of.faint} }}
"""
