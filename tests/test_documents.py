"""PDF files: their pages as pictures, in order and numbered, and refusals that say why."""

from __future__ import annotations

import base64
import io
from itertools import groupby
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from kimi_vl import KimiVL, KimiVLProcessor, Reply
from kimi_vl.chat import FilePart, Message, PicturePart, TextPart, parse_messages, with_pages
from kimi_vl.documents import first_pages, is_pdf, pdf_pages
from tests.engines import LINE, LINE_SAYS

COLOURS = ("red", "lime", "blue")


def pdf(*pages: Image.Image, dots: int = 300) -> bytes:
    stream = io.BytesIO()
    pages[0].save(stream, "PDF", save_all=True, append_images=pages[1:], resolution=dots, quality=100)
    return stream.getvalue()


def plain(colour: str, width: int = 100, height: int = 60) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def as_url(data: bytes) -> str:
    return "data:application/pdf;base64," + base64.b64encode(data).decode()


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def locked() -> bytes:
    """A PDF that says it is encrypted."""
    body = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    body += b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n4 0 obj<</Filter/Standard/V 2/R 3/Length 128"
    body += b"/P -4/O<" + b"00" * 32 + b">/U<" + b"11" * 32 + b">>>endobj\n"
    return body + b"trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>\n%%EOF"


def test_pages_come_in_their_order_with_their_colours() -> None:
    pages = list(pdf_pages(pdf(*map(plain, COLOURS)), most=3, pixels=10**6))
    assert [page.size for page in pages] == [(100, 60)] * 3
    for page, colour in zip(pages, COLOURS, strict=True):
        assert page.mode == "RGB"
        difference = ImageChops.difference(page, plain(colour))
        assert max(high for _, high in ImageStat.Stat(difference).extrema) <= 3


@pytest.mark.parametrize("size", [(2000, 3000), (9000, 200), (40, 40)])
def test_a_page_is_as_large_as_the_model_sees_and_no_small_one_is_blown_up(size: tuple[int, int]) -> None:
    (page,) = pdf_pages(pdf(plain("red", *size), dots=72), most=1, pixels=800_000)
    width, height = page.size
    assert abs(width / height - size[0] / size[1]) < 0.03 * size[0] / size[1]
    largest = size[0] * size[1] * (300 / 72) ** 2
    assert width * height == pytest.approx(min(800_000, largest), rel=0.01)


def test_first_pages_are_as_large_as_their_dots_say() -> None:
    data = pdf(*map(plain, COLOURS), dots=72)
    pages = list(first_pages(data, most=2, dots=144))
    assert [page.size for page in pages] == [(200, 120)] * 2
    assert [page.getpixel((5, 5)) for page in first_pages(data, most=9, dots=36)] == [
        pytest.approx(plain(colour).getpixel((0, 0)), abs=3) for colour in COLOURS
    ]
    with pytest.raises(ValueError, match="PDF needs a password"):
        next(first_pages(locked(), most=1, dots=72))


def test_transparent_pages_are_white() -> None:
    data = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    data += b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    (page,) = pdf_pages(data, most=1, pixels=10_000)
    assert page.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pdf(*map(plain, COLOURS)), "PDF has 3 pages, and from 1 to 2 may be shown"),
        (b"%PDF-1.7\nnothing", "PDF cannot be read"),
        (pdf(plain("red"))[:300], "PDF cannot be read"),
        (locked(), "PDF needs a password"),
    ],
)
def test_what_cannot_be_shown_says_why(data: bytes, says: str) -> None:
    assert is_pdf(data)
    with pytest.raises(ValueError, match=says):
        list(pdf_pages(data, most=2, pixels=10_000))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "data:,x", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:,x", "file_id": None}},
        {"type": "input_file", "file_data": "data:,x", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "data:,x"},
    ],
)
def test_files_of_either_interface(part: dict[str, Any]) -> None:
    assert parse_messages(user("Hi", part)) == [Message("user", (TextPart("Hi"), FilePart("data:,x")))]


def test_pages_are_numbered_where_the_file_stood() -> None:
    messages = [Message("user", (TextPart("before"), FilePart("a"), FilePart("b"), TextPart("behind")))]
    (message,) = with_pages(messages, [2, None])
    kinds = [kind.__name__ for kind, _ in groupby(map(type, message.parts))]
    assert kinds == ["TextPart", "PicturePart", "TextPart", "PicturePart", "TextPart", "PicturePart", "TextPart"]
    text = "".join(part.text if isinstance(part, TextPart) else f"[{part.source!r}]" for part in message.parts)
    assert text == "beforePage 1 of 2:\n['a']\nPage 2 of 2:\n['a']\n['b']behind"
    assert sum(isinstance(part, PicturePart) for part in message.parts) == 3


def test_nano_reads_a_page() -> None:
    processor = KimiVLProcessor.from_pretrained("nano")
    model = KimiVL.from_pretrained("nano")
    one = processor(user({"type": "file", "file": {"file_data": as_url(pdf(LINE))}}))
    two = processor(user({"type": "file", "file": {"file_data": as_url(pdf(LINE, LINE))}}))
    assert (len(one.image_grid_hws), len(two.image_grid_hws)) == (1, 2)
    assert "Page 2 of 2:" in processor.tokenizer.decode(two.input_ids.tolist())
    again = processor(
        user({"type": "image", "image": next(pdf_pages(pdf(LINE), most=1, pixels=10**6))}, "Read the text.")
    )
    assert Reply(model, processor, again).answer.text == LINE_SAYS
    with pytest.raises(ValueError, match="picture 1 of 1: PDF cannot be read"):
        processor(user({"type": "file", "file": {"file_data": as_url(b"%PDF-1.7")}}))


def test_a_picture_may_come_as_a_file() -> None:
    processor = KimiVLProcessor.from_pretrained("nano")
    stream = io.BytesIO()
    LINE.save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    as_file = processor(user({"type": "file", "file": {"file_data": url}}, "Read."))
    as_picture = processor(user({"type": "image_url", "image_url": url}, "Read."))
    assert as_file.input_ids.tolist() == as_picture.input_ids.tolist()
    assert as_file.pixel_values is not None
    assert as_picture.pixel_values is not None
    assert as_file.pixel_values.equal(as_picture.pixel_values)
