"""What one request may cost, and all of them together. Each limit has an error of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class ServerLimits:
    """Sizes in bytes, times in seconds.

    ``waiting_answers`` is how many answers may wait for the engine beside those under way; one more is told to come
    back later. ``all_body_bytes`` and ``all_image_tokens`` bound what all requests together bring, in the same way.
    ``new_tokens`` is how long an answer grows that is not told otherwise, ``thinking_new_tokens`` with a thought.
    """

    connections: int = 1024
    header_seconds: float = 15.0  # for the lines before a body, from the first byte on
    body_bytes: int = 64 * 2**20
    body_seconds: float = 60.0
    all_body_bytes: int = 512 * 2**20
    send_seconds: float = 60.0  # for a client to take what it is sent
    messages: int = 2048
    pictures: int = 32
    picture_bytes: int = 20 * 2**20
    picture_pixels: int = 50_000_000
    picture_seconds: float = 20.0
    picture_memory: int = 2 * 2**30  # of each process that opens pictures
    picture_processes: int = 2
    fetch_seconds: float = 10.0
    fetch_redirects: int = 3
    fetch_private: bool = False
    all_image_tokens: int = 65536
    answers: int = 16  # n, and prompts of one request together
    schema_bytes: int = 256 * 2**10
    tools: int = 128
    new_tokens: int = 4096
    thinking_new_tokens: int = 32768
    waiting_answers: int = 64
    step_seconds: float = 900.0  # after which a step counts as stuck
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and value <= 0:
                raise ValueError(f"limit {field.name} must be above 0, not {value}")

    def changed(self, settings: Sequence[str]) -> ServerLimits:
        """With ``NAME=VALUE`` of each of ``settings``.

        Raises: ``ValueError`` naming the one that is no limit, or no value for it.
        """
        limits = self
        for setting in settings:
            name, _, text = setting.partition("=")
            known = [field.name for field in fields(self)]
            if name not in known:
                raise ValueError(f"there is no limit {name!r}; known are {', '.join(known)}")
            kind = type(getattr(self, name))
            try:
                value = _WORDS[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
                raise ValueError(f"limit {name} must be {what}, not {text!r}") from None
            limits = replace(limits, **{name: value})
        return limits
