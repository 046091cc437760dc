"""A process that opens untrusted pictures: ``python -m kimi_vl.serve.picture_process SETTINGS``.

In, on stdin, and out, on stdout: frames, a JSON header and bytes. Each picture's file, and each page of a PDF, comes
back as the RGB pixels that the tower's patches are cut from. A decoder that crashes, or takes more memory than it may,
ends this process and nothing else. Imports no torch, so that it starts in a moment.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from kimi_vl.documents import is_pdf, pdf_pages
from kimi_vl.media import PictureLimits, load_picture
from kimi_vl.patches import ImageProcessorConfig, fit

_LENGTHS = struct.Struct(">IQ")


@dataclass(frozen=True)
class Settings:
    """What such a process is started with."""

    image_config: ImageProcessorConfig
    limits: PictureLimits
    memory: int  # bytes of address space

    def dump(self) -> str:
        config = self.image_config.to_dict()
        return json.dumps({"image_config": config, "limits": asdict(self.limits), "memory": self.memory})

    @classmethod
    def load(cls, text: str) -> Settings:
        raw = json.loads(text)
        config = ImageProcessorConfig.from_dict(raw["image_config"])
        return cls(config, PictureLimits(**raw["limits"]), raw["memory"])


def packed(header: Mapping[str, Any], data: bytes = b"") -> bytes:
    """A frame."""
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), len(data)) + text + data


PREFIX = _LENGTHS.size


def lengths(prefix: bytes) -> tuple[int, int]:
    """Of the header and of the data that follow."""
    header, data = _LENGTHS.unpack(prefix)
    return header, data


def main() -> None:
    settings = Settings.load(sys.argv[1])
    frames_in, frames_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # what a library prints must not get between the frames
    os.dup2(2, 1)
    _confine(settings.memory)
    while (frame := _read(frames_in)) is not None:
        header, data = frame
        frames_out.write(_answer(settings, header, data))
        frames_out.flush()


def _answer(settings: Settings, header: Mapping[str, Any], data: bytes) -> bytes:
    config = settings.image_config
    try:
        if header["most_pages"] and is_pdf(data):
            pixels = config.in_token_limit * config.patch_size**2
            pages = pdf_pages(data, most=header["most_pages"], pixels=pixels)
            fitted = [fit(page, config) for page in pages]
        else:
            picture = load_picture(data, limits=settings.limits)
            fitted = [fit(picture, config, min_pixels=header["min_pixels"], max_pixels=header["max_pixels"])]
        sizes = [(grid.h, grid.w) for _, grid in fitted]
        return packed({"sizes": sizes, "is_pdf": is_pdf(data)}, b"".join(pixels.tobytes() for pixels, _ in fitted))
    except ValueError as error:
        return packed({"error": str(error)})
    except MemoryError:
        return packed({"error": f"picture: needs more than {settings.memory >> 20} MiB of memory to be read"})


def _read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    prefix = stream.read(PREFIX)
    if len(prefix) < PREFIX:
        return None
    header, data = lengths(prefix)
    return json.loads(stream.read(header)), stream.read(data)


def _confine(memory: int) -> None:
    """No more memory than that, no core dumps and no files written, as far as the system knows such limits."""
    with suppress(ImportError):
        import resource

        for what, most in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
