"""Pictures that say how they were held are turned once, on every route, whatever the format.

Expected values come from the definition (EXIF's row and column sides), not from the code under test.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import pytest

from kimi_vl.media import load_picture
from tests.pictures import (
    HEIC_ALPHA,
    HEIC_TURNED,
    LOSSLESS,
    LOSSY,
    ROUTES,
    SIDES,
    UPRIGHT,
    encoded,
    exif,
    near,
    stored,
)


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
