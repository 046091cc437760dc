"""Pictures of every kind, route and fault: right pixels or one clear ``ValueError``.

Expected values come from the definitions (EXIF's row and column sides, compositing by hand, PNG chunks
written by hand), not from the code under test.
"""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import urllib.parse
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kimi_vl.media import DEFAULT_LIMITS, PictureLimits, load_picture

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)

# how UPRIGHT looks stored with each orientation: the sides that row 0 and column 0 are on (EXIF 2.3, 4.6.4)
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def quarters() -> Pixels:
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, BLUE, YELLOW
    return pixels


UPRIGHT = quarters()


def stored(orientation: int) -> Image.Image:
    sides = SIDES[orientation]
    pixels = UPRIGHT[::-1] if "bottom" in sides else UPRIGHT
    pixels = pixels[:, ::-1] if "right" in sides else pixels
    if sides[0] in ("left", "right"):
        pixels = pixels.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def near(image: Image.Image, expected: Pixels, tolerance: int) -> bool:
    """Upright 8-bit RGB of the same size and values, and nothing besides pixels."""
    assert image.mode == "RGB"
    assert image.info == {}
    assert image.getexif().get(274) is None
    actual = np.asarray(image).astype(int)
    return actual.shape == expected.shape and bool(np.abs(actual - expected).max() <= tolerance)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    chunks = b"".join(chunk(name, data) for name, data in extra)
    pixels = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + pixels + chunk(b"IEND", b"")


def row(image: Image.Image) -> list[tuple[int, ...]]:
    """The pixels of a picture of one row."""
    assert (image.mode, image.height) == ("RGB", 1)
    return [tuple(pixel) for pixel in np.asarray(image)[0].tolist()]


# UPRIGHT by an x265 encoder: turned by 7 in the container and in EXIF; and with its right half transparent
HEIC_TURNED = base64.b64decode(
    """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAdJtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG
9jAAAAAERAAAIAAQAAAAAB9gABAAAAAAAAAMsAAgAAAAACwQABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMx
AAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABEWlwcnAAAADvaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+A
AADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAh
YgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAACAAAAABAAAAMAAAAAH////gAA
AAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAAAlpbWlyAAAAABppcG1hAAAAAAAAAAEAAQeBAgMFhIaHAAAAGmlyZWYA
AAAAAAAADmNkc2MAAgABAAEAAAD3bWRhdAAAAMcoAa8GOFr3r1/lWN///2Q8+h9HRFPL/HKzkflab//3OId1IPDH8jkkjffQS/+gEg3F0d
I+6N4J0W5dfaDSDn5Tcz+IRrv2p0Wb7nS/VeTPpntf+VVqZ3L7dHQfbWS/yUvdemavojacbVvkZ7ZPsAkBoQ2WceQEAl2ftoKeg8jWoXWM
/JuQTErpRkCC9xXIA+ubVy1aJLbszzpdyUj1tJdBDnuzo8gBHz+nq9alRKhlKrIzCsdi4tGX4v95/sIXtpkkV5d/m8uAAAAABkV4aWYAAE
1NACoAAAAIAAEBEgADAAAAAQAHAAAAAAAA
"""
)
HEIC_ALPHA = base64.b64decode(
    """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG
9jAAAAAERAAAIAAQAAAAACjwABAAAAAAAAAWgAAgAAAAAD9wABAAAAAAAAATMAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMx
AAAAABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+A
AADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAh
YgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAIAAAAAH////wAA
AAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAAHBodmNDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADwNgAAEAF0ABDAH//wQIAAADAJ/4AAAD
AAAeugJAYQABACVCAQEECAAAAwCf+AAAAwAAHsCCBBZbq5Ka5sCAAAAMgAAAAwCEYgABAAZEAcFzwIkAAAAOcGl4aQAAAAABCAAAACdhdX
hDAAAAAHVybjptcGVnOmhldmM6MjAxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAA
DmF1eGwAAgABAAEAAAKjbWRhdAAAAWQoAa8GOFr3tt/M4H//+Vpvof3rcAh8Eib+lqP/9+gf/+RCoo6DBnp3DS7HVjpEKagkLLToAgLPf0
gsRJBgcTX4smMnA56A3yusdiX58OB/cyikP5RcP/+9DOaSLzxpbfDIZx/2MvdnwDvv9lSv0freK1OdDW2Ic4mjihv4Uz//vczuufFs///B
qPj3RM/C9DmybAdK2pHa/WML+n/ofh5OM4ta2QwoyoH3+alRlUJmOn32ErQy0y2l9of783mHK5kj3qBIVLt5C1BsgYvxBJJJhajHb4IsPz
Ea+wCUZ5YPLfyZ/uW52rOVP02LJknTKZhyZSGGlQM61gCojEG7/8aeNtxBJSuYa9zi2C0FUTZ4EDzXcIldzBDOZRRifvUNh8tXulTFvZTG
Iysgw+2l3qZ2NW5kvuf+S5yWynAG/xw+MPF+8sAgASh/Fw7rEV3MEM5lFGJ+9Q2Hy1eE3LPWi21NT3jguAAAAS8oAa4McHTplv+DgJwX9X
+S3MRPo4rW8+nDD7vL9//dn+87V/4yVw0zTqf/ZhR0me0MN6hqt3f7+NDMI6YeuUYajNHVqtc8aCW32hn/Vtj5FNN+KAmlfukdlf7z+19s
72Om8JkxVFvUTK4x39vPpoUR5n9+d6vxGTem2J9lXOpfvy5esS059C2n+sgeCtbz6cMPu8v3/92eenz/vJWvFiWBNIw3BkK9O4DzNTef/P
dgMuql0HHUZWbX4B4fbKq17wruIVIxM5liVZfkdyFX/0Z5HTrmMF91lWEZ+GI33Mqzv+y4HyF4S1pK6t98jzVevFedQB5bfviDNTkLOqNb
M4s1w6VyiGKWXJ2tzDvaxtcN00uKemi1xXUU1BX5Ixrgp1xRy/1/637P0PF8X/pEUWc=
"""
)

LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}

ROUTES: dict[str, Callable[[bytes, Path], Image.Image]] = {
    "bytes": lambda data, _: load_picture(data),
    "path": lambda data, path: load_picture(path),
    "text path": lambda data, path: load_picture(str(path)),
    "data URL": lambda data, _: load_picture(f"data:image/png;base64,{base64.b64encode(data).decode()}"),
    "base64": lambda data, _: load_picture(base64.b64encode(data).decode()),
    "lazy PIL": lambda data, _: load_picture(Image.open(io.BytesIO(data))),
}


# -- orientation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_every_format_and_route_is_turned_once(kind: str, orientation: int, route: str, tmp_path: Path) -> None:
    data = encoded(stored(orientation), kind, exif=exif(orientation), **(LOSSLESS | LOSSY)[kind])
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert near(ROUTES[route](data, path), UPRIGHT, 0 if kind in LOSSLESS else 40)


@pytest.mark.parametrize("orientation", SIDES)
def test_a_pil_picture_that_still_has_its_tag_is_turned_and_kept(orientation: int) -> None:
    picture = stored(orientation)
    picture.getexif()[274] = orientation
    before = (picture.mode, picture.size, picture.tobytes())
    assert near(load_picture(picture), UPRIGHT, 0)
    assert (picture.mode, picture.size, picture.tobytes()) == before
    assert picture.getexif()[274] == orientation
    # twice over, since what comes out is upright
    assert near(load_picture(load_picture(picture)), UPRIGHT, 0)


def test_turned_heic() -> None:
    pytest.importorskip("pi_heif")
    assert near(load_picture(HEIC_TURNED), UPRIGHT, 40)


