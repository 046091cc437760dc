"""Where a picture may come from: every spelling of a data URL, base64, files; what is none is refused with a reason."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kimi_vl.media import inline_picture, load_picture
from tests.pictures import (
    B64,
    HEIC_TURNED,
    LOSSLESS,
    LOSSY,
    NOISE,
    PNG,
    RED,
    encoded,
    near,
    png,
    row,
)


def test_the_sample_has_every_awkward_character() -> None:
    assert "+" in B64
    assert "/" in B64
    assert B64.endswith("=")


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{B64}",
        f"data:image/png;charset=utf-8;base64,{B64}",
        f"DATA:IMAGE/PNG;BASE64,{B64}",
        f"data:image;base64,{B64}",
        f"data:;base64,{B64}",
        f"data:image/jpeg;base64,{B64}",
        f"data:text/plain; base64,{B64}",
        f"  data:image/png;base64,{B64}\n",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode()}",
        f"data:image/png;base64,{base64.encodebytes(PNG).decode()}",
        f"data:image/png;base64,{base64.encodebytes(PNG).decode()}".replace("\n", "\r\n "),
        f"data:image/png;base64,{B64.rstrip('=')}",
        f"data:image/png;base64,{urllib.parse.quote(B64, safe='')}",
        f"data:image/png,{urllib.parse.quote(PNG)}",
        B64,
        B64.rstrip("="),
        base64.urlsafe_b64encode(PNG).decode(),
        base64.encodebytes(PNG).decode(),
    ],
)
def test_every_spelling_of_a_data_url(url: str) -> None:
    assert near(load_picture(url), NOISE, 0)
    assert inline_picture(url) == PNG


def test_a_text_from_a_stranger_opens_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for text in (str(path), path.as_uri(), "", "hello", "https://example.com/a.png"):
        with pytest.raises(ValueError, match="is no data URL, and no picture in base64"):
            inline_picture(text)


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY, "BMP", "GIF"])
def test_bare_base64_of_every_format(kind: str) -> None:
    data = encoded(Image.fromarray(NOISE), kind)
    expected = np.asarray(load_picture(data))
    assert near(load_picture(base64.b64encode(data).decode()), expected, 0)


def test_a_file_is_read_before_its_name_is_taken_for_base64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = base64.urlsafe_b64encode(PNG)[:80].decode()
    Path(name).write_bytes(encoded(Image.new("RGB", (1, 1), RED), "BMP"))
    assert row(load_picture(name)) == [RED]


@pytest.mark.parametrize("name", ["photo.txt", "photo.jpg", "photo", "фото 写真.png"])
def test_the_name_says_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PNG)
    assert near(load_picture(path), NOISE, 0)
    assert near(load_picture(str(path)), NOISE, 0)


SVG = b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "is empty"),
        ("", "empty"),
        ("data:image/png;base64,", "data URL: is empty"),
        ("data:image/png;base64", "no comma"),
        (f"data:image/png,{B64}", "no picture in a known format"),
        (f"data:image/png;base64,{B64[:400]}!{B64[400:]}", "not base64"),
        (f"data:image/png;base64,{B64[:400]}={B64[400:]}", "not base64"),
        (f"data:image/png;base64,{B64[:401]}", "401 base64 characters"),
        (f"data:image/png;base64,{B64[:400]}", "PNG cannot be read"),
        ("data:image/png;base64,\udcff", "surrogates not allowed"),
        (B64[:400] + "ää" + B64[400:], "not base64"),
        ("QUJD" * 200, "QUJDQUJDQUJDQUJDQUJD…: "),
        ("https://example.org/a.png", "https URLs are not fetched here; download"),
        ("HTTP://example.org/a.png", "not fetched here"),
        ("file:///tmp/a.png", "file URLs are not fetched here; download the picture and pass its path"),
        ("missing.png", r"missing\.png: no such file"),
        ("no\0thing.png", "no possible file name"),
        (Path("missing.png"), r"missing\.png: no such file"),
        (Path(), "is a folder"),
        (b"no picture at all", "no picture in a known format"),
        (bytes(1000), "no picture in a known format"),
        (SVG, "is an SVG: render it to PNG first"),
        (b"\xef\xbb\xbf  <svg/>", "is an SVG"),
        ("data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG"),
        (b"%PDF-1.7\n", "is a PDF: send it as a part of type file, or render"),
        (b"<!DOCTYPE html><html><svg></svg>", "is an HTML page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is PostScript"),
        (b"8BPS\0\1", "is a Photoshop file"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "is a video or another file of the MP4 family"),
        (encoded(Image.new("RGB", (4, 4)), "JPEG2000"), "is JPEG 2000"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "is a Netpbm picture"),
        (png(0, 5, 8, 0, b""), "PNG"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(
    source: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=reason) as caught:
        load_picture(source)
    assert len(str(caught.value)) < 300
    assert B64[40:80] not in str(caught.value)


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="not int"):
        load_picture(7)  # type: ignore[arg-type]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        load_picture(tmp_path / "pipe")


def test_a_closed_picture_is_refused() -> None:
    picture = Image.open(io.BytesIO(PNG))
    picture.close()
    with pytest.raises(ValueError, match="cannot be read"):
        load_picture(picture)


@pytest.mark.parametrize("background", [(255, 255), (0, 0, 256), (0, 0, -1), (0.5, 0, 0)])
def test_an_impossible_background_is_refused(background: Any) -> None:
    with pytest.raises(ValueError, match="background"):
        load_picture(PNG, background=background)


@pytest.mark.parametrize("place", range(4))
def test_heic_with_a_garbled_item_does_not_end_the_process(place: int) -> None:
    pytest.importorskip("pi_heif")
    data = bytearray(HEIC_TURNED)
    data[data.index(b"Exif") + place] = 0xFF
    with pytest.raises(ValueError, match="HEIC cannot be read"):
        load_picture(bytes(data))


def test_heic_without_its_decoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ValueError, match=r"HEIC cannot be read: .*pip install 'kimi-vl\[heic\]'"):
        load_picture(HEIC_TURNED)


def test_importing_this_file_loads_no_optional_decoder() -> None:
    code = "import sys, kimi_vl.media; sys.exit('pi_heif' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
