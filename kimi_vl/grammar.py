"""What an answer is allowed to be: JSON of a schema, a regular expression, one of several texts.

A :class:`Grammar` is made once for a tokenizer, by llguidance, and is refused there and then if it cannot be followed.
Each answer follows it by a :class:`Matcher` of its own: ids in, and out a mask of the ids that may come next. Special
tokens are never among them, but for the end tokens, where the text may end. Knows nothing of logits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kimi_vl.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# A blank, or a new line that is indented: in the library's own, which has no end, a model that indents for ever would
# never come to the next word, and one of 64 characters takes hundreds of tokens at every comma.
_WHITESPACE = r"\x20|\x0D?\x0A[\x20\x09]{0,32}"


class Grammar:
    """Every text that an answer may be. Shared by any number of answers.

    The first one of a tokenizer takes about a second with the official vocabulary, any other some milliseconds.
    """

    def __init__(self, tokenizer: Tokenizer, definition: str, *, name: str) -> None:
        """``definition`` as llguidance has it; ``name`` is what an error calls it. Raises ``ValueError``."""
        self.vocab_size = tokenizer.vocab_size
        self._tokenizer = _vocabulary(tokenizer)
        self._definition = definition
        if fault := self._new().get_error():
            raise ValueError(f"{name} cannot be followed: {_short(fault)}")

    @classmethod
    def json_schema(cls, tokenizer: Tokenizer, schema: Mapping[str, Any]) -> Grammar:
        """JSON that a schema describes. A keyword that cannot be kept to is refused, never passed over.

        Raises: ``ValueError`` naming the fault.
        """
        from llguidance import LLMatcher

        if not isinstance(schema, Mapping):
            raise ValueError(f"the JSON schema must be an object, not {schema!r}")
        try:
            text = json.dumps(schema)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the JSON schema is no JSON: {error}") from error
        defaults: Any = {"whitespace_pattern": _WHITESPACE}
        return cls(tokenizer, LLMatcher.grammar_from_json_schema(text, defaults), name="the JSON schema")

    @classmethod
    def json_object(cls, tokenizer: Tokenizer) -> Grammar:
        """Any JSON object."""
        return cls.json_schema(tokenizer, {"type": "object"})

    @classmethod
    def regex(cls, tokenizer: Tokenizer, pattern: str) -> Grammar:
        """What ``pattern`` matches from first to last character, in the syntax of Rust's ``regex`` crate.

        Raises: ``ValueError`` naming the fault.
        """
        from llguidance import LLMatcher

        return cls(tokenizer, LLMatcher.grammar_from_regex(pattern), name=f"the regular expression {pattern!r}")

    @classmethod
    def choice(cls, tokenizer: Tokenizer, options: Sequence[str]) -> Grammar:
        """One of ``options``. Raises: ``ValueError`` if there are none, or one is empty."""
        from llguidance import LLMatcher

        if not options or isinstance(options, str) or not all(options):
            raise ValueError(f"a choice needs one or more texts, none of them empty, not {options!r}")
        lark = "start: " + " | ".join(map(json.dumps, options))
        return cls(tokenizer, LLMatcher.grammar_from_lark(lark), name="the choice")

    @classmethod
    def calls(
        cls,
        tokenizer: Tokenizer,
        functions: Mapping[str, Mapping[str, Any]],
        *,
        before: str,
        after: str,
        many: bool,
        otherwise: Mapping[str, Any] | None = None,
    ) -> Grammar:
        """``{"name": …, "arguments": …}`` of one of ``functions``, between two marks; with ``many``, one or more lines.

        ``functions`` has the JSON schema of each one's arguments. With ``otherwise``, JSON of that schema will do too.
        Raises: ``ValueError`` naming the fault.
        """
        from llguidance import LLMatcher

        if not functions:
            raise ValueError("there is no function that may be called")
        names = [f"call_{i}" for i in range(len(functions))]
        start = 'call ("\\n" call)*' if many else "call"
        if otherwise is not None:
            start += " | otherwise"
        rules = [f"start: {start}", "call: " + " | ".join(names)]
        if otherwise is not None:
            rules.append(f"otherwise: %json {_with_bounded_blanks(otherwise)}")
        for rule, (name, schema) in zip(names, functions.items(), strict=True):
            head = f'{before}{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
            rules += [
                f"{rule}: {json.dumps(head)} arguments_{rule} {json.dumps('}' + after)}",
                f"arguments_{rule}: %json {_with_bounded_blanks(schema)}",
            ]
        return cls(tokenizer, LLMatcher.grammar_from_lark("\n".join(rules)), name="a function's schema")

    def matcher(self) -> Matcher:
        return Matcher(self._new(), self.vocab_size)

    def _new(self) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        return LLMatcher(self._tokenizer, self._definition, log_level=0, limits=LLParserLimits(verbose_errors=False))


class Matcher:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> Tensor:
        """[V] bool: what may come next. Never nothing: after a failure it is the end tokens."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self._vocab_size].astype(bool))

    def accept(self, token: int) -> None:
        """Goes on by one of the allowed."""
        self._matcher.consume_token(token)

    def forced(self) -> list[int]:
        """The ids of the text that must come next, cut as the tokenizer cuts it; other cuts may be allowed too."""
        return self._matcher.compute_ff_tokens()

    @property
    def complete(self) -> bool:
        """Whether nothing but an end may come."""
        return self._matcher.is_stopped()

    @property
    def failed(self) -> bool:
        """Whether the grammar grew past the library's limits; what was said so far kept to it."""
        return self._matcher.is_error()


class _Vocabulary:
    """A tokenizer as llguidance asks for it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.im_end_id
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.decode_bytes([i], skip_special=False) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = list(range(tokenizer.n_base, tokenizer.vocab_size))
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode())


@lru_cache(maxsize=4)  # a second for the official vocabulary
def _vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    ends = list(tokenizer.end_ids)
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)), n_vocab=tokenizer.vocab_size, eos_token=ends)


def _with_bounded_blanks(schema: Mapping[str, Any]) -> str:
    return json.dumps({"x-guidance": {"whitespace_pattern": _WHITESPACE}} | dict(schema))


def _short(fault: str) -> str:
    """The sentence that matters of a message of several lines."""
    of_regex = re.search(r"^error: (.+)$", fault, re.MULTILINE)
    return of_regex[1] if of_regex else fault.splitlines()[0].split("(in regex): ")[-1]