def test_heic_alpha_lies_on_the_background() -> None:
    pytest.importorskip("pi_heif")
    expected = UPRIGHT.copy()
    expected[:, 24:] = (10, 200, 30)
    assert near(load_picture(HEIC_ALPHA, background=(10, 200, 30)), expected, 40)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_orientation_in_xmp_alone_counts_once(kind: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp, **LOSSY["JPEG"]}
    assert near(load_picture(encoded(stored(6), kind, **options)), UPRIGHT, 40)


@pytest.mark.parametrize(
    "block",
    [
        exif(0).tobytes(),
        exif(9).tobytes(),
        b"Exif\x00\x00",
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x026\x00\x00\x00",
    ],
    ids=["0", "9", "empty", "garbage", "offset", "text"],
)
def test_an_impossible_orientation_is_no_orientation(block: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert near(load_picture(encoded(stored(1), "PNG", exif=block)), UPRIGHT, 0)
        assert near(load_picture(encoded(stored(1), "JPEG", exif=block, **LOSSY["JPEG"])), UPRIGHT, 40)


def test_png_orientation_behind_the_pixels_counts() -> None:
    data = encoded(stored(6), "PNG")
    block = exif(6).tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    assert near(load_picture(data[:-12] + chunk + data[-12:]), UPRIGHT, 0)


# -- transparency ------------------------------------------------------------------------------------


def on(colour: tuple[int, ...], alpha: int, background: tuple[int, ...]) -> Pixels:
    pairs = zip(colour, background, strict=True)
    return np.array([[[round((a * alpha + b * (255 - alpha)) / 255) for a, b in pairs]]], dtype=np.uint8)


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (1, 128, 254)])
@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_composited(mode: str, alpha: int, background: tuple[int, int, int]) -> None:
    colour = (200, 200, 200) if mode in ("LA", "La") else (200, 13, 97)
    picture = Image.new("RGBA", (1, 1), (*colour, alpha))
    if mode == "PA":
        picture = Image.new("PA", (1, 1), (1, alpha))
        picture.putpalette([0, 0, 0, *colour])
    elif mode in ("LA", "La"):
        picture = Image.new("LA", (1, 1), (200, alpha)).convert(mode)
    elif mode == "RGBa":
        picture = picture.convert(mode)
    assert near(load_picture(picture, background=background), on(colour, alpha, background), 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_garbage_under_alpha_0_is_invisible(kind: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    data = encoded(Image.fromarray(pixels), kind, **({"exact": True} if kind == "WEBP" else {}))
    assert near(load_picture(data), np.full((32, 32, 3), 255, np.uint8), 0)


PALETTE = (b"PLTE", bytes([*RED, *GREEN, *BLUE]))


def test_palette_transparency() -> None:
    one = png(3, 1, 8, 3, b"\0\0\1\2", PALETTE, (b"tRNS", b"\xff\x00"))
    table = png(3, 1, 8, 3, b"\0\0\1\2", PALETTE, (b"tRNS", b"\xff\x80\x00"))
    assert row(load_picture(one)) == [RED, WHITE, BLUE]
    assert row(load_picture(table)) == [RED, (127, 255, 127), WHITE]
    assert row(load_picture(Image.open(io.BytesIO(table)))) == [RED, (127, 255, 127), WHITE]


def test_a_transparent_colour_counts_in_the_depth_of_the_file() -> None:
    key = b"tRNS"
    grey1 = png(2, 1, 1, 0, b"\0\x40", (key, b"\0\0"))
    assert row(load_picture(grey1, background=RED)) == [RED, WHITE]
    grey2 = png(4, 1, 2, 0, b"\0\x1b", (key, b"\0\2"))
    assert row(load_picture(grey2, background=RED)) == [(0, 0, 0), (85, 85, 85), RED, WHITE]
    grey4 = png(2, 1, 4, 0, b"\0\x3c", (key, b"\0\x0c"))
    assert row(load_picture(grey4, background=RED)) == [(51, 51, 51), RED]
    grey8 = png(2, 1, 8, 0, b"\0\x3c\x3d", (key, b"\0\x3c"))
    assert row(load_picture(grey8, background=RED)) == [RED, (61, 61, 61)]
    grey16 = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 25700, 25701), (key, struct.pack(">H", 25700)))
    assert row(load_picture(grey16, background=RED)) == [RED, (100, 100, 100)]
    rgb8 = png(2, 1, 8, 2, bytes([0, 1, 2, 3, 1, 2, 4]), (key, struct.pack(">3H", 1, 2, 3)))
    assert row(load_picture(rgb8, background=RED)) == [RED, (1, 2, 4)]
    wide = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    rgb16 = png(2, 1, 16, 2, b"\0" + wide + struct.pack(">3H", 0x3412, 0x7856, 0xBC9A), (key, wide))
    assert row(load_picture(rgb16, background=RED)) == [RED, (0x34, 0x78, 0xBC)]


