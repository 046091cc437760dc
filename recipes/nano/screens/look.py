"""(Random, split) -> how a page looks: its colours, fonts and sizes, as a style sheet.

Comes in: the fonts that fetch.py laid down. Goes out: `Look`. "train" and "heldout" differ in fonts.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from recipes.nano.fonts import DISPLAY, MONO, Face, Split, faces
from recipes.nano.paper import Colour, luminance

HELDOUT_MONO = ("cousine",)


@dataclass(frozen=True)
class Look:
    """Colours as CSS writes them, and the sheet that sets fonts."""

    dark: bool
    paper: str
    panel: str
    pen: str
    faint: str
    rule: str
    accent: str
    on_accent: str
    size: int
    leading: float
    radius: int
    fonts: str


def look(random: Random, split: Split) -> Look:
    """One way for a page to look."""
    dark = random.random() < 0.28
    hue = random.random()
    tint = random.choice((0.0, 0.0, 0.03, 0.08, 0.15))
    paper = _shade(hue, tint, random.uniform(0.07, 0.22) if dark else random.choice((1.0, 1.0, random.uniform(0.9, 1))))
    pen = _shade(hue, tint, random.uniform(0.78, 1.0) if dark else random.uniform(0.0, 0.3))
    accent = _accent(random, paper)
    step = random.uniform(0.03, 0.12)
    return Look(
        dark=dark,
        paper=_css(paper),
        panel=_css(_mixed(paper, pen, step)),
        pen=_css(pen),
        faint=_css(_mixed(pen, paper, random.uniform(0.1, 0.4))),
        rule=_css(_mixed(paper, pen, random.uniform(0.15, 0.4))),
        accent=_css(accent),
        on_accent="#fff" if luminance(accent) < 150 else "#111",
        size=random.choices((11, 12, 13, 14, 15, 16, 18), (6, 14, 22, 24, 16, 12, 6))[0],
        leading=random.uniform(1.32, 1.6),
        radius=random.choice((0, 2, 3, 4, 6, 10)),
        fonts=_fonts(random, split),
    )


def document_sheet(random: Random, of: Look) -> str:
    """The style sheet that is laid over a manual's own."""
    heading = random.uniform(1.15, 1.7)
    rules = [
        of.fonts,
        # What a sheet writes into a page is no text of the document; pictures may hold text that we do not know.
        "*::before, *::after { content: none !important }",
        "img, svg, object, iframe, video, math, form, input, select, button, .headerlink, .menu-wrapper, "
        ".mobile-nav { display: none !important }",
        "* { scroll-behavior: auto !important; animation: none !important; transition: none !important; "
        "font-variant-ligatures: no-contextual !important; text-shadow: none !important; "
        "font-variant-caps: normal !important }",
        f"html, body {{ font-size: {of.size}px !important; line-height: {of.leading:.2f} !important; "
        f"font-family: Page !important }}",
        f"p, li, dt, dd, td, th, pre, div, a, span {{ line-height: {of.leading:.2f} !important }}",
        "p, li, dt, dd, td, th, div, a, span, em, strong, h1, h2, h3, h4, h5, h6 { font-family: Page !important }",
        "pre, pre *, code, code *, tt, kbd, samp { font-family: Fixed !important; font-size: 0.95em !important }",
        f"h1 {{ font-size: {heading:.2f}em !important; line-height: 1.3 !important }}",
        f"h2 {{ font-size: {max(1.1, heading - 0.2):.2f}em !important; line-height: 1.3 !important }}",
        "h3, h4, h5 { font-size: 1.08em !important; line-height: 1.3 !important }",
        # A number before an item would be text that is in no node.
        f"ol, ul {{ list-style-type: {random.choice(('disc', 'square', 'none'))} !important }}",
    ]
    if random.random() < 0.6:
        rules.append(
            ".sphinxsidebar, .related, .navheader, .navfooter, .header, .footer { display: none !important }"
            ".body, .bodywrapper, .documentwrapper, .document { margin: 0 !important; padding: 0 !important }"
        )
    if random.random() < 0.7:
        margin = random.randint(4, 40)
        width = random.choice(("none", "none", f"{random.randint(320, 560)}px"))
        centred = random.choice(("auto", f"{margin}px"))
        rules.append(f"body {{ margin: 6px {centred} !important; padding: 0 {margin // 2}px !important; ")
        rules.append(f"max-width: {width} !important; min-width: 0 !important }}")
    if random.random() < 0.1:
        rules.append("p, li { text-align: justify !important }")
    if of.dark or random.random() < 0.65:
        underline = random.choice(("none", "underline"))
        rules += [
            "* { background: transparent !important; color: inherit !important; "
            f"border-color: {of.rule} !important }}",
            f"html {{ background: {of.paper} !important; color: {of.pen} !important }}",
            f"pre, td, th {{ background: {random.choice(('transparent', of.panel))} !important }}",
            f"a[href], a[href] * {{ color: {of.accent} !important; text-decoration: {underline} !important }}",
        ]
    return "\n".join(rules)


def _fonts(random: Random, split: Split) -> str:
    plain = _families(split)
    fixed = [family for family in plain if family in (*MONO, *HELDOUT_MONO)]
    writing = [family for family in plain if family in DISPLAY]
    printed = [family for family in plain if family not in fixed and family not in writing]
    families = random.choices((printed, fixed, writing or printed), (90, 6, 4))[0]
    return _font_face("Page", random.choice(families), split) + _font_face("Fixed", random.choice(fixed), split)


@cache
def _families(split: Split) -> tuple[str, ...]:
    return tuple(sorted({face.family for face in faces(split)[0]}))


@cache
def _font_face(name: str, family: str, split: Split) -> str:
    found: Sequence[Face] = [face for face in faces(split)[0] if face.family == family]
    rules = []
    for face in found:
        weight, style = face.cut.split("-")
        place = face.path.resolve().as_uri()
        rules.append(
            f"@font-face {{ font-family: {name}; font-weight: {weight}; font-style: {style}; src: url('{place}') }}\n"
        )
    return "".join(rules)


def _accent(random: Random, paper: Colour) -> Colour:
    while True:
        accent = _shade(random.random(), random.uniform(0.5, 1.0), random.uniform(0.45, 1.0))
        if abs(luminance(accent) - luminance(paper)) > 85:
            return accent


def _shade(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value))
    return round(255 * red), round(255 * green), round(255 * blue)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
