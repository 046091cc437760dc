"""One request's tokens as an iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kimi_vl.sampling import Drawn

if TYPE_CHECKING:
    from kimi_vl.engine.engine import Engine


class TokenStream:
    """The tokens of one request that was added to an engine.

    Asking for the next one makes the engine step, for all who are in it, until it is there; several streams of one
    engine may be read in any order. Closing a stream, or letting it go, cancels its request.
    """

    def __init__(self, engine: Engine, request_id: str) -> None:
        self._engine = engine
        self._request_id = request_id
        self._tokens: deque[Drawn] = deque()
        engine.listen(request_id, self._tokens.append)

    def __iter__(self) -> Iterator[Drawn]:
        return self

    def __next__(self) -> Drawn:
        while not self._tokens:
            if (error := self._engine.failure(self._request_id)) is not None:
                raise error
            if not self._engine.holds(self._request_id):
                raise StopIteration
            self._engine.step()
        return self._tokens.popleft()

    def close(self) -> None:
        self._tokens.clear()
        self._engine.cancel(self._request_id)

    def __del__(self) -> None:
        self.close()
