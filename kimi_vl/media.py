"""Untrusted pictures in, plain pictures out; the one place where their size is bounded.

In: bytes, a path, a data URL, bare base64 or a PIL picture. Out: an upright 8-bit RGB ``PIL.Image.Image``
that carries pixels and nothing else. Knows nothing of patches, tokens or the network: it fetches no URL.
"""

from __future__ import annotations

import base64
import io
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may cost, checked before anything is decoded."""

    max_bytes: int = 64 * 2**20  # of the file, after base64
    max_pixels: int = 80_000_000  # a 64-megapixel phone fits; 320 MB once decoded
    max_side: int = 65_535  # the longest side of a JPEG; Pillow also spends memory on every row

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a whole number of at least 1, not {value!r}")


DEFAULT_LIMITS = PictureLimits()
WHITE = (255, 255, 255)


def load_picture(
    source: bytes | str | Path | Image.Image,
    *,
    limits: PictureLimits = DEFAULT_LIMITS,
    background: tuple[int, int, int] = WHITE,
) -> Image.Image:
    """Reads one picture into a new upright 8-bit RGB picture.

    A ``str`` is a path, a ``data:`` URL or bare base64. The format is told from the content alone: JPEG, PNG,
    WebP, AVIF, TIFF, BMP, GIF, ICO, and HEIC with the extra ``heic``. Of several frames or pages the first is
    taken (of HEIC the primary one). A PIL picture gives the frame it stands at and is left as it is, though
    loaded if it was lazy.

    - The orientation in EXIF or XMP is applied once; a value outside 1 to 8 or a garbled block means upright.
    - Transparency of every kind is composited on ``background`` (RGB, each 0 to 255).
    - Modes I and I;16 are grey from 0 to 65535. Mode F is grey from 0 to 1 if none is above 1, else to 255.
    - Colour profiles are not applied.

    Raises ``ValueError`` that says why for anything else: no such file, no picture, cut short, over limits.
    """
    if len(background) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in background):
        raise ValueError(f"background must be three numbers from 0 to 255, not {background!r}")
    if isinstance(source, Image.Image):
        _check_size("picture", source.size, limits)
        with _refusing("picture"):
            return _upright_rgb(source, background)
    name, picture = _undecoded(source, limits)
    with _refusing(name):
        return _upright_rgb(picture, background)


def picture_size(source: bytes | str | Path, *, limits: PictureLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height of what :func:`load_picture` would open, before it is turned upright, without decoding it.

    Raises ``ValueError`` as that does for what is no picture, or too large a one.
    """
    return _undecoded(source, limits)[1].size


def _undecoded(source: bytes | str | Path, limits: PictureLimits) -> tuple[str, Image.Image]:
    """What it is called and is, and the picture, of which only the header was read and its size checked."""
    name, data = _named_bytes(source, limits)
    kind = _kind_of(data)
    if kind is None:
        raise ValueError(f"{name}: {_why_no_picture(data)}")
    with _refusing(f"{name}: {kind}"):
        picture = _OPENERS[kind](io.BytesIO(data))
    _check_size(name, picture.size, limits)
    return f"{name}: {kind}", picture


def inline_picture(text: str, *, limits: PictureLimits = DEFAULT_LIMITS) -> bytes:
    """The undecoded file in a ``data:`` URL or in bare base64. Opens no file, whatever the text says.

    Raises ``ValueError`` that says why there is none in it.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        return _read_data_url(text, limits)
    if not text or not _is_base64_of_picture(text):
        raise ValueError(f"{_short(text)!r} is no data URL, and no picture in base64")
    return _decode_base64("base64", text.encode(), limits)


def inline_file(text: str, *, limits: PictureLimits = DEFAULT_LIMITS) -> bytes:
    """The same for a file of any kind.

    Raises ``ValueError`` that says why there is none in it.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        return _read_data_url(text, limits)
    return _decode_base64("base64", text.encode(), limits)


# -- from the source to bytes ----------------------------------------------------------------------


def _named_bytes(source: bytes | str | Path, limits: PictureLimits) -> tuple[str, bytes]:
    """The name for messages, and the undecoded file."""
    if isinstance(source, bytes):
        _check_bytes("picture", len(source), limits)
        return "picture", source
    if isinstance(source, Path):
        return _short(str(source)), _read_file(source, limits)
    if not isinstance(source, str):
        raise ValueError(f"a picture is bytes, a path, a data URL or a PIL picture, not {type(source).__name__}")
    text = source.strip()
    if not text:
        raise ValueError("picture: the text is empty")
    if text[:5].lower() == "data:":
        return "data URL", _read_data_url(text, limits)
    if url := re.match(r"([a-z][a-z0-9+.-]*)://", text[:40], re.IGNORECASE):
        raise ValueError(f"{text[:40]}…: {url[1]} URLs are not fetched here; download the picture and pass its path")
    try:
        return _short(source), _read_file(Path(source), limits)
    except ValueError as error:
        # "/9j/4AAQ…", how a JPEG begins in base64, looks like a path: now it is clear that it is none
        if not _is_base64_of_picture(text):
            raise error from None
    return "base64", _decode_base64("base64", text.encode(), limits)


