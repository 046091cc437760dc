"""Thoughts on the command line: what is wished for, and an answer written with its thought folded to one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_vl.marks import marks_of, thinks_first

if TYPE_CHECKING:
    from kimi_vl.answer import Reply
    from kimi_vl.grammar import Grammar
    from kimi_vl.parts import Part
    from kimi_vl.sampling import SamplingParams
    from kimi_vl.thinking import Thinking as Rules
    from kimi_vl.tokenizer import Tokenizer

TOKENS, TOKENS_WITH_THOUGHT = 512, 8192  # of an answer, if nothing is said
_FOLDED = 60  # characters of a thought that are shown of it


@dataclass(frozen=True)
class Thinking:
    """``thinks`` is by the model's name if not given. Raises: ``ValueError`` for a budget of what does not think."""

    model: str
    wished: bool | None
    budget: int | None
    shown: bool

    def __post_init__(self) -> None:
        if self.thinks:
            return
        for given, option in ((self.budget is not None, "--thinking-budget"), (self.shown, "--show-thought")):
            if given:
                raise ValueError(f"{option} is given, but this model does not think (--thinking says that it does)")

    @property
    def thinks(self) -> bool:
        return thinks_first(self.model) if self.wished is None else self.wished

    @property
    def usual_tokens(self) -> int:
        return TOKENS_WITH_THOUGHT if self.thinks else TOKENS

    @property
    def holds(self) -> bool:
        """Whether an answer must have a thought, or must not though the model would think."""
        return self.thinks or thinks_first(self.model)

    def params(self, params: SamplingParams, tokenizer: Tokenizer, folder: Path) -> SamplingParams:
        """What the answer must keep to, a thought before all else. Its stop strings are looked for behind that.

        A model that would think by itself is kept from it by a thought without a word.
        """
        from kimi_vl.grammar import Grammar

        if not self.holds:
            return params
        assert params.grammar is None or isinstance(params.grammar, Grammar)
        return replace(params, grammar=self.rules(tokenizer, folder, params.grammar), stop=())

    def rules(self, tokenizer: Tokenizer, folder: Path, then: Grammar | None = None) -> Rules:
        from kimi_vl.thinking import Thinking as Rules

        return Rules(tokenizer, *marks_of(folder), self.budget if self.thinks else 0, then=then)


@dataclass(frozen=True)
class Spoken:
    """An answer in its parts; without a thought where none was thought."""

    said: str
    thought: str | None


class Speaker:
    """Writes an answer as it grows: what is said to stdout, of the thought one line to stderr, or all of it."""

    def __init__(self, thinking: Thinking, folder: Path, stop: Sequence[str], *, quiet: bool = False) -> None:
        from kimi_vl.parts import Marks, PartsParser

        # Else they were looked for as the text came.
        stop = stop if thinking.holds else ()
        self._parser = PartsParser(Marks(*marks_of(folder)), thinks=thinking.thinks, calls=False, stop=stop)
        self._shown, self._quiet = thinking.shown, quiet
        self._thought: list[str] = []
        self._said: list[str] = []
        self._held = ""  # the ends of lines, of which the last is the answer's only one

    def speak(self, reply: Reply) -> Spoken:
        """Until its end, or a stop string behind the thought."""
        for piece in reply:
            self._take(self._parser.push(piece), len(reply.tokens))
            if self._parser.stop_string is not None:
                reply.end(self._parser.stop_string)
                break
        else:
            self._take(self._parser.flush(), len(reply.tokens))
        self._fold(len(reply.tokens))
        if not self._quiet:
            print(flush=True)
        thought = "".join(self._thought) or None
        return Spoken("".join(self._said), thought)

    def _take(self, parts: Sequence[Part], tokens: int) -> None:
        from kimi_vl.parts import Said, Thought

        for part in parts:
            if isinstance(part, Thought):
                self._thought.append(part.text)
                if self._shown and not self._quiet:
                    print(part.text, end="", file=sys.stderr, flush=True)
            elif isinstance(part, Said):
                self._fold(tokens)
                self._said.append(part.text)
                self._write(part.text)

    def _fold(self, tokens: int) -> None:
        """When the thought is over."""
        if not self._thought or self._said or self._quiet:
            return
        if self._shown:
            print("\n", file=sys.stderr, flush=True)
            return
        words = " ".join("".join(self._thought).split())
        first = words if len(words) <= _FOLDED else f"{words[:_FOLDED].rstrip()}…"
        print(f"thought: {first} ({tokens} tokens; --show-thought shows all)", file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        if self._quiet:
            return
        text = self._held + text
        body = text.rstrip("\n")
        self._held = text[len(body) :]
        print(body, end="", flush=True)
