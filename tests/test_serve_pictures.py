"""Strangers' pictures are opened in processes of their own, and whatever happens to one hurts no other picture."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import psutil
import pytest
import torch
from PIL import Image

from kimi_vl.media import PictureLimits, load_picture
from kimi_vl.patches import ImageProcessorConfig, cut, patchify
from kimi_vl.serve.picture_process import Settings
from kimi_vl.serve.pictures import PictureReaders

CONFIG = ImageProcessorConfig()
SETTINGS = Settings(CONFIG, PictureLimits(max_bytes=2**20, max_pixels=30_000_000), memory=2**30)
T = TypeVar("T")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(width * height * 3))


def run(do: Callable[[PictureReaders], Awaitable[T]], settings: Settings = SETTINGS, seconds: float = 20.0) -> T:
    """Does something with two processes, and sees that none is left afterwards."""

    async def main() -> T:
        readers = PictureReaders(settings, count=2, seconds=seconds)
        await readers.start()
        try:
            return await do(readers)
        finally:
            await readers.close()

    result = asyncio.run(main())
    assert workers() == []
    return result


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "kimi_vl.serve.picture_process" in p.cmdline()]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_patches_are_those_of_a_picture_that_is_opened_here(kind: str) -> None:
    data = encoded(noise(90, 61), kind)
    fitted = run(lambda readers: readers.read(data))
    patches, grid = patchify(load_picture(data), CONFIG)
    assert (fitted.h, fitted.w) == (grid.h, grid.w)
    assert torch.equal(cut(fitted.pixels, fitted.h, fitted.w, CONFIG), patches)


def test_a_picture_gets_the_size_that_is_wished_for() -> None:
    data = encoded(noise(300, 200))
    small = run(lambda readers: readers.read(data, max_pixels=14 * 14 * 16))
    assert small.h * small.w <= 16 + 8
    large = run(lambda readers: readers.read(data, min_pixels=600 * 400))
    assert large.h * large.w >= 42 * 28


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello", "no picture in a known format"),
        (encoded(noise(60, 60))[:500], "PNG cannot be read"),
        (b"%PDF-1.7", "is a PDF"),
        (bytes(2**20 + 1), "1048577 bytes are over the limit of 1048576"),
        (encoded(Image.new("1", (6000, 6000))), "36000000 pixels are over the limit of 30000000"),
        (encoded(Image.new("L", (8000, 3))), "a side must stay under 512 patches"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(lambda readers: readers.read(data))


def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    settings = replace(SETTINGS, memory=200 * 2**20)
    data = encoded(Image.new("L", (5000, 5000)))

    async def both(readers: PictureReaders) -> str:
        with pytest.raises(ValueError, match=r"memory|decoder failed|cannot be read") as caught:
            await readers.read(data)
        await readers.read(encoded(noise(60, 60)))
        return str(caught.value)

    assert "picture" in run(both, settings)


def test_a_decoder_that_dies_or_hangs_costs_its_own_picture_only() -> None:
    data, hard = encoded(noise(60, 60)), encoded(Image.new("L", (5000, 5000)))

    async def die(readers: PictureReaders) -> None:
        async def kill() -> None:
            # Every one, as soon as it is there: what is asked next, and what is asked after that.
            while True:
                with suppress(psutil.Error):
                    for worker in workers():
                        worker.kill()
                await asyncio.sleep(0.001)

        await readers.read(data)
        killer = asyncio.ensure_future(kill())
        with pytest.raises(ValueError, match="so broken that its decoder failed"):
            await readers.read(hard)
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
        assert (await readers.read(data)).pixels

    run(die)

    async def hang(readers: PictureReaders) -> None:
        await readers.read(data)
        workers()[0].suspend()
        with pytest.raises(ValueError, match=r"takes more than 3 s"):
            await readers.read(data)
        assert (await readers.read(data)).pixels

    run(hang, seconds=3.0)


def test_a_process_that_died_while_it_waited_costs_no_picture() -> None:
    data = encoded(noise(60, 60))

    async def die(readers: PictureReaders) -> None:
        for _ in range(3):
            (idle,) = workers()
            idle.kill()
            assert (await readers.read(data)).pixels

    run(die)


def test_whoever_gives_up_frees_the_process() -> None:
    async def give_up(readers: PictureReaders) -> None:
        for _ in range(4):
            reading = asyncio.create_task(readers.read(encoded(Image.new("L", (5000, 5000)))))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert len(workers()) <= 1
        await readers.read(encoded(noise(30, 30)))

    run(give_up)


def test_many_at_once_wait_for_their_turn() -> None:
    async def many(readers: PictureReaders) -> int:
        pictures = [encoded(noise(28 * n, 28)) for n in range(1, 13)]
        fitted = await asyncio.gather(*map(readers.read, pictures))
        assert [picture.w for picture in fitted] == [2 * n for n in range(1, 13)]
        return len(workers())

    assert run(many) == 2