def _read_file(path: Path, limits: PictureLimits) -> bytes:
    name = _short(str(path))
    if "\0" in str(path):
        raise ValueError(f"{name!r}: is no possible file name")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name}: is no regular file")
        _check_bytes(name, status.st_size, limits)
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None
    _check_bytes(name, len(data), limits)
    return data


def _read_data_url(text: str, limits: PictureLimits) -> bytes:
    """RFC 2397 with good will: the MIME type is not believed, and base64 may be percent-encoded."""
    header, comma, payload = text.partition(",")
    if not comma:
        raise ValueError("data URL: no comma stands between its header and its data")
    data = unquote_to_bytes(payload)
    if any(part.strip().lower() == "base64" for part in header.split(";")[1:]):
        return _decode_base64("data URL", data, limits)
    _check_bytes("data URL", len(data), limits)
    return data


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n\v\f"


def _decode_base64(name: str, text: bytes, limits: PictureLimits) -> bytes:
    """Either alphabet, broken over lines or not, padded or not."""
    compact = text.translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
    _check_bytes(name, len(compact) * 3 // 4, limits)
    if len(compact) % 4 == 1:
        raise ValueError(f"{name}: {len(compact)} base64 characters are one too many or cut short")
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{name}: holds characters that are not base64") from None


def _is_base64_of_picture(text: str) -> bool:
    head = "".join(text[:200].split())[:64].rstrip("=")
    try:
        start = _decode_base64("base64", head[: len(head) // 4 * 4].encode(), DEFAULT_LIMITS)
    except ValueError:
        return False
    return _kind_of(start) is not None


def _short(text: str) -> str:
    """A path whole, a payload never: base64 holds no dot."""
    most = 250 if "." in text[-12:] else 60
    return text if len(text) <= most else f"{text[:20]}…"


# -- from bytes to a lazily opened picture ---------------------------------------------------------


def _kind_of(data: bytes) -> str | None:
    """Told from the first bytes; file names and MIME types are often wrong."""
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4]), 256)
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
        # the general mif1 and msf1 stand beside the coding brand, so they count last
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {
            b"heic",
            b"heix",
            b"heim",
            b"heis",
            b"hevc",
            b"hevx",
            b"hevm",
            b"hevs",
            b"mif1",
            b"msf1",
        }:
            return "HEIC"
    for kind, signature in _SIGNATURES.items():
        if re.match(signature, data, re.DOTALL):
            return kind
    return None


_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II[*+]\x00|MM\x00[*+]",
    "BMP": rb"BM",
    "ICO": rb"\x00\x00\x01\x00",
}

_NOT_READ = {
    "a PDF: send it as a part of type file, or render its pages to PNG": rb".{0,1000}%PDF-",
    "an HTML page, not a picture": rb"(?i)\s*(<!DOCTYPE html|<html)",
    "an SVG: render it to PNG first": rb"(\xef\xbb\xbf)?\s*(<[?!].{0,2000})?<svg",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\x00\x00\x00\x0cJXL",
    "a Photoshop file": rb"8BPS",
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a Netpbm picture": rb"P[1-7f]\s",
    "OpenEXR": rb"v/1\x01",
    "QOI": rb"qoif",
    "a video or another file of the MP4 family": rb"....ftyp",
    "a Matroska or WebM video": rb"\x1aE\xdf\xa3",
    "gzip-compressed": rb"\x1f\x8b",
    "a ZIP archive or an office document": rb"PK\x03\x04",
}


def _why_no_picture(data: bytes) -> str:
    if not data:
        return "is empty"
    known = ", ".join([*_SIGNATURES, "AVIF", "HEIC"])
    for what, signature in _NOT_READ.items():
        if re.match(signature, data, re.DOTALL):
            return f"is {what}; pictures are read as {known}"
    return f"is no picture in a known format ({known})"


def _open_png(stream: io.BytesIO) -> Image.Image:
    picture = PngImageFile(stream)
    key = picture.info.get("transparency")
    depth = stream.getbuffer()[24]
    # Pillow scales these pixels to 8 bits but leaves the transparent colour in the depth of the file
    if picture.mode == "L" and isinstance(key, int):
        picture.info["transparency"] = key * 255 // (2**depth - 1)
    if picture.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        picture.info["transparency"] = tuple(part >> 8 for part in key)
    return picture


