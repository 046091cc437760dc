"""Manuals and glosses -> paragraphs of plain text in a small set of characters.

Comes in: HTML, POD and WordNet files. Goes out: one paragraph a line, only `CHARACTERS`.
Knows nothing of packages' places (fetch.py) or of how a line is drawn (lines.py).
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser

from recipes.nano.packages import DATA

ASCII = "".join(map(chr, range(32, 127)))
CHARACTERS = ASCII + "“”‘’–—…•·°×±£€§©ÀÄÅÇÉÖÜßàáâäåæçèéêëíîïñóôöøúûü"
"""Every character that a line may hold; a font that lacks one of them is not used."""

_KEPT = frozenset(CHARACTERS)
_SPELLED = str.maketrans(
    {"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2010": "-", "\u2011": "-", "\u2012": "–", "\u2212": "-"}
    | {"−": "-", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "´": "'", "\u00ad": "", "\u200b": ""}
    | {"„": "“", "«": "“", "»": "”", "″": '"', "′": "'", "¶": "", "ﬁ": "fi", "ﬂ": "fl"}
)

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6", "header", "title", "caption", "figcaption")
_LISTS = ("ul", "ol", "dl", "li", "dt", "dd", "table", "tr", "td", "th")
_BLOCKS = frozenset((*_HEADINGS, *_LISTS, "p", "div", "pre", "blockquote", "section", "footer", "nav", "br", "hr"))
_HIDDEN = frozenset(["script", "style", "head", "nav", "footer", "svg"])
_ANCHOR_SIGN = re.compile(r"\s*¶\s*$")


def normalise(text: str) -> str:
    """One paragraph in our characters with single spaces; "" when it holds anything that we cannot draw."""
    text = " ".join(unicodedata.normalize("NFC", text).translate(_SPELLED).split())
    return text if _KEPT.issuperset(text) else ""


class _Blocks(HTMLParser):
    """Collects the text of each block element; lines of <pre> come out one by one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.prose: list[str] = []
        self.code: list[str] = []
        self._parts: list[str] = []
        self._hidden = 0
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.flush()
        self._hidden += tag in _HIDDEN
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.flush()
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)

    def flush(self) -> None:
        text = "".join(self._parts)
        self._parts.clear()
        if self._pre:
            self.code.extend(text.splitlines())
        else:
            self.prose.append(text)


def html(page: str) -> tuple[list[str], list[str]]:
    """The prose paragraphs and the code lines of a page, not yet normalised."""
    parser = _Blocks()
    parser.feed(page)
    parser.flush()
    return parser.prose, parser.code


def pod(source: str) -> list[str]:
    """The prose paragraphs of a Perl manual page; indented (code) paragraphs and commands are left out.

    Of doubled brackets, C<< like this >>, one ">" stays: harmless, and the tokenizer was counted on it.
    """
    found = []
    for block in re.split(r"\n\s*\n", source):
        if not block.strip() or block.startswith((" ", "\t", "=for", "=begin", "=end", "=encoding", "=cut")):
            continue
        text = re.sub(r"^=\w+\s*\*?", "", block.strip())
        # X<> is an index entry (not shown); L<text|target> shows its text; the others only set the type.
        text = re.sub(r"X<[^<>]*>", "", text)
        text = re.sub(r"L<([^<>|]*)\|[^<>]*>", r"\1", text)
        for _ in range(3):
            text = re.sub(r"[BCFISLN]<(?:<+\s)?([^<>]*)(?:\s>+)?>", r"\1", text)
        text = text.replace("E<gt>", ">").replace("E<lt>", "<")
        if not re.search(r"[A-Z]<|=\w+\b.*\n", text):
            found.append(text)
    return found


def glosses(source: str) -> list[str]:
    """The definitions of a WordNet data file."""
    return [line.split(" | ", 1)[1] for line in source.splitlines() if " | " in line and line[0] != " "]


def paragraphs(texts: list[str], *, shortest: int = 20, longest: int = 1200) -> Iterator[str]:
    """Normalised paragraphs of a useful length with at least one word in them."""
    for text in texts:
        clean = normalise(_ANCHOR_SIGN.sub("", text))
        if shortest <= len(clean) <= longest and re.search(r"[A-Za-z]{3}", clean):
            yield clean


@cache
def book(split: str) -> tuple[str, ...]:
    """The paragraphs of "train" or "heldout" that the fetch wrote."""
    path = DATA / "text" / f"{split}.txt"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: run python -m recipes.nano.fetch")
    return tuple(path.read_text(encoding="utf-8").splitlines())
