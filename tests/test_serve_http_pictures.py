"""Strangers' pictures over HTTP: every kind is seen as it is, and what cannot be seen is refused with its reason.

That two files show the same is told by the cache: it knows a prompt again only if every pixel is the same.
"""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from kimi_vl import KimiVLProcessor
from kimi_vl.patches import plan_grid
from tests.engines import noise
from tests.pictures import exif
from tests.serving import LINE_FILE, LINE_TOKENS, Server, data_url, encoded, shown, user
from tests.test_documents import locked, pdf
from tests.test_serve_chat import LINE_SAYS, PATH
from tests.test_serve_fetch import server as web

SIZE = (320, 256)  # whole patches, so that none is scaled or padded
TOKENS = 20 * 16
LINE = LINE_FILE.read_bytes()
NANO_PICTURES = KimiVLProcessor.from_pretrained("nano").image_config


def cached(server: Server, part: dict[str, Any]) -> int:
    """Of the prompt that shows it, how many tokens were known before."""
    document = server.chat(part, "x", max_tokens=1).json()
    assert document["usage"]["prompt_tokens_details"]["image_tokens"] == TOKENS, document
    return int(document["usage"]["prompt_tokens_details"]["cached_tokens"])


def same(server: Server, first: bytes, *others: bytes | dict[str, Any]) -> None:
    """Sees that all show what the first shows, which is new to the server."""
    assert cached(server, shown(first)) < 64
    for other in others:
        assert cached(server, shown(other) if isinstance(other, bytes) else other) >= 64


def picture(seed: int) -> Image.Image:
    return noise(10_000 + seed, *SIZE)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_an_orientation_is_applied_once(server: Server, kind: str) -> None:
    """A1, A3."""
    turns: dict[int, Callable[[Image.Image], Image.Image]] = {
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }
    upright = picture(sum(kind.encode()))
    lossless = {"WEBP": {"lossless": True}}.get(kind, {})
    tagged = [encoded(turn(upright), kind, exif=exif(tag), **lossless) for tag, turn in turns.items()]
    same(server, encoded(upright), *tagged)


def test_transparency_lies_on_white(server: Server) -> None:
    """Whatever colours are under it (A2)."""
    hidden = picture(1)
    clear = Image.new("L", SIZE, 255)
    clear.paste(0, (0, 0, 150, 252))
    on_white = hidden.copy()
    on_white.paste((255, 255, 255), (0, 0, 150, 252))
    with_alpha = hidden.convert("RGBA")
    with_alpha.putalpha(clear)
    same(server, encoded(on_white), encoded(with_alpha), encoded(with_alpha, "WEBP", lossless=True, exact=True))


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP"])
def test_lossless_formats_show_the_same(server: Server, kind: str) -> None:
    image = picture(200 + sum(kind.encode()))
    same(server, encoded(image), encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))


def test_other_kinds_of_colour_become_rgb(server: Server) -> None:
    """Grey, 1 bit, palette, grey of 16 bits (A11); and of several frames the first is shown."""
    grey = picture(2).convert("L")
    sixteen = Image.frombytes("I;16", SIZE, b"".join((257 * value).to_bytes(2, "little") for value in grey.tobytes()))
    same(server, encoded(grey.convert("RGB")), encoded(grey), encoded(grey.convert("LA")), encoded(sixteen))
    bits = picture(3).convert("1")
    same(server, encoded(bits.convert("RGB")), encoded(bits), encoded(bits, "TIFF"))
    palette = picture(4).convert("P")
    frames = {"save_all": True, "append_images": [picture(5).convert("P")]}
    others = encoded(palette), encoded(palette, "GIF"), encoded(palette, "GIF", **frames)
    same(server, encoded(palette.convert("RGB")), *others)
    pages = {"save_all": True, "append_images": [picture(6)]}
    same(server, encoded(picture(7)), encoded(picture(7), "TIFF", **pages))


@pytest.mark.parametrize(
    "url",
    [
        lambda b: f"data:image/jpeg;charset=utf-8;base64,{b}",
        lambda b: f"DATA:IMAGE/PNG;BASE64,{b}",
        lambda b: f"data:image/png;base64,{b.replace('+', '-').replace('/', '_')}",
        lambda b: "data:image/png;base64," + "\n".join(b[i : i + 76] for i in range(0, len(b), 76)),
        lambda b: f"data:image/png;base64,{b.rstrip('=')}",
        lambda b: f"data:image;base64,{b}",
        lambda b: f"data:text/plain;base64,{b}",
        lambda b: b,
    ],
)
def test_data_urls_of_every_spelling(server: Server, url: Callable[[str], str]) -> None:
    """D1, D2: the content counts, not the type that is claimed."""
    part = {"type": "image_url", "image_url": {"url": url(base64.b64encode(LINE).decode())}}
    assert server.chat(part, "Read the text.").json()["choices"][0]["message"]["content"] == LINE_SAYS


