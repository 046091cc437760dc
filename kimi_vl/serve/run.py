"""The process of a server: its socket, its patience with slow clients, and its end.

uvicorn speaks HTTP; what is added to it here is a bound on connections and on the time for a request's first lines, and
an end in which whoever is being answered is answered first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.service import Service

# Longer than clients and proxies keep a connection (5 to 60 s): it must be closed by the one who would use it again.
_KEEP_ALIVE = 75  # seconds
_LAST_WORDS = 5.0  # seconds, for those who are told that they will not be answered


def listening_socket(host: str, port: int) -> socket.socket:
    """Bound, but not yet open: a port that is taken is found out before a model is loaded.

    Raises: ``ValueError``.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sends small answers at once only from sockets that say what protocol they speak
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host}, port {port}: {error}; choose others by --host and --port") from None
    return bound


def run(app: FastAPI, service: Service, bound: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    limits = service.limits
    config = uvicorn.Config(
        app,
        http=_protocol(limits),
        ws="none",
        loop="asyncio",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.drain_seconds + _LAST_WORDS),
    )
    # each request that is not HTTP would be a line
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _Server(config, service, on_ready).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Tells the service when the end begins."""

    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.admission.draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._service.limits.drain_seconds, self._service.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()


def _protocol(limits: ServerLimits) -> type[H11Protocol]:
    class Impatient(H11Protocol):
        """A connection that is closed if a request's first lines do not come to their end in time."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self._until_headers: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._forget()
            elif self._until_headers is None:
                self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _expect_headers(self) -> None:
            self._until_headers = self.loop.call_later(limits.header_seconds, self._too_late)

        def _too_late(self) -> None:
            self._until_headers = None
            if not self._is_answering():
                self.transport.close()

        def _forget(self) -> None:
            if self._until_headers is not None:
                self._until_headers.cancel()
                self._until_headers = None

    return Impatient
