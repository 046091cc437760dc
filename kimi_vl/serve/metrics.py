"""What a server tells Prometheus. Numbers only: nothing of what is asked or answered."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"kimi_vl_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"kimi_vl_{name}", what, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests that were answered, by route.", "route")
        self.errors = counter("errors", "Requests that were refused or failed, by code.", "code")
        self.abandoned = counter("abandoned_requests", "Requests whose client left before the end.")
        self.finished = counter("finished_answers", "Answers that came to their end, by its reason.", "reason")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts, those of pictures included.")
        self.image_tokens = counter("image_tokens", "Tokens of pictures in prompts.")
        self.cached_tokens = counter("cached_prompt_tokens", "Tokens of prompts that were found in the cache.")
        self.generated_tokens = counter("generated_tokens", "Tokens of answers, thoughts included.")
        self.reasoning_tokens = counter("reasoning_tokens", "Tokens of thoughts.")
        self.pictures = counter("pictures", "Pictures that were read, by what came of it.", "outcome")
        self.picture_seconds = histogram("picture_seconds", "From a picture's URL or file to its pixels.", _SECONDS)
        self.queue_seconds = histogram("queue_seconds", "From the pictures' pixels to the first step.", _SECONDS)
        self.first_token_seconds = histogram(
            "time_to_first_token_seconds", "From a request's last byte to its first token.", _SECONDS
        )
        self.token_seconds = histogram(
            "time_per_output_token_seconds", "Between an answer's tokens, on average of each answer.", _FAST
        )
        self.request_seconds = histogram(
            "request_seconds", "From a request's last byte to its answer's last.", _SECONDS
        )
        self.step_seconds = histogram("engine_step_seconds", "Of one step of the engine.", _FAST)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is shown."""
        Gauge(f"kimi_vl_{name}", what, registry=self._registry).set_function(value)

    def shown(self) -> bytes:
        return generate_latest(self._registry)
