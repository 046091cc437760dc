"""The name of a Debian package -> the paragraphs of the manual, or of the definitions, in it.

Comes in: unpacked packages. Goes out: paragraphs in our characters, in the order of the book, repetitions included.
Knows nothing of which books a set takes (sets.py).
"""

from collections.abc import Iterator

from recipes.nano import text
from recipes.nano.packages import deb

PERL, WORDNET = "perl-doc", "wordnet-base"
# Package -> the pages of it that are prose in English.
PAGES: dict[str, str] = {
    "python3.11-doc": "usr/share/doc/python3.11/html/**/*.html",
    "debian-reference-en": "usr/share/debian-reference/*.en.html",
    "debian-policy": "usr/share/doc/debian-policy/policy.html/*.html",
    "developers-reference": "usr/share/developers-reference/*.html",
    "debian-faq": "usr/share/doc/debian/FAQ/*.html",
    "git-doc": "usr/share/doc/git/html/**/*.html",
    "jargon-text": "usr/share/doc/jargon-text/*.html",
    "bash-doc": "usr/share/doc/bash/bash.html",
    "postgresql-doc-15": "usr/share/doc/postgresql-doc-15/html/*.html",
}
# Never seen in training, neither its words as pictures nor as text.
HELDOUT_BOOKS: tuple[str, ...] = ("bash-doc", "postgresql-doc-15")
TRAINING_BOOKS: tuple[str, ...] = (*(name for name in PAGES if name not in HELDOUT_BOOKS), PERL, WORDNET)


def paragraphs(name: str, *, with_code: bool) -> Iterator[str]:
    """The paragraphs of one book; of HTML pages the lines of code too, page by page.

    Raises: ``RuntimeError`` where the package has no such pages any more.
    """
    if name == PERL:
        for page in sorted(deb(PERL).glob("usr/share/perl/*/pod/*.pod")):
            yield from text.paragraphs(text.pod(page.read_text(encoding="utf-8", errors="replace")))
        return
    if name == WORDNET:
        for part in ("noun", "verb", "adj", "adv"):
            (data,) = deb(WORDNET).glob(f"usr/share/wordnet/data.{part}")
            yield from text.paragraphs(text.glosses(data.read_text(encoding="utf-8")))
        return
    pages = sorted(page for page in deb(name).glob(PAGES[name]) if page.is_file())
    if not pages:
        raise RuntimeError(f"{name} has no page {PAGES[name]}: its layout changed")
    for page in pages:
        prose, code = text.html(page.read_text(encoding="utf-8", errors="replace"))
        yield from text.paragraphs(prose)
        if with_code:
            yield from text.paragraphs(code, longest=100)
