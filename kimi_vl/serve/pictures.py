"""Pictures' files to pixels, by a few processes of which any may fail without hurting more than its picture."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kimi_vl.serve.picture_process import PREFIX, Settings, lengths, packed

_Answer = tuple[dict[str, Any], bytes]
_DIED = (asyncio.IncompleteReadError, ConnectionError)


@dataclass(frozen=True)
class FittedPicture:
    """A picture as the tower's patches are cut from it."""

    h: int  # patches down
    w: int  # patches across
    pixels: bytes  # [h · patch_size, w · patch_size, 3]


@dataclass(frozen=True)
class Opened:
    """A file: its one picture, or the pages of a PDF."""

    pictures: tuple[FittedPicture, ...]
    is_pdf: bool


class PictureReaders:
    """``count`` processes at most, started when they are needed, each with one picture at a time."""

    def __init__(self, settings: Settings, *, count: int, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._turn = asyncio.Semaphore(count)
        self._idle: list[Process] = []

    async def start(self) -> None:
        """Has one ready, so that the first picture need not wait for it."""
        self._idle.append(await self._new())

    async def close(self) -> None:
        while self._idle:
            await _end(self._idle.pop())

    async def read(self, data: bytes, *, min_pixels: int | None = None, max_pixels: int | None = None) -> FittedPicture:
        """A picture. Raises: as :meth:`open`."""
        wishes = {"min_pixels": min_pixels, "max_pixels": max_pixels, "most_pages": 0}
        return (await self._open(data, wishes)).pictures[0]

    async def open(self, data: bytes, *, most_pages: int) -> Opened:
        """A picture, or a PDF of so many pages at most.

        Raises: ``ValueError`` that says why it cannot be read, a decoder's crash and its slowness included.
        """
        return await self._open(data, {"min_pixels": None, "max_pixels": None, "most_pages": most_pages})

    async def _open(self, data: bytes, wishes: dict[str, int | None]) -> Opened:
        async with self._turn:
            asked = None
            if self._idle:
                # one that waited may have died of something else before it was asked
                with suppress(*_DIED):
                    asked = await self._asked(self._idle.pop(), wishes, data)
            try:
                header, pixels = asked or await self._asked(await self._new(), wishes, data)
            except _DIED:
                raise ValueError("picture: is so broken that its decoder failed") from None
        if "error" in header:
            raise ValueError(header["error"])
        return Opened(tuple(self._cut_up(header["sizes"], pixels)), header["is_pdf"])

    async def _asked(self, process: Process, wishes: dict[str, int | None], data: bytes) -> _Answer:
        """What a process answers, which is then idle, or else has ended. Raises: ``ValueError`` or one of ``_DIED``."""
        healthy = False
        try:
            async with asyncio.timeout(self._seconds):
                answer = await _ask(process, wishes, data)
            healthy = True
            return answer
        except TimeoutError:
            raise ValueError(f"picture: takes more than {self._seconds:g} s to be read") from None
        finally:
            if healthy:
                self._idle.append(process)
            else:
                await asyncio.shield(_end(process))

    def _cut_up(self, sizes: list[tuple[int, int]], pixels: bytes) -> Iterator[FittedPicture]:
        first = 0
        for h, w in sizes:
            end = first + 3 * h * w * self._settings.image_config.patch_size**2
            yield FittedPicture(h, w, pixels[first:end])
            first = end

    async def _new(self) -> Process:
        arguments = (sys.executable, "-m", "kimi_vl.serve.picture_process", self._settings.dump())
        # one thread does, and numpy would take address space for each
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return await asyncio.create_subprocess_exec(
            *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True
        )


async def _ask(process: Process, header: dict[str, int | None], data: bytes) -> _Answer:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(packed(header, data))
    await process.stdin.drain()
    header_bytes, data_bytes = lengths(await process.stdout.readexactly(PREFIX))
    answer = json.loads(await process.stdout.readexactly(header_bytes))
    return answer, await process.stdout.readexactly(data_bytes)


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