# -- modes -------------------------------------------------------------------------------------------

GREY16 = [0, 300, 25700, 25828, 25829, 65535]
GREY16_AS_8 = [0, 1, 100, 100, 101, 255]  # a 257th, rounded


def greys(image: Image.Image) -> list[int]:
    pixels = row(image)
    assert all(len(set(pixel)) == 1 for pixel in pixels)
    return [pixel[0] for pixel in pixels]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    data = png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *GREY16))
    assert greys(load_picture(data)) == GREY16_AS_8


@pytest.mark.parametrize(("mode", "order"), [("I;16", "<"), ("I;16L", "<"), ("I;16B", ">"), ("I;16N", "=")])
def test_16_bit_grey_of_either_byte_order(mode: str, order: str) -> None:
    picture = Image.frombytes(mode, (6, 1), struct.pack(f"{order}6H", *GREY16))
    assert greys(load_picture(picture)) == GREY16_AS_8
    if mode in ("I;16", "I;16B"):
        assert greys(load_picture(encoded(picture, "TIFF"))) == GREY16_AS_8


def test_32_bit_grey_is_read_as_16_bit() -> None:
    picture = Image.fromarray(np.array([GREY16], dtype=np.int32))
    assert picture.mode == "I"
    assert greys(load_picture(picture)) == GREY16_AS_8
    assert greys(load_picture(encoded(picture, "TIFF"))) == GREY16_AS_8


def test_float_grey_is_to_1_or_to_255() -> None:
    unit = Image.fromarray(np.array([[0, 0.2, 1]], dtype=np.float32))
    bytewise = Image.fromarray(np.array([[0, 51, 254.6]], dtype=np.float32))
    assert greys(load_picture(unit)) == [0, 51, 255]
    assert greys(load_picture(encoded(bytewise, "TIFF"))) == [0, 51, 255]


@pytest.mark.parametrize("values", [[-1], [65536]])
def test_integers_outside_their_range_are_refused(values: list[int]) -> None:
    with pytest.raises(ValueError, match=r"outside 0 to 65535; scale them first"):
        load_picture(Image.fromarray(np.array([values], dtype=np.int32)))


@pytest.mark.parametrize("value", [-0.1, 255.5, float("nan"), float("inf")])
def test_floats_outside_their_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="scale them first"):
        load_picture(Image.fromarray(np.array([[0, value]], dtype=np.float32)))


def test_one_bit_grey_and_palette() -> None:
    assert greys(load_picture(png(3, 1, 1, 0, b"\0\xa0"))) == [255, 0, 255]
    assert greys(load_picture(png(2, 1, 4, 0, b"\0\x1f"))) == [17, 255]
    assert greys(load_picture(png(2, 1, 8, 4, b"\0\x11\xff\x22\x00"))) == [17, 255]
    assert row(load_picture(png(3, 1, 2, 3, b"\0\x18", PALETTE))) == [RED, GREEN, BLUE]


