"""A conversation with a stranger's pictures → what the model takes.

messages ─→ fetch.py (URLs) or base64 ─→ pictures.py (processes that may crash) ─→ patches ─→ ModelInputs
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from kimi_vl.chat import Message, PicturePart, picture_parts
from kimi_vl.media import PictureLimits, inline_picture
from kimi_vl.processor import CutPicture, KimiVLProcessor, ModelInputs
from kimi_vl.serve.errors import RefusedError
from kimi_vl.serve.fetch import Fetcher, shortened
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.metrics import Metrics
from kimi_vl.serve.picture_process import Settings
from kimi_vl.serve.pictures import PictureReaders


class PromptReader:
    """Opens what conversations show."""

    def __init__(self, processor: KimiVLProcessor, limits: ServerLimits, metrics: Metrics) -> None:
        self._processor = processor
        self._limits = limits
        self._metrics = metrics
        self._picture_limits = PictureLimits(max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)
        self._fetcher = Fetcher(
            limits.picture_bytes, limits.fetch_seconds, limits.fetch_redirects, limits.fetch_private
        )
        self._readers = PictureReaders(
            Settings(processor.image_config, self._picture_limits, limits.picture_memory),
            count=limits.picture_processes,
            seconds=limits.picture_seconds,
        )

    async def start(self) -> None:
        await self._readers.start()

    async def close(self) -> None:
        await self._readers.close()

    async def read(self, messages: Sequence[Message], take: Callable[[int], None]) -> ModelInputs:
        """``take`` is told how many tokens each picture has, before it takes up much memory.

        Raises: ``RefusedError`` naming the picture, counted from 1 over all messages.
        """
        parts = picture_parts(messages)
        if len(parts) > self._limits.pictures:
            raise RefusedError(
                400,
                f"the request has {len(parts)} pictures, over the limit of {self._limits.pictures}",
                code="too_many_pictures",
                param="messages",
            )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._picture(part, f"picture {number} of {len(parts)}", take))
                    for number, part in enumerate(parts, start=1)
                ]
        except* RefusedError as several:
            raise _first(several) from None
        pictures = [task.result() for task in tasks]
        return await asyncio.to_thread(self._processor.assemble, messages, pictures)

    async def _picture(self, part: PicturePart, name: str, take: Callable[[int], None]) -> CutPicture:
        began = time.monotonic()
        try:
            data = await self._data(part)
            fitted = await self._readers.read(data, min_pixels=part.min_pixels, max_pixels=part.max_pixels)
        except ValueError as error:
            self._metrics.pictures.labels("refused").inc()
            raise RefusedError(400, f"{name}: {error}", code="invalid_image", param="messages") from None
        down, across = self._processor.image_config.merge_kernel_size
        take(fitted.h * fitted.w // (down * across))
        cut = await asyncio.to_thread(self._processor.cut, fitted.pixels, fitted.h, fitted.w)
        self._metrics.pictures.labels("read").inc()
        self._metrics.picture_seconds.observe(time.monotonic() - began)
        return cut

    async def _data(self, part: PicturePart) -> bytes:
        """The file. Raises: ``ValueError``, and for all that is neither a URL nor the picture itself."""
        source = part.source
        if not isinstance(source, str):
            raise ValueError("a server opens no files of its own: send the picture as a data URL, or by https URL")
        scheme = source.lstrip()[:8].lower()
        if scheme.startswith(("http://", "https://")):
            return await self._fetcher.get(source.strip())
        if "://" in source[:40]:
            raise ValueError(f"{shortened(source)} is not fetched: give an http, https or data URL")
        return await asyncio.to_thread(inline_picture, source, limits=self._picture_limits)


def _first(several: BaseExceptionGroup[RefusedError]) -> RefusedError:
    error: BaseException = several
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RefusedError)
    return error
