"""A conversation with a stranger's pictures → what the model takes.

messages ─→ fetch.py (URLs) or base64 ─→ pictures.py (processes that may crash) ─→ patches ─→ ModelInputs
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from kimi_vl.chat import FilePart, Message, PicturePart, shown_parts, with_pages
from kimi_vl.media import PictureLimits, inline_file, inline_picture
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

    async def read(
        self, messages: Sequence[Message], take: Callable[[int], None], *, continue_final_message: bool
    ) -> ModelInputs:
        """``take`` is told how many tokens each picture has, before it takes up much memory.

        Raises: ``RefusedError`` naming the picture, counted from 1 over all messages.
        """
        parts = shown_parts(messages)
        self._check_count(len(parts), "pictures")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._opened(part, f"picture {number} of {len(parts)}", take))
                    for number, part in enumerate(parts, start=1)
                ]
        except* RefusedError as several:
            raise _first(several) from None
        opened = [task.result() for task in tasks]
        pictures = [picture for pictures, _ in opened for picture in pictures]
        self._check_count(len(pictures), "pictures and pages")
        counts = [
            len(found) if is_pdf else None
            for part, (found, is_pdf) in zip(parts, opened, strict=True)
            if isinstance(part, FilePart)
        ]
        return await asyncio.to_thread(
            self._processor.assemble,
            with_pages(messages, counts),
            pictures,
            continue_final_message=continue_final_message,
        )

    def _check_count(self, count: int, what: str) -> None:
        if count > self._limits.pictures:
            raise RefusedError(
                400,
                f"the request has {count} {what}, over the limit of {self._limits.pictures}",
                code="too_many_pictures",
                param="messages",
            )

    async def _opened(
        self, part: PicturePart | FilePart, name: str, take: Callable[[int], None]
    ) -> tuple[list[CutPicture], bool]:
        """The picture, or the pages; and whether they are pages."""
        began = time.monotonic()
        try:
            data = await self._data(part)
            if isinstance(part, FilePart):
                opened = await self._readers.open(data, most_pages=self._limits.pictures)
                pictures, is_pdf = opened.pictures, opened.is_pdf
            else:
                fitted = await self._readers.read(data, min_pixels=part.min_pixels, max_pixels=part.max_pixels)
                pictures, is_pdf = (fitted,), False
        except ValueError as error:
            self._metrics.pictures.labels("refused").inc()
            # the file has no other name
            why = str(error).removeprefix("picture: ")
            raise RefusedError(400, f"{name}: {why}", code="invalid_image", param="messages") from None
        down, across = self._processor.image_config.merge_kernel_size
        take(sum(fitted.h * fitted.w for fitted in pictures) // (down * across))
        cut = [await asyncio.to_thread(self._processor.cut, each.pixels, each.h, each.w) for each in pictures]
        self._metrics.pictures.labels("read").inc(len(cut))
        self._metrics.picture_seconds.observe(time.monotonic() - began)
        return cut, is_pdf

    async def _data(self, part: PicturePart | FilePart) -> bytes:
        """The file. Raises: ``ValueError``, and for all that is neither a URL nor the file itself."""
        source = part.source
        if not isinstance(source, str):
            raise ValueError("a server opens no files of its own: send the picture as a data URL, or by https URL")
        if source.lstrip()[:8].lower().startswith(("http://", "https://")):
            return await self._fetcher.get(source.strip())
        if "://" in source[:40]:
            raise ValueError(f"{shortened(source)} is not fetched: give an http, https or data URL")
        inline = inline_file if isinstance(part, FilePart) else inline_picture
        return await asyncio.to_thread(inline, source, limits=self._picture_limits)


def _first(several: BaseExceptionGroup[RefusedError]) -> RefusedError:
    error: BaseException = several
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RefusedError)
    return error