def bomb() -> bytes:
    """A small PNG of 12,000 x 12,000 pixels."""
    return encoded(Image.new("1", (12_000, 12_000)))


def lying_png() -> bytes:
    """A header of 60,000 x 60,000 and no such pixels."""
    header = (60_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"x")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in parts
    )


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("x", "y" * 80_000_000, zip=True)
    return encoded(Image.new("L", (30, 30)), pnginfo=info)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am no picture", "no picture in a known format"),
        (encoded(noise(1, 90, 90), "JPEG")[:-128], "cannot be read"),
        (encoded(noise(1, 90, 90))[:700], "cannot be read"),
        (bomb(), "144000000 pixels are over the limit of 50000000"),
        (lying_png(), "pixels are over the limit of 50000000"),
        (b"%PDF-1.7", "is a PDF: send it as a part of type file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG"),
        (b"GIF89a" + bytes(20), "GIF"),
        (encoded(Image.new("L", (20_000, 3))), "a side must stay under 512 patches"),
        (bytes(21 * 2**20), "over the limit of 20971520"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_refused(server: Server, data: bytes, says: str) -> None:
    """Never answered without it, and never as the server's own failure (A3, A8, A9, A10)."""
    good = shown(LINE)
    response = server.chat(good, shown(data), "Read the text.")
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert says in error["message"]
    assert "picture 2 of 2" in error["message"]
    assert (error["code"], error["param"]) == ("invalid_image", "messages")
    assert base64.b64encode(data[:90]).decode()[:80] not in server.log.read_text() or not data


def test_a_text_chunk_that_unpacks_to_much_hurts_nobody(server: Server) -> None:
    assert server.chat(shown(text_bomb()), "x", max_tokens=1).status_code in (200, 400)


@pytest.mark.parametrize("bad", ["data:image/png;base64,####", "data:image/png;base64", "data:image/png;base64,AAAAA"])
def test_base64_that_is_none(server: Server, bad: str) -> None:
    response = server.chat({"type": "image_url", "image_url": {"url": bad}})
    assert response.status_code == 400
    assert "data URL" in response.json()["error"]["message"]


def test_pictures_of_every_small_size(server: Server) -> None:
    """1 x 1, and 3 high, which are taken for channels elsewhere (A4, A6); counts agree with the plan."""
    r = random.Random(0)
    sizes = [(1, 1), (22, 3), (11, 3), (3, 22), (1, 60), (60, 1), (3, 3)] + [
        (r.randint(1, 60), r.randint(1, 60)) for _ in range(25)
    ]
    for width, height in sizes:
        document = server.chat(shown(encoded(noise(7, width, height))), "x", max_tokens=1).json()
        counted = document["usage"]["prompt_tokens_details"]["image_tokens"]
        assert counted == plan_grid(width, height, NANO_PICTURES).tokens, (width, height)


def test_a_picture_over_the_cap_keeps_the_models_own_limit(server: Server) -> None:
    """Not a thumbnail, and not a square (A12, A14)."""
    image = Image.new("RGB", (3000, 1200), "white")
    counted = server.post("/v1/tokenize", {"messages": user(shown(encoded(image)))}).json()["image_tokens"]
    assert counted == plan_grid(3000, 1200, NANO_PICTURES).tokens
    assert 4000 < counted <= 4300


def test_sizes_that_are_wished_for_are_kept(server: Server) -> None:
    """B19."""

    def tokens(**wishes: Any) -> int:
        part = shown(encoded(Image.new("RGB", (800, 800))), **wishes)
        return int(server.post("/v1/tokenize", {"messages": user(part)}).json()["image_tokens"])

    assert tokens() == tokens(detail="high") == tokens(detail="auto") == 50 * 50
    assert tokens(detail="low") <= 32 * 32
    assert tokens(max_pixels=280 * 280) <= 18 * 18
    assert tokens(min_pixels=830 * 830) > 50 * 50
    refused = server.chat(shown(LINE, fps=2), "x")
    assert refused.status_code == 400
    assert "fps is not understood" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "path": "/etc/hostname"},
        {"type": "image", "image": "/etc/hostname"},
        {"type": "image_url", "image_url": {"url": "/etc/hostname"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}},
        {"type": "image_url", "image_url": {"url": str(LINE_FILE)}},
        {"type": "image", "path": str(LINE_FILE)},
        {"type": "image_url", "image_url": {"url": "ftp://example.com/a.png"}},
        {"type": "file", "file": {"file_data": "/etc/hostname"}},
        {"type": "input_file", "file_url": "file:///etc/hostname"},
    ],
)
def test_no_file_of_the_server_is_opened(server: Server, part: dict[str, Any]) -> None:
    response = server.chat(part, "Read the text.")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_image"


