"""A video's file → pictures of the frames that are asked for, by their numbers from 0.

Frames are numbered as they are shown, and those that a file cuts away have no number. Knows nothing of sound.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

FRAME_PIXELS = 1024 * 28 * 28  # 1,024 tokens, to which the first Kimi-VL scales any picture; the model reads 131,072

_SECONDS = 300.0  # to read the whole file and decode from the keyframe before each frame that is asked for
_MOST_PIXELS = 40_000_000  # of a frame: 8K has 33 million


class Video:
    """An open video. ``fps`` is on average, and ``count`` is of all frames.

    Raises: ``ValueError`` that names the file if it is no video, is broken, too large or takes too long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until = time.monotonic() + _SECONDS
        self._container = _opened(path)
        try:
            with self._refusing():
                self.fps, self._shown_at, self._keys = self._index()
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def count(self) -> int:
        return len(self._shown_at)

    def frames(self, numbers: Sequence[int], *, pixels: int) -> list[Image.Image]:
        """These frames in this order, upright, none larger than so many pixels.

        Raises: ``ValueError`` for a number that there is not, too.
        """
        if wrong := [number for number in numbers if not 0 <= number < self.count]:
            raise ValueError(f"{self._path} has {self.count} frames, and none of the number {wrong[0]}")
        with self._refusing():
            ordered = sorted(set(numbers))
            found = dict(zip(ordered, self._decoded(ordered, pixels), strict=True))
        return [found[number] for number in numbers]

    def _index(self) -> tuple[float, list[int], list[int]]:
        """Frames a second, when each frame is shown, and when those are that need no other. Nothing is decoded."""
        stream = self._container.streams.video[0]
        rate = stream.average_rate or stream.base_rate
        if not rate:
            raise ValueError("no rate of frames is given")
        if stream.width * stream.height > _MOST_PIXELS:
            raise ValueError(f"a frame has {stream.width} x {stream.height} pixels, and at most {_MOST_PIXELS} may be")
        if self._container.format.name == "avi" and stream.codec_context.has_b_frames:
            raise ValueError("AVI does not say when its frames are shown: convert it to MP4")
        shown_at, keys = [], []
        for packet in self._container.demux(stream):
            self._check_time()
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                raise ValueError("it does not say when its frames are shown: convert it to MP4")
            shown_at.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        if not shown_at:
            raise ValueError("it holds no frame")
        return float(rate), sorted(shown_at), sorted(keys)

    def _decoded(self, numbers: Sequence[int], pixels: int) -> Iterator[Image.Image]:
        """Of ascending numbers. Goes on from frame to frame where no other way is shorter."""
        stream = self._container.streams.video[0]
        coming: Iterator[VideoFrame] = iter(())
        last = -math.inf
        for number in numbers:
            wanted = self._shown_at[number]
            nearest = bisect_right(self._keys, wanted)
            key = self._keys[nearest - 1] if nearest else self._shown_at[0]
            if key > last:
                self._container.seek(key, stream=stream)
                coming = self._container.decode(stream)
            for frame in coming:
                self._check_time()
                last = -math.inf if frame.pts is None else frame.pts
                if last >= wanted:
                    yield _picture(frame, pixels)
                    break
            else:
                raise ValueError(f"frame {number} of {self.count} cannot be decoded")

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise ValueError(f"it takes longer than {_SECONDS:g} s to read")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"{self._path}: {_reason(error)}") from error


def middles(count: int, wanted: int) -> list[int]:
    """Of so many equal pieces of a video."""
    piece = (count - 1) / wanted
    return [int(piece / 2 + round(piece * place)) for place in range(wanted)]


def between_ends(count: int, wanted: int) -> list[int]:
    """Evenly from after the first frame on, as VLMEvalKit has it; some come twice where there are fewer."""
    step = count / (wanted + 1)
    return [int(step * place) for place in range(1, wanted + 1)]


def _opened(path: Path) -> InputContainer:
    try:
        import av
    except ImportError:
        raise ValueError(f"{path}: videos need the library av, pip install 'kimi-vl[eval]'") from None
    try:
        container = av.open(path)
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened as a video: {_reason(error)}") from error
    # A stream whose codec is not known has no context.
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise ValueError(f"{path} holds no video that can be decoded")
    return container


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _picture(frame: VideoFrame, pixels: int) -> Image.Image:
    picture = frame.to_image()
    scale = math.sqrt(pixels / (frame.width * frame.height))
    if scale < 1:
        size = (max(1, int(frame.width * scale)), max(1, int(frame.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
