"""What the tests of pictures share: files with known pixels, and how near is near."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kimi_vl.media import load_picture

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


# small, with no two pixels alike
NOISE = np.random.default_rng(5).integers(0, 256, (9, 11, 3), dtype=np.uint8)
PNG = encoded(Image.fromarray(NOISE), "PNG")
B64 = base64.b64encode(PNG).decode()

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