def test_a_picture_by_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_serve_fetch.BODY", LINE)
    with web() as (base, _):
        for path in ("/picture", "/to?/picture"):
            part = {"type": "image_url", "image_url": {"url": base + path}}
            assert server.chat(part, "Read the text.").json()["choices"][0]["message"]["content"] == LINE_SAYS
        for path, says in (("/nothing", "answered with status 404"), ("/endless", "has more bytes than the limit")):
            refused = server.chat({"type": "image_url", "image_url": {"url": base + path}})
            assert refused.status_code == 400
            assert says in refused.json()["error"]["message"]
            assert base in refused.json()["error"]["message"]


def test_private_addresses_are_refused_by_default(thinker: Server) -> None:
    """F1; the other server of these tests was started with leave."""
    with web() as (base, seen):
        port = base.rsplit(":", 1)[1]
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433"):
            part = {"type": "image_url", "image_url": {"url": f"http://{host}:{port}/picture"}}
            refused = thinker.chat(part)
            assert refused.status_code == 400
            assert "private address" in refused.json()["error"]["message"]
        assert seen == []


def test_too_many_pictures(server: Server) -> None:
    response = server.chat(*[shown(LINE)] * 33)
    assert response.status_code == 400
    assert "33 pictures, over the limit of 32" in response.json()["error"]["message"]
    big = shown(encoded(Image.new("RGB", (640, 640))))
    assert server.chat(*[big] * 3, "x", max_tokens=1).status_code == 200


def test_a_picture_in_a_tools_answer(server: Server) -> None:
    """Agents send screenshots so (D6)."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    result = [{"type": "text", "text": "The screen:"}, shown(LINE)]
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
        {"role": "user", "content": "Read the text."},
    ]
    response = server.post(PATH, {"messages": messages})
    assert response.status_code == 200
    assert response.json()["usage"]["prompt_tokens_details"]["image_tokens"] == LINE_TOKENS


def test_a_pdf_as_a_file(server: Server) -> None:
    """Its pages with their numbers, up to a cap (D16)."""

    def file(data: bytes) -> dict[str, Any]:
        return {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(data, "application/pdf")}}

    line = Image.open(LINE_FILE)
    counted = server.post("/v1/tokenize", {"messages": user(file(pdf(line, line, line)), "Read.")}).json()
    assert counted["image_tokens"] in range(3 * 40, 3 * 50)
    again = server.post(PATH, {"messages": user(file(pdf(line, line, line)), "Read."), "max_tokens": 1}).json()
    assert again["usage"]["prompt_tokens"] == counted["count"]
    for data, says in (
        (pdf(*[line] * 33), "PDF has 33 pages, and from 1 to 32 may be shown"),
        (locked(), "needs a password"),
        (pdf(line)[:200], "PDF cannot be read"),
    ):
        refused = server.chat(file(data))
        assert refused.status_code == 400
        assert says in refused.json()["error"]["message"]
    assert server.chat(file(LINE), "Read the text.").json()["choices"][0]["message"]["content"] == LINE_SAYS


def test_a_prompt_that_is_too_long_says_how_long_it_is(server: Server) -> None:
    """D13, B5."""
    big = shown(encoded(Image.new("RGB", (880, 880))))
    words = "word " * 140_000
    response = server.chat(big, words)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "3025 image tokens" in error["message"]
    assert "text tokens" in error["message"]
    assert "the context of 131072" in error["message"]


def test_each_of_two_prompts_at_once_has_its_own_picture(server: Server) -> None:
    """B13: pictures in the second alone, and different ones in both."""
    pictures: list[bytes | None] = [LINE, encoded(noise(55, *SIZE)), encoded(noise(56, *SIZE)), None]

    def say(number: int) -> str:
        data = pictures[number % 4]
        parts = [] if data is None else [shown(data)]
        return str(server.chat(*parts, "Read the text.", max_tokens=16).json()["choices"][0]["message"]["content"])

    alone = [say(number) for number in range(4)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(say, range(24)))
    assert alone[0] == LINE_SAYS
    assert together == alone * 6