def test_16_bit_colour() -> None:
    data = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x1234, 0xFF00, 0, 0x8000, 0x80FF, 0xFFFF))
    assert row(load_picture(data)) == [(0x12, 0xFF, 0), (0x80, 0x80, 0xFF)]


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("CMYK", (0, 255, 255, 0)), ("HSV", (0, 255, 255)), ("YCbCr", (76, 85, 255)), ("RGBX", (255, 0, 0, 7))],
)
def test_other_colour_models(mode: str, colour: tuple[int, ...]) -> None:
    expected = np.full((16, 16, 3), RED, np.uint8)
    picture = Image.new(mode, (16, 16), colour)
    assert near(load_picture(picture), expected, 2)
    if mode in ("CMYK", "YCbCr"):
        assert near(load_picture(encoded(picture, "JPEG", quality=95)), expected, 3)
        assert near(load_picture(encoded(picture, "TIFF")), expected, 3)


def test_lab() -> None:
    # L 53.2, a 80, b 67 is the red of sRGB
    picture = Image.new("LAB", (4, 4), (136, 128 + 80, 128 + 67))
    expected = np.full((4, 4, 3), RED, np.uint8)
    assert near(load_picture(picture), expected, 15)
    assert near(load_picture(encoded(picture, "TIFF")), expected, 15)


def test_ycck_jpeg_is_not_inverted() -> None:
    # Adobe stores inks inverted: red ink (0, 255, 255, 0) is the four planes (255, 0, 0, 255), and YCC holds
    # 255 minus the first three: cyan, which is (179, 171, 1). Pillow inverts the planes as it writes them.
    planes = Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255 - 1, 255 - 255))
    data = bytearray(encoded(planes, "JPEG", quality=100, subsampling=0))
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    data[adobe + 11] = 2
    assert near(load_picture(bytes(data)), np.full((16, 16, 3), RED, np.uint8), 4)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_counts(kind: str) -> None:
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)
    data = encoded(first, kind, save_all=True, append_images=[second])
    opened = Image.open(io.BytesIO(data))
    assert getattr(opened, "n_frames", 1) == 2
    expected = np.full((16, 16, 3), RED, np.uint8)
    assert near(load_picture(data), expected, 8)
    opened.seek(1)
    assert near(load_picture(opened), np.full((16, 16, 3), BLUE, np.uint8), 8)
    assert opened.tell() == 1


def test_a_transparent_gif_smaller_than_its_screen() -> None:
    picture = Image.new("P", (4, 1), 0)
    picture.putpalette([*RED, *GREEN])
    picture.putpixel((1, 0), 1)
    data = bytearray(encoded(picture, "GIF", transparency=1))
    data[6:8] = struct.pack("<H", 6)
    assert row(load_picture(bytes(data))) == [RED, WHITE, RED, RED, WHITE, WHITE]


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_icon(bitmap_format: str) -> None:
    picture = Image.new("RGBA", (32, 32), (*BLUE, 255))
    picture.paste((9, 9, 9, 0), (0, 0, 32, 16))
    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[16:] = BLUE
    data = encoded(picture, "ICO", sizes=[(16, 16), (32, 32)], bitmap_format=bitmap_format)
    assert near(load_picture(data), expected, 0)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "WEBP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    data = encoded(Image.fromarray(UPRIGHT), kind, **LOSSLESS.get(kind, {}))
    assert near(load_picture(data), UPRIGHT, 0)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions(compression: str) -> None:
    assert near(load_picture(encoded(stored(1), "TIFF", compression=compression)), UPRIGHT, 0)


def test_a_new_picture_comes_out_even_if_nothing_is_to_do() -> None:
    picture = stored(1)
    loaded = load_picture(picture)
    loaded.putpixel((0, 0), (1, 2, 3))
    assert picture.getpixel((0, 0)) == RED


# -- data URLs and base64 ----------------------------------------------------------------------------

NOISE = np.random.default_rng(5).integers(0, 256, (9, 11, 3), dtype=np.uint8)
PNG = encoded(Image.fromarray(NOISE), "PNG")
B64 = base64.b64encode(PNG).decode()


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
        (b"%PDF-1.7\n", "is a PDF: render its pages to PNG first"),
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


