"""Answers as bytes of HTTP: one JSON document, or a stream of events that ends when the client does.

A client that is gone, or takes nothing for too long, ends the work that is done for it within a step.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_SILENCE = 15.0  # seconds, after which a comment shows proxies and clients that the stream lives


class ClientGoneError(Exception):
    """Nobody is there to be answered."""


def dumped(content: BaseModel | Mapping[str, Any]) -> bytes:
    """JSON in UTF-8. A lone surrogate, which JSON can name and UTF-8 cannot, becomes a question mark."""
    if isinstance(content, BaseModel):
        content = content.model_dump(exclude_unset=True)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def json_response(
    content: BaseModel | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(dumped(content), status, headers, media_type="application/json")


def event(content: BaseModel | Mapping[str, Any], name: str | None = None) -> bytes:
    """One event of a stream, by HTML's rules of ``text/event-stream``."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + dumped(content) + b"\n\n"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` gives, unless the client goes first: then it is cancelled. The body has been received before.

    Raises: ``ClientGoneError``.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Events as they come. ``owned`` is closed when all are sent or the client is gone, however that comes about."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], owned: AsyncExitStack, *, send_seconds: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._owned = owned
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._owned:
            try:
                await unless_gone(receive, self._pump(send))
            except ClientGoneError:
                pass
            except TimeoutError:
                _LOG.info("a client took nothing of its answer for %g s", self._send_seconds)

    async def _pump(self, send: Send) -> None:
        async def give(body: bytes, *, more: bool) -> None:
            async with asyncio.timeout(self._send_seconds):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        pending = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                done, _ = await asyncio.wait((pending,), timeout=_SILENCE)
                if not done:
                    await give(b": still at work\n\n", more=True)
                    continue
                if (body := pending.result()) is None:
                    break
                await give(body, more=True)
                pending = asyncio.ensure_future(anext(self._events, None))
            await give(b"", more=False)
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