def _open_tiff(stream: io.BytesIO) -> Image.Image:
    picture = TiffImageFile(stream)
    # memory for a whole tile is taken whatever the size of the picture
    for name, tag, side in (("wide", 322, picture.width), ("high", 323, picture.height)):
        tile = picture.tag_v2.get(tag, 0)
        if tile > max(4096, side + 15):
            raise ValueError(f"its tiles are {tile} pixels {name}, but the picture only {side}")
    return picture


def _open_ico(stream: io.BytesIO) -> Image.Image:
    icon = IcoFile(stream)
    stream.seek(icon.entry[0].offset)
    rest = stream.read()
    if _kind_of(rest) == "PNG":
        return _open_png(io.BytesIO(rest))
    # Pillow decodes this kind at once, so its true size (colours above mask) counts before we know our limits
    width, height = DibImageFile(io.BytesIO(rest)).size
    if width > 256 or height > 512:
        raise ValueError(f"an icon of {width} x {height // 2} is larger than the 256 x 256 of its format")
    return icon.frame(0)


def _check_heif_items(data: bytes) -> None:
    """Refuses item types and names that are no UTF-8: pi-heif (seen in 1.4.0) would end the whole process."""
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4])
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16])
        end = start + size if size else len(data)
        if data[start + 4 : start + 8] == b"meta":
            for found in re.finditer(b"infe", data[start:end]):
                item = start + found.start() - 4
                item_size = int.from_bytes(data[item : item + 4])
                if item_size < 20:
                    raise ValueError("an item of it is too short")
                # behind size, name, version and number
                data[item + 16 : item + item_size].decode()
        start = max(end, start + 8)


def _open_heic(stream: io.BytesIO) -> Image.Image:
    try:
        from pi_heif import HeifImageFile  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ValueError("its decoder is optional; pip install 'kimi-vl[heic]'") from None
    _check_heif_items(stream.getvalue())
    picture: Image.Image = HeifImageFile(stream)
    return picture


# Not Image.open: it tries decoders that nobody needs, and warns of large pictures before our limits speak.
# An MPO (two JPEGs in one file) is read as the JPEG it begins with.
_OPENERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImageFile,
    "PNG": _open_png,
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "HEIC": _open_heic,
    "TIFF": _open_tiff,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "ICO": _open_ico,
}


# -- from a lazily opened picture to upright RGB ---------------------------------------------------


def _upright_rgb(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    picture.load()
    # asked after loading: Pillow turns a TIFF (pi-heif a HEIC) while decoding and then drops the tag,
    # and a PNG may keep its tag behind the pixels
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        orientation = 1
    rgb = _flatten(picture, background)
    rgb.info = {}
    rgb.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    rgb.getexif().clear()
    return rgb


def _flatten(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """A new RGB picture; colours under full transparency leave no trace."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _grey_to_8_bit(picture)
    elif picture.mode == "La":
        picture = picture.convert("LA")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    rgb = Image.new("RGB", picture.size, background)
    rgb.paste(rgba, mask=rgba)
    return rgb


def _grey_to_8_bit(picture: Image.Image) -> Image.Image:
    """I, I;16 (any byte order) or F to L, or to LA where a grey value is declared transparent."""
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    top = 65535.0 if picture.mode != "F" else 255.0 if high > 1 else 1.0
    if not (low >= 0 and high <= top):
        raise ValueError(f"grey values from {low:g} to {high:g} are outside 0 to {top:g}; scale them first")
    scaled = values.astype(np.float32) * np.float32(255 / top)
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8))
    if (key := picture.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


# -- refusals --------------------------------------------------------------------------------------


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Decoders fail with errors of a dozen kinds; to a caller they all mean that this picture is no good."""
    try:
        yield
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        raise ValueError(f"{what} cannot be read: {reason}") from error


def _check_bytes(name: str, size: int, limits: PictureLimits) -> None:
    if size > limits.max_bytes:
        raise ValueError(f"{name}: {size} bytes are over the limit of {limits.max_bytes}")


def _check_size(name: str, size: tuple[int, int], limits: PictureLimits) -> None:
    width, height = size
    if min(width, height) < 1:
        raise ValueError(f"{name}: {width} x {height} has no pixels")
    if width * height > limits.max_pixels:
        raise ValueError(
            f"{name}: {width} x {height} = {width * height} pixels are over the limit of "
            f"{limits.max_pixels}; scale the picture down first"
        )
    if max(width, height) > limits.max_side:
        raise ValueError(
            f"{name}: {width} x {height} has a side over the limit of {limits.max_side}; scale it down first"
        )
