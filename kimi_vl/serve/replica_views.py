"""What replicas say of themselves → one ``/metrics``, ``/health`` and ``/ready`` for all of them.

Each tells its figures every few seconds, so that looking at them neither waits for a busy one nor takes a place in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import Response

from kimi_vl.serve.answer_schema import ClusterHealth, ClusterStatus, Status
from kimi_vl.serve.service import Service
from kimi_vl.serve.wire import json_response

_AT_WORK = ("ok", "draining")


@dataclass(frozen=True)
class Figures:
    """Of one replica; ``metrics`` in Prometheus's text form."""

    status: Status = "ok"
    metrics: str = ""

    @classmethod
    def of(cls, service: Service) -> Figures:
        return cls(service.status, service.metrics.shown().decode())

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


# By name, what each said last: Ray brings it to every process that has a router. To be reached through this module, for
# Ray copies what a class of a cluster names.
TOLD: dict[str, Figures] = {}


def view(path: str, told: Mapping[str, Figures]) -> Response | None:
    """The answer for ``path``, of replicas by their names; ``None`` if it is not about all of them."""
    match path:
        case "/metrics":
            return Response(_together(told), media_type=CONTENT_TYPE_LATEST)
        case "/health":
            return _health(told, well=any(figures.status in _AT_WORK for figures in told.values()))
        case "/ready":
            return _health(told, well=any(figures.status == "ok" for figures in told.values()))
    return None


def _health(told: Mapping[str, Figures], *, well: bool) -> Response:
    states = {name: figures.status for name, figures in told.items()}
    status: ClusterStatus = "degraded" if well else "dead"
    if well and set(states.values()) == {"ok"}:
        status = "ok"
    return json_response(ClusterHealth(status=status, replicas=states), 200 if well else 503)


class _AllReplicas(Collector):
    def __init__(self, told: Mapping[str, Figures]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, figures in self._told.items():
            for family in text_string_to_metric_families(figures.metrics):
                kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    kept.add_sample(sample.name, {"replica": name, **sample.labels}, sample.value)
        yield from families.values()


def _together(told: Mapping[str, Figures]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_AllReplicas(told))
    return generate_latest(registry)
