"""The same server on several processes or machines, by Ray Serve.

    client ─→ Front (keys, body, which conversation) ─→ affinity ─→ Replica (engine and application, as on one machine)

A conversation goes to the replica that has read it before: its prefix and its pictures are in that one's cache. When a
replica dies, only its conversations move, and only what it was answering is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from starlette.types import Message, Receive, Scope, Send

from kimi_vl.serve import replica_views
from kimi_vl.serve.app import create_app
from kimi_vl.serve.errors import RefusedError
from kimi_vl.serve.guard import Guard, Keys
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.opening import Wishes
from kimi_vl.serve.replica_views import Figures, view
from kimi_vl.serve.service import Service
from kimi_vl.serve.wire import ClientGoneError, event, json_response, unless_gone

_PASSED_ON = ("method", "path", "query_string", "headers", "http_version", "scheme", "client", "server")
_HTTP = {"type": "http", "asgi": {"version": "3.0"}, "root_path": ""}
_DIED = "the replica that answered this has died; try again"


@dataclass(frozen=True)
class ClusterOptions:
    """``least`` and ``most`` replicas; between them as many as have ``ongoing`` requests each. ``cpus`` of each."""

    least: int
    most: int
    ongoing: int
    cpus: float

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise ValueError(f"--max-replicas is {self.most}, fewer than the {self.least} of --replicas")


def conversation_key(path: str, body: bytes) -> str:
    """What stays the same while a conversation grows: its first pictures, or else its first words."""
    try:
        raw = json.loads(body)
        turns = raw.get("messages") or raw.get("input") or raw.get("prompt") or ""
    except (ValueError, AttributeError, RecursionError):
        return ""
    if isinstance(turns, str) or not isinstance(turns, list):
        return _digest(str(turns)[:256])
    first: list[Any] = []
    for turn in turns:
        first.append(turn)
        if isinstance(turn, Mapping) and turn.get("role") == "user":
            break
    pictures = [part for turn in first for part in _parts(turn) if _is_shown(part)]
    return _digest(json.dumps(pictures or first, sort_keys=True))


def _parts(turn: object) -> Sequence[object]:
    content = turn.get("content") if isinstance(turn, Mapping) else None
    return content if isinstance(content, list) else []


def _is_shown(part: object) -> bool:
    return isinstance(part, Mapping) and not isinstance(part.get("text"), str)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


class AffinityRouter(RequestRouter):
    """Replicas in an order of each conversation's own (rendezvous hashing): the next one is asked if one is full."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        replica_views.TOLD.clear()
        replica_views.TOLD.update({each.replica_id.unique_id: Figures(**each.routing_stats) for each in replicas})

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        key = "" if pending_request is None or not pending_request.args else str(pending_request.args[0])
        return [[replica] for replica in ranked(candidate_replicas, key, lambda each: str(each.replica_id))]


def ranked(replicas: Sequence[Any], key: str, name: Callable[[Any], str]) -> list[Any]:
    """The best first. When one comes or goes, the order of the others stays."""
    return sorted(replicas, key=lambda replica: _digest(f"{key}/{name(replica)}"))