# -- limits ------------------------------------------------------------------------------------------


def test_a_phone_photo_of_50_megapixels_is_fine() -> None:
    data = encoded(Image.new("L", (8160, 6144), 90), "JPEG")
    assert load_picture(data).size == (8160, 6144)


BOMB = """
import io, resource, struct, sys, warnings, zlib
from PIL import Image
from kimi_vl.media import load_picture
warnings.simplefilter("error")
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
pack = zlib.compressobj(1)
rows = b"".join([pack.compress(bytes(12001)) for _ in range(12000)] + [pack.flush()])
ihdr = struct.pack(">IIBBBBB", 12000, 12000, 8, 0, 0, 0, 0)
bomb = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
small = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
text = b"a\\0\\0" + zlib.compress(bytes(200_000_000), 9)
note = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", small) + chunk(b"zTXt", text) + chunk(b"IEND", b"")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
load_picture(Image.new("RGB", (8, 8)))
{before}
for data in (bomb, note):
    try:
        load_picture(data)
    except ValueError as error:
        print(error)
{after}
"""


def test_small_files_that_unpack_to_huge_ones_are_refused_unopened() -> None:
    # in a process of its own, since only a peak of memory can be read; that of making the bombs comes first
    code = BOMB.replace("{before}", "del pack, rows, text; start = peak()").replace("{after}", "print(peak() - start)")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    refused, text, grown = done.stdout.splitlines()
    assert "12000 x 12000 = 144000000 pixels are over the limit of 80000000" in refused
    assert "PNG cannot be read" in text
    assert int(grown) < 20


def header_only(kind: str, width: int, height: int) -> bytes:
    """A file whose header claims a size that its data does not have."""
    size = struct.pack("<II", width, height)
    data = bytearray(encoded(Image.new("RGB", (16, 16)), kind))
    if kind == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif kind == "BMP":
        data[18:26] = size
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "PNG":
        return png(width, height, 8, 2, b"")
    elif kind == "TIFF":
        for tag, value in ((256, width), (257, height)):
            entry = data.index(struct.pack("<HHI", tag, 4, 1))
            data[entry + 8 : entry + 12] = struct.pack("<I", value)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("size", [(9000, 9500), (60000, 60000)])
def test_the_header_alone_is_enough_to_refuse(kind: str, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} = .* over the limit of 80000000"):
            load_picture(header_only(kind, *size))


def test_each_limit_is_named_with_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    few = PictureLimits(max_bytes=len(PNG) - 1)
    for source in (PNG, path, str(path), f"data:;base64,{B64}", B64, f"data:,{urllib.parse.quote(PNG)}"):
        with pytest.raises(ValueError, match=f"{len(PNG)} bytes are over the limit of {len(PNG) - 1}"):
            load_picture(source, limits=few)
        assert near(load_picture(source, limits=PictureLimits(max_bytes=len(PNG))), NOISE, 0)
    for picture in (PNG, Image.fromarray(NOISE)):
        with pytest.raises(ValueError, match="11 x 9 = 99 pixels are over the limit of 98"):
            load_picture(picture, limits=PictureLimits(max_pixels=98))
        with pytest.raises(ValueError, match="11 x 9 has a side over the limit of 10"):
            load_picture(picture, limits=PictureLimits(max_side=10))
        assert near(load_picture(picture, limits=PictureLimits(max_pixels=99, max_side=11)), NOISE, 0)


def test_base64_over_the_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(base64, "b64decode", never)
    with pytest.raises(ValueError, match="over the limit"):
        load_picture(f"data:;base64,{B64}", limits=PictureLimits(max_bytes=100))


def test_an_icon_may_not_hide_a_large_picture() -> None:
    big = png(20000, 20000, 8, 0, b"")
    entry = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(big), 22)
    with pytest.raises(ValueError, match="20000 x 20000"):
        load_picture(entry + big)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 9000, 18000, 1, 32, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="9000 x 9000 is larger than the 256 x 256"):
        load_picture(entry + bitmap)


