"""Large, broken and hostile files: refused from the header with numbers, or whole; a ``ValueError`` and no other."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kimi_vl.media import DEFAULT_LIMITS, PictureLimits, load_picture, picture_size
from tests.pictures import (
    B64,
    HEIC_TURNED,
    NOISE,
    PNG,
    encoded,
    near,
    png,
)


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


# -- cut and mutated files -------------------------------------------------------------------------

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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_size_is_told_without_decoding(kind: str) -> None:
    """Even of a file whose pixels are cut off; limits hold all the same."""
    data = io.BytesIO()
    Image.effect_noise((70, 50), 80).convert("RGB").save(data, kind)
    whole = data.getvalue()
    assert picture_size(whole) == (70, 50)
    with pytest.raises(ValueError, match="70 x 50"):
        picture_size(whole, limits=PictureLimits(max_pixels=3499))
    if kind in ("PNG", "JPEG", "GIF", "BMP"):
        assert picture_size(whole[: len(whole) // 2]) == (70, 50)
        with pytest.raises(ValueError, match="is truncated"):
            load_picture(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no picture in a known format"):
        picture_size(b"hello")