class Replica:
    """One engine with its application."""

    async def __init__(self, make: Callable[[], Service], origins: tuple[str, ...]) -> None:  # type: ignore[misc]
        self._service = await asyncio.to_thread(make)
        # who may ask was looked at in front
        self._app = create_app(self._service, keys=Keys((), loopback_only=False), origins=origins)
        await self._service.start()

    async def check_health(self) -> None:
        """Raises if it has to be replaced."""
        if self._service.status in ("stuck", "dead"):
            raise RuntimeError(f"the engine is {self._service.status}")

    def record_routing_stats(self) -> dict[str, str]:
        """Ray asks for this every few seconds; :class:`AffinityRouter` gets it."""
        return Figures.of(self._service).to_dict()

    async def answer(self, key: str, scope: dict[str, Any], body: bytes) -> AsyncIterator[Message]:
        """What the application sends. ``key`` is the router's."""
        sent: asyncio.Queue[Message | None] = asyncio.Queue()
        gone = asyncio.Event()
        received = False

        async def receive() -> Message:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(_HTTP | scope, receive, sent.put)
            finally:
                await sent.put(None)

        running = asyncio.ensure_future(run())
        try:
            while (message := await sent.get()) is not None:
                yield message
        finally:
            gone.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class _Door:
    """The application that Ray's proxy calls: it leads to the object that was made for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        front: Any = serve.get_replica_context().servable_object
        await front.guard(scope, receive, send)


@serve.ingress(_Door())
class Front:
    """Looks at who asks, reads the body, and passes it on."""

    def __init__(self, replicas: DeploymentHandle[Any], keys: Keys, limits: ServerLimits) -> None:
        self.guard = Guard(self._answer, keys=keys, limits=limits, on_refusal=lambda refused: None)
        self._replicas = replicas.options(stream=True).answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        shown = view(scope["path"], replica_views.TOLD) if scope["method"] == "GET" else None
        await (shown or self._pass_on)(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        passed = {name: scope[name] for name in _PASSED_ON if name in scope}
        passed["headers"] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        messages = self._replicas.remote(conversation_key(scope["path"], body), passed, body)
        try:
            await unless_gone(receive, _pass(messages, scope, receive, send))
        except ClientGoneError:
            pass
        finally:
            messages.cancel()


def build(
    make: Callable[[], Service], *, keys: Keys, limits: ServerLimits, origins: tuple[str, ...], options: ClusterOptions
) -> serve.Application:
    """The application for ``ray.serve.run``. ``make`` opens the model, in each replica anew."""
    replica: Any = serve.deployment(
        Replica,
        ray_actor_options={"num_cpus": options.cpus},
        max_ongoing_requests=options.ongoing * 2,
        max_queued_requests=limits.waiting_answers * options.most,
        graceful_shutdown_timeout_s=limits.drain_seconds,
        health_check_period_s=5,
        request_router_config=RequestRouterConfig(
            request_router_class=f"{__name__}.AffinityRouter",  # type: ignore[arg-type]
            request_routing_stats_period_s=2,  # type: ignore[arg-type]
        ),
        autoscaling_config={
            "min_replicas": options.least,
            "max_replicas": options.most,
            "initial_replicas": options.least,
            "target_ongoing_requests": options.ongoing,
        },
    )
    front: Any = serve.deployment(Front, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=limits.connections)
    return front.bind(replica.bind(make, origins), keys, limits)


def run_cluster(
    wishes: Wishes,
    options: ClusterOptions,
    *,
    keys: Keys,
    origins: tuple[str, ...],
    host: str,
    port: int,
    on_ready: Callable[[], None],
) -> None:
    """Serves until SIGTERM or Ctrl-C: on the cluster that ``RAY_ADDRESS`` names, or on one that is begun here."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        serve.start(http_options={"host": host, "port": port})
        application = build(wishes.open, keys=keys, limits=wishes.limits, origins=origins, options=options)
        serve.run(application, name="kimi-vl", route_prefix="/")
        on_ready()
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


async def _pass(messages: Any, scope: Scope, receive: Receive, send: Send) -> None:
    started = False
    try:
        async for message in messages:
            started = True
            await send(message)
    except (RayError, BackPressureError, DeploymentUnavailableError) as error:
        refused = _refused(error)
        if started:
            await send({"type": "http.response.body", "body": event(refused.body, "error"), "more_body": False})
        else:
            await json_response(refused.body, refused.status, refused.headers)(scope, receive, send)


def _refused(error: Exception) -> RefusedError:
    if isinstance(error, BackPressureError):
        return RefusedError(429, "all replicas are full; try again later", code="overloaded", retry_after=1)
    return RefusedError(503, _DIED, code="replica_died", retry_after=1)