def tiled_tiff(width: int, height: int) -> bytes:
    """16 x 16 zeros in one raw tile of that many pixels."""
    longs = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: width, 323: height, 324: 200, 325: 256}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items())
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(longs)) + entries).ljust(200, b"\0") + bytes(256)


def test_a_tiff_may_not_claim_a_huge_tile() -> None:
    assert near(load_picture(tiled_tiff(16, 16)), np.zeros((16, 16, 3), np.uint8), 0)
    with pytest.raises(ValueError, match="tiles are 65520 pixels wide, but the picture only 16"):
        load_picture(tiled_tiff(65520, 32000))
    with pytest.raises(ValueError, match="tiles are 32000 pixels high"):
        load_picture(tiled_tiff(16, 32000))


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_side"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_limits_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        PictureLimits(**{field: value})


def test_pillows_own_settings_are_left_alone() -> None:
    from PIL import ImageFile

    before = (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        sorted(Image.OPEN),
        list(warnings.filters),
    )
    load_picture(PNG, limits=DEFAULT_LIMITS)
    after = (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        sorted(Image.OPEN),
        list(warnings.filters),
    )
    assert after == before


# -- cut and mutated files ---------------------------------------------------------------------------

WIDE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (40, 50, 3), dtype=np.uint8))
FILES = {
    "JPEG": encoded(WIDE, "JPEG"),
    "progressive JPEG": encoded(WIDE, "JPEG", progressive=True),
    "PNG": encoded(WIDE, "PNG"),
    "palette PNG": encoded(WIDE.convert("P"), "PNG", transparency=3),
    "WebP": encoded(WIDE, "WEBP"),
    "lossless WebP": encoded(WIDE, "WEBP", lossless=True),
    "AVIF": encoded(WIDE, "AVIF"),
    "TIFF": encoded(WIDE, "TIFF"),
    "LZW TIFF": encoded(WIDE, "TIFF", compression="tiff_lzw"),
    "BMP": encoded(WIDE, "BMP"),
    "GIF": encoded(WIDE, "GIF"),
    "ICO": encoded(WIDE, "ICO", sizes=[(32, 32)]),
    "bitmap ICO": encoded(WIDE, "ICO", sizes=[(32, 32)], bitmap_format="bmp"),
    "HEIC": HEIC_TURNED,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused_or_whole(name: str) -> None:
    if name == "HEIC":
        pytest.importorskip("pi_heif")
    data = FILES[name]
    whole = load_picture(data).tobytes()
    cuts = {*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 30, len(data))}
    refused = 0
    for cut in sorted(cuts):
        try:
            picture = load_picture(data[:cut])
        except ValueError:
            refused += 1
        else:
            # nothing but the end mark may be missing
            assert cut > len(data) - 24
            assert picture.tobytes() == whole
    assert refused >= 60


def test_a_jpeg_128_bytes_short_says_so() -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(FILES['JPEG'][:-128]).decode()}"
    with pytest.raises(ValueError, match=r"data URL: JPEG cannot be read: .*truncated"):
        load_picture(url)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from([name for name in FILES if name != "HEIC"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    near_start=st.booleans(),
)
def test_mutated_files_give_a_picture_or_a_value_error(
    name: str, changes: list[tuple[float, int]], near_start: bool
) -> None:
    data = bytearray(FILES[name])
    reach = 200 if near_start else len(data)
    for place, value in changes:
        data[int(place * (min(reach, len(data)) - 1))] = value
    try:
        picture = load_picture(bytes(data), limits=PictureLimits(max_pixels=1_000_000))
    except ValueError:
        return
    assert picture.mode == "RGB"
    assert picture.width * picture.height <= 1_000_000


@settings(max_examples=200, deadline=None)
@given(text=st.text(min_size=1) | st.text(alphabet="data:;base64,/+-_=%A ", min_size=1))
def test_any_text_gives_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r": \w"):
        load_picture(text)
