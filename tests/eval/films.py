"""Tiny videos whose frames show their numbers, and what is asked of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import av
import pytest
from PIL import Image

from kimi_vl.chat import Message, PicturePart, TextPart

LOTS = Random(0)
Rows = list[dict[str, Any]]
FPS = 5
COUNT = 40  # frames: 8 seconds
BITS = 6  # with which a frame shows its number, in columns of 16 pixels


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_picture(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def write_video(path: Path, *, count: int = COUNT, size: tuple[int, int] = (16 * BITS, 48)) -> None:
    """White columns are the ones of each frame's number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = 2
        for number in range(count):
            picture = Image.new("RGB", size)
            for bit in range(BITS):
                if number >> bit & 1:
                    picture.paste((255, 255, 255), (16 * bit, 0, 16 * bit + 16, size[1]))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def number_of(frame: Image.Image) -> int:
    grey = frame.convert("L")
    column = frame.width / BITS
    values = [grey.getpixel((int(column * (bit + 0.5)), frame.height // 2)) for bit in range(BITS)]
    return sum((isinstance(value, int) and value > 127) << bit for bit, value in enumerate(values))


def told(message: Message) -> list[int | str]:
    """Texts, and the numbers of frames, in their order."""
    found: list[int | str] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                found.append(text)
            case PicturePart(Image.Image() as frame):
                found.append(number_of(frame))
            case _:
                pytest.fail(f"{part} in a question about a video")
    return found


def fails(load: Callable[[Path], object], folder: Path, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(folder)
