"""What stands before every route: who may ask, and how large and how slow a request may be.

    bytes from a stranger ─→ Host and key looked at, body counted as it comes ─→ the application

An ASGI application round another. It refuses before the body is read where it can, and keeps what all bodies together
take within bounds until their requests begin to be answered.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kimi_vl.serve.errors import RefusedError
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.wire import json_response

_GUARDED = "/v1/"
_PATIENCE = 5.0  # seconds, with the body of a request that is refused
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Keys:
    """Whoever has one of these may ask. Without any, everyone who reaches the server on this machine may."""

    keys: tuple[str, ...]
    loopback_only: bool  # whether a Host that is not this machine's own is a page's trick (DNS rebinding)

    def check(self, headers: Headers) -> None:
        """Raises: ``RefusedError``, 401 or 403."""
        if self.keys:
            given = headers.get("authorization", "")
            scheme, _, key = given.partition(" ")
            if scheme.lower() != "bearer":
                key = headers.get("x-api-key", "")
            right = [hmac.compare_digest(key.strip().encode(), known.encode()) for known in self.keys]
            if not any(right):
                why = "this API key is not known here" if key else "give an API key: Authorization: Bearer KEY"
                raise RefusedError(401, why, code="invalid_api_key")
        elif self.loopback_only and _host(headers) not in _LOOPBACK:
            raise RefusedError(
                403,
                f"the Host header names {_host(headers)!r}, not this machine: start the server with an API key to "
                "let other names in",
                code="host_not_allowed",
            )


def _host(headers: Headers) -> str:
    try:
        return (urlsplit(f"//{headers.get('host', 'localhost')}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """Wraps an ASGI application."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys, limits: ServerLimits, on_refusal: Callable[[RefusedError], None]
    ) -> None:
        self._app = app
        self._on_refusal = on_refusal
        self._keys = keys
        self.limits = limits
        self.held = 0  # bytes of bodies whose requests have not begun to be answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(self, receive)
        try:
            if scope["path"].startswith(_GUARDED):
                self._keys.check(headers)
            length = headers.get("content-length", "")
            if length.isdigit():
                body.take(int(length))
            if await body.read():
                await self._app(scope, body.replay, body.until_answered(send))
        except RefusedError as refused:
            self._on_refusal(refused)
            if "expect" not in headers:
                await body.pass_over()
            # what was not read of a body leaves nothing behind that a next request could be read from
            answer = json_response(refused.body, refused.status, {**refused.headers, "Connection": "close"})
            await answer(scope, receive, send)
        finally:
            body.release()


class _Body:
    """One request's body, counted. It is read here whole, where a fault in it is answered as what it is."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard = guard
        self._receive = receive
        self._parts: list[bytes] = []
        self._taken = 0
        self._complete = False

    def take(self, count: int) -> None:
        """Makes room for ``count`` bytes in all."""
        limits = self._guard.limits
        if count > limits.body_bytes:
            raise RefusedError(
                413,
                f"the body has {count} bytes or more, over the limit of {limits.body_bytes}: send fewer or smaller "
                "pictures",
                code="body_too_large",
            )
        if self._guard.held - self._taken + count > limits.all_body_bytes:
            why = "other requests' bodies leave no room for this one; try again later"
            raise RefusedError(429, why, code="overloaded", retry_after=1)
        self._guard.held += count - self._taken
        self._taken = count

    def release(self) -> None:
        self._guard.held -= self._taken
        self._taken = 0

    async def read(self) -> bool:
        """Whether it came whole, and its sender is still there. Raises: ``RefusedError``."""
        size = 0
        seconds = self._guard.limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                while not self._complete:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return False
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._taken:
                        self.take(size)
                    self._parts.append(part)
                    self._complete = not message.get("more_body", False)
        except TimeoutError:
            why = f"the body took more than {seconds:g} s to come"
            raise RefusedError(408, why, code="body_too_slow") from None
        return True

    async def pass_over(self) -> None:
        """Reads what still comes, and keeps none of it: most clients listen only when they have sent all."""
        self._parts.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)

    async def replay(self) -> Message:
        """What the application receives."""
        if self._parts:
            body = b"".join(self._parts)
            self._parts.clear()
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()

    def until_answered(self, send: Send) -> Send:
        """``send``, with which the body's room becomes free."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.release()
            await send(message)

        return sending


def parse_keys(given: Sequence[str]) -> tuple[str, ...]:
    """Raises: ``ValueError`` for a key that no client could send."""
    for key in given:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("an API key must be printable ASCII without blanks")
    return tuple(given)
