"""From --json-schema, --regex and --choice to a grammar."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kimi_vl.grammar import Grammar
    from kimi_vl.tokenizer import Tokenizer


@dataclass(frozen=True)
class Structure:
    """What an answer must be: one of these at most.

    Raises: ``ValueError`` if it is more, or the schema's file holds none.
    """

    json_schema: Path | None
    regex: str | None
    choice: list[str] | None

    def __post_init__(self) -> None:
        given = [option for option in (self.json_schema, self.regex, self.choice or None) if option is not None]
        if len(given) > 1:
            raise ValueError("give one of --json-schema, --regex and --choice: an answer has one form")
        if self.json_schema is not None:
            self._schema(self.json_schema)

    def grammar(self, tokenizer: Tokenizer) -> Grammar | None:
        """Raises: ``ValueError`` naming the fault if it cannot be followed."""
        from kimi_vl.grammar import Grammar

        if self.json_schema is not None:
            return Grammar.json_schema(tokenizer, self._schema(self.json_schema))
        if self.regex is not None:
            return Grammar.regex(tokenizer, self.regex)
        return Grammar.choice(tokenizer, self.choice) if self.choice else None

    def _schema(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"--json-schema {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"--json-schema {path} is no JSON: {error}") from error
