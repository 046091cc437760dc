"""Whose tokens the next step holds. Pure policy: no tensors, no model.

Every answer that is under way gets its next token in each step; what is left of the step's budget goes to prompts, in
the order in which they came. When the pages run out, the request that came last gives up its own and waits at the
head of the queue; what it has said is kept, and read again later. A request that could never fit is refused at once.
Requests that begin alike read their beginning once: while one reads a page, the next that needs it waits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from kimi_vl.engine.guess import FORCED_SHARE, how_many
from kimi_vl.engine.pages import PAGE, PagePool
from kimi_vl.engine.request import Request, Running


@dataclass(frozen=True)
class Piece:
    """The tokens ``start`` … ``start + tokens`` of one request, read in this step, and guesses at those after them."""

    running: Running
    start: int
    tokens: int
    is_prompt: bool
    guessed: tuple[int, ...] = ()

    @property
    def is_last(self) -> bool:
        """Whether a token follows from it."""
        return self.start + self.tokens == self.running.tokens


class Scheduler:
    """Requests, waiting and under way.

    ``deterministic`` keeps answers from being taken over as a part of later prompts: they were read token by token,
    which rounds in other places than reading a prompt does.
    """

    def __init__(self, pool: PagePool, *, step_tokens: int, most_running: int, deterministic: bool) -> None:
        self.pool = pool
        self.step_tokens = step_tokens
        self.most_running = most_running
        self.deterministic = deterministic
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []  # in the order in which they came

    def check(self, request: Request) -> None:
        """Raises: ``ValueError`` with the numbers if it can never run. Changes nothing, so any thread may ask."""
        pages = -(-request.most_tokens // PAGE)
        if pages > self.pool.count:
            raise ValueError(
                f"{len(request.prompt)} prompt and {request.params.max_new_tokens} new tokens need {pages} pages of "
                f"{PAGE} tokens, but the cache has {self.pool.count}: ask for fewer, or start with a larger context"
            )

    def add(self, request: Request) -> None:
        """Raises: ``ValueError`` as :meth:`check` does."""
        self.check(request)
        self.waiting.append(Running(request))

    def remove(self, running: Running) -> None:
        """Ends a request, wherever it stands, and frees all that it holds."""
        if running in self.running:
            self.running.remove(running)
        else:
            self.waiting.remove(running)
        self.pool.release(running.pages)
        running.pages = []

    def schedule(self) -> list[Piece]:
        """The pieces of the next step: those of answers first, then those of prompts. Empty if there is no work."""
        pieces: list[Piece] = []
        budget = self.step_tokens
        for running in sorted(self.running, key=lambda r: r.cached < len(r.request.prompt)):
            if running not in self.running:  # gave way to another
                continue
            piece = self._next(running, budget, may_preempt=True)
            if piece is not None:
                pieces = [p for p in pieces if p.running in self.running]
                pieces.append(piece)
                budget -= piece.tokens
        while budget > 0 and self.waiting and len(self.running) < self.most_running:
            running = self.waiting[0]
            if self._is_being_read(running):
                break
            self._take_over(running)
            piece = self._next(running, budget, may_preempt=False)
            if piece is None:
                self._drop(running)
                break
            self.waiting.popleft()
            self.running.append(running)
            running.has_begun = True
            pieces.append(piece)
            budget -= piece.tokens
        return sorted(pieces, key=lambda piece: piece.is_prompt)

    def done(self, piece: Piece, right: int = 0) -> None:
        """A piece has been read, and so many of its guesses were right: its pages are known from now on."""
        running = piece.running
        running.cached += piece.tokens + right
        known = len(running.request.prompt) if self.deterministic else running.cached
        full = min(known, running.cached) // PAGE
        keys = running.keys_of(full)
        # Only the pages that this piece filled are new.
        for i in range(piece.start // PAGE, full):
            self.pool.name(running.pages[i], keys[i])

    def with_guesses(self, pieces: list[Piece], most: int) -> list[Piece]:
        """Answers' pieces with as many guesses as pay, ``most`` at most. No page is taken for one."""
        tokens = sum(piece.tokens for piece in pieces)
        extended = []
        for piece in pieces:
            room = min(most, self.step_tokens - tokens)
            if piece.is_last and not piece.is_prompt and room > 0:
                piece = replace(piece, guessed=self._guessed(piece, tokens, room))
                tokens += len(piece.guessed)
            extended.append(piece)
        return extended

    def _guessed(self, piece: Piece, tokens: int, most: int) -> tuple[int, ...]:
        running = piece.running
        room = min(
            most,
            len(running.pages) * PAGE - running.cached - piece.tokens,
            running.request.params.max_new_tokens - len(running.answer) - 1,
        )
        if room <= 0:
            return ()
        if forced := running.sampler.forced():
            return tuple(forced[: min(room, how_many(FORCED_SHARE, tokens))])
        return tuple(running.guesses.next(room)[: how_many(running.guesses.share, tokens)])

    def _next(self, running: Running, budget: int, *, may_preempt: bool) -> Piece | None:
        """The next tokens of one request, as many as budget and pages allow; ``None`` if that is none."""
        prompt = len(running.request.prompt)
        is_prompt = running.cached < prompt
        # What was said before a request gave way is read as it was said, so that the same comes out.
        left = (prompt if is_prompt else running.tokens) - running.cached
        tokens = min(left, budget)
        if tokens <= 0:
            return None
        while len(running.pages) * PAGE < running.cached + tokens:
            page = self.pool.take()
            if page is not None:
                running.pages.append(page)
            elif not (may_preempt and self._preempt_after(running)):
                tokens = len(running.pages) * PAGE - running.cached
                break
        if tokens <= 0:
            if may_preempt:
                self._preempt(running)
            return None
        return Piece(running, running.cached, tokens, is_prompt)

    def _is_being_read(self, running: Running) -> bool:
        """Whether another request will soon know the next page of this one's prompt."""
        keys = running.prompt_keys
        next_page = len(self.pool.known(keys))
        return next_page < self._pages_to_take_over(running) and any(
            other.cached // PAGE <= next_page and other.prompt_keys[next_page : next_page + 1] == [keys[next_page]]
            for other in self.running
        )

    def _pages_to_take_over(self, running: Running) -> int:
        """One token at least of a prompt is read, for the next to follow from."""
        return (len(running.request.prompt) - 1) // PAGE

    def _take_over(self, running: Running) -> None:
        """Pages of an earlier request that began alike."""
        if running.pages:
            return
        known = self.pool.known(running.prompt_keys[: self._pages_to_take_over(running)])
        self.pool.hold(known)
        running.pages = list(known)
        running.cached = len(known) * PAGE
        if not running.has_begun:  # what it finds again after giving way was its own
            running.reused = running.cached

    def _drop(self, running: Running) -> None:
        self.pool.release(running.pages)
        running.pages, running.cached = [], 0

    def _preempt_after(self, running: Running) -> bool:
        """Takes the pages of the request that came last, if it came after this one."""
        last = self.running[-1]
        if last is running:
            return False
        self._preempt(last)
        return True

    def _preempt(self, running: Running) -> None:
        self._drop(running)
        self.running.remove(running)
        self.waiting.appendleft(running)
