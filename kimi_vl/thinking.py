"""How a thinking model's answer goes: its thought between its marks, never without end, and then what it says.

In: ids of one answer, one by one. Out: which may come next, as :class:`kimi_vl.grammar.Matcher` says it. The model
opens its thought because it is left nothing else to say; the thought closes by itself, or when its budget is spent, or
when it goes round in circles; and then something is said before the end. A grammar holds for what is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import torch
from torch import Tensor

from kimi_vl.grammar import Grammar, Matcher
from kimi_vl.tokenizer import StreamDecoder, Tokenizer

# A thought is stuck if its last tokens are the same piece five times over, and so many of them at least.
_TIMES = 5
_LEAST_TOKENS = 200
_LONGEST_PIECE = 256


@dataclass(frozen=True, eq=False)
class Thinking:
    """The rules of one request, which any number of its answers may share.

    ``budget`` is how many tokens the thought may have, its marks not counted; with 0 there is none, and with ``None``
    no bound. ``ends`` is what closes a thought beside its mark and already belongs to what is said, such as the
    beginning of a call.
    """

    tokenizer: Tokenizer
    opening: str
    closing: str
    budget: int | None = None
    ends: tuple[str, ...] = ()
    then: Grammar | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"the thinking budget must be 0 (none) or more, not {self.budget}")

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def matcher(self) -> ThinkingMatcher:
        return ThinkingMatcher(self)


class _State(Enum):
    OPENING = auto()
    THOUGHT = auto()
    CLOSING = auto()
    ANSWER = auto()


class ThinkingMatcher:
    """How far one answer has come."""

    def __init__(self, rules: Thinking) -> None:
        self._rules = rules
        marks = rules.opening + rules.closing if rules.budget == 0 else rules.opening
        self._state = _State.OPENING
        self._must: list[int] = rules.tokenizer.encode(marks)  # what is left of a mark that has to be written
        self._thought = 0  # tokens
        self._decoder = StreamDecoder(rules.tokenizer)
        self._tail = ""
        self._circles = _Circles()
        self._matcher: Matcher | None = None
        self._has_said = False

    def allowed(self) -> Tensor | None:
        """[V] bool; ``None`` is everything."""
        if self._must:
            mask = torch.zeros(self._rules.vocab_size, dtype=torch.bool)
            mask[self._must[0]] = True
            return mask
        if self._state is _State.ANSWER:
            if self._matcher is not None:
                return self._matcher.allowed()
            if self._has_said:
                return None
        mask = torch.ones(self._rules.vocab_size, dtype=torch.bool)
        mask[list(self._rules.tokenizer.end_ids)] = False
        return mask

    def accept(self, token: int) -> None:
        if self._state is _State.ANSWER:
            self._has_said = True
            if self._matcher is not None:
                self._matcher.accept(token)
        elif self._must:
            self._must = self._must[1:]
            if not self._must:
                self._marked()
        else:
            self._think(token)

    def forced(self) -> Sequence[int]:
        """The ids that must come next."""
        if self._must:
            return self._must
        return [] if self._matcher is None else self._matcher.forced()

    @property
    def complete(self) -> bool:
        return self._matcher is not None and self._matcher.complete

    @property
    def failed(self) -> bool:
        return self._matcher is not None and self._matcher.failed

    def _marked(self) -> None:
        """A mark has been written."""
        if self._state is _State.OPENING and self._rules.budget != 0:
            self._state = _State.THOUGHT
        else:
            self._answer()

    def _think(self, token: int) -> None:
        self._thought += 1
        self._circles.add(token)
        ends = (self._rules.closing, *self._rules.ends)
        longest = max(map(len, ends))
        text = self._tail + self._decoder.push(token)
        if any(end in text for end in ends):
            self._answer()
            return
        self._tail = text[-longest:]
        if self._thought == self._rules.budget or self._circles.closed:
            self._state = _State.CLOSING
            self._must = self._rules.tokenizer.encode(self._rules.closing)

    def _answer(self) -> None:
        self._state = _State.ANSWER
        if self._rules.then is not None:
            self._matcher = self._rules.then.matcher()


class _Circles:
    """Whether the last tokens are one piece over and over."""

    def __init__(self) -> None:
        self._last = np.full(_LONGEST_PIECE, -1)  # the newest first
        self._same = np.zeros(_LONGEST_PIECE, np.int64)  # tokens in a row that equal the one a piece before them
        pieces = np.arange(1, _LONGEST_PIECE + 1)
        self._enough = np.maximum(_LEAST_TOKENS, _TIMES * pieces) - pieces

    def add(self, token: int) -> None:
        self._same = np.where(self._last == token, self._same + 1, 0)
        self._last = np.concatenate(([token], self._last[:-1]))

    @property
    def closed(self) -> bool:
        return bool((self._same >= self._enough).any())
