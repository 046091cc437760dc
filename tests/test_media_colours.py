"""Pictures of every mode, with and without transparency: right 8-bit RGB.

Expected values come from the definitions (compositing by hand, PNG chunks written by hand), not from the code under
test.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from kimi_vl.media import load_picture
from tests.pictures import (
    BLUE,
    GREEN,
    LOSSLESS,
    RED,
    UPRIGHT,
    WHITE,
    Pixels,
    encoded,
    near,
    png,
    row,
    stored,
)


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
