"""Who may come in: as many as wait in bearable time, and no more pictures than memory holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kimi_vl.serve.errors import RefusedError

_LONGEST_WAIT = 60  # seconds that a client is told to wait at most


@dataclass
class Ticket:
    """What one request takes up, from its first byte to its last token."""

    answers: int
    image_tokens: int = 0


class Admission:
    """Counts answers and image tokens of all requests that have come in."""

    def __init__(self, *, most_running: int, most_waiting: int, most_image_tokens: int) -> None:
        self._most_running = most_running
        self._most_answers = most_running + most_waiting
        self._most_image_tokens = most_image_tokens
        self._seconds = 1.0  # of one answer, lately
        self.answers = 0
        self.image_tokens = 0
        self.draining = False

    @contextmanager
    def enter(self, answers: int) -> Iterator[Ticket]:
        """Raises: ``RefusedError`` with 429 if too many are in, with 503 if the server is about to end."""
        if self.draining:
            raise RefusedError(503, "the server is shutting down", code="shutting_down", retry_after=5)
        if answers > self._most_answers:
            raise RefusedError(
                400, f"n is {answers}, but at most {self._most_answers} answers can wait here", code="too_many_answers"
            )
        if self.answers + answers > self._most_answers:
            raise self._full(f"{self.answers} answers are under way or wait, and {self._most_answers} may")
        ticket = Ticket(answers)
        self.answers += answers
        try:
            yield ticket
        finally:
            self.answers -= answers
            self.image_tokens -= ticket.image_tokens

    def take_pictures(self, ticket: Ticket, image_tokens: int) -> None:
        """Raises: ``RefusedError`` with 429 if others leave too little room, with 400 if there never was enough."""
        if image_tokens > self._most_image_tokens:
            raise RefusedError(
                400,
                f"the pictures have {image_tokens} tokens, and a request may have {self._most_image_tokens}: "
                "send fewer or smaller ones",
                code="too_many_image_tokens",
            )
        if self.image_tokens + image_tokens > self._most_image_tokens:
            raise self._full(f"pictures of {self.image_tokens} tokens wait, and {self._most_image_tokens} may")
        ticket.image_tokens += image_tokens
        self.image_tokens += image_tokens

    def answered(self, seconds: float) -> None:
        """Learns how long an answer takes."""
        self._seconds += 0.1 * (seconds - self._seconds)

    def _full(self, why: str) -> RefusedError:
        wait = math.ceil(self._seconds * max(1, self.answers - self._most_running) / self._most_running)
        return RefusedError(
            429, f"{why}; try again later", code="overloaded", retry_after=min(max(1, wait), _LONGEST_WAIT)
        )
