"""The one shape that every refusal has over HTTP: that of OpenAI's interface, which clients know how to read."""

from __future__ import annotations

import re

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_PLACE = re.compile(r"(?:messages|input|tools|stop|logit_bias)(?:\[\d+\]|\.\w+)*")


class RefusedError(Exception):
    """An answer that is none: a status, a sentence for people, a code for programs."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return _TYPES.get(self.status, default)

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def refused_for(error: ValueError, *, code: str = "invalid_value") -> RefusedError:
    """What the package found wrong, as a 400. The place that a message begins with becomes its ``param``."""
    place = _PLACE.match(str(error))
    return RefusedError(400, str(error), code=code, param=None if place is None else place[0])
