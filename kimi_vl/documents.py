"""Untrusted PDF → its pages as pictures, each as large as a model can see it.

In: bytes. Out: upright RGB pictures, one after the other. Knows nothing of messages; how many pages there may be is the
caller's to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import pypdfium2

_LARGEST_SCALE = 300 / 72  # a small page is drawn at 300 dots an inch at most
_MOST_PIXELS = 40_000_000  # of a page whose dots are counted: a poster of A0 has less at 144 an inch


def is_pdf(data: bytes) -> bool:
    """Told from the first bytes, before which a PDF may have others."""
    return re.match(rb".{0,1000}%PDF-", data, re.DOTALL) is not None


def pdf_pages(data: bytes, *, most: int, pixels: int) -> Iterator[Image.Image]:
    """Draws the pages of a PDF, of about ``pixels`` pixels each.

    Raises: ``ValueError`` if it cannot be read, is locked, has no page or more than ``most``.
    """
    with _opened(data) as document:
        if not 1 <= len(document) <= most:
            raise ValueError(
                f"PDF has {len(document)} pages, and from 1 to {most} may be shown: send the ones that matter"
            )
        for number in range(len(document)):
            yield _draw(document, number, _LARGEST_SCALE, pixels)


def first_pages(data: bytes, *, most: int, dots: int) -> Iterator[Image.Image]:
    """Draws the first pages of a PDF, ``most`` of them, at so many dots an inch.

    Raises: ``ValueError`` if it cannot be read, is locked or has no page.
    """
    with _opened(data) as document:
        if not len(document):
            raise ValueError("PDF has no page")
        for number in range(min(len(document), most)):
            yield _draw(document, number, dots / 72, _MOST_PIXELS)


@contextmanager
def _opened(data: bytes) -> Iterator[pypdfium2.PdfDocument]:
    try:
        import pypdfium2
    except ImportError:
        raise ValueError("PDF: pypdfium2 is missing, pip install 'kimi-vl[pdf]'") from None
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise ValueError(f"PDF {'needs a password' if locked else f'cannot be read: {error}'}") from None
    try:
        document.init_forms()
        yield document
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"PDF cannot be read: {error}") from None
    finally:
        document.close()


def _draw(document: pypdfium2.PdfDocument, number: int, largest_scale: float, pixels: int) -> Image.Image:
    page = document[number]
    try:
        width, height = page.get_size()
        if not (width > 0 and height > 0):
            raise ValueError(f"PDF: page {number + 1} has no size")
        scale = min(largest_scale, math.sqrt(pixels / (width * height)))
        return page.render(scale=scale).to_pil().convert("RGB")
    finally:
        page.close()
