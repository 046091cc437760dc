"""One answer's tokens to its text, as it grows: whole characters only, and nothing from a stop string on.

In: :class:`~kimi_vl.sampling.Drawn`, in order. Out: pieces of text that stay as they are. Knows nothing of who draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from kimi_vl.sampling import Drawn, FinishReason, SamplingParams
from kimi_vl.tokenizer import StreamDecoder, Tokenizer


class StopStrings:
    """Ends a text before the stop string that is complete first, the longest of several that end together.

    The text comes in pieces, and how it is cut changes nothing: what may yet become a stop string is held back.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.found: str | None = None
        self._stop = stop
        self._borders = [_borders(string) for string in stop]
        self._matched = [0] * len(stop)  # so many characters of each stand at the end of the text
        self._held = ""

    def push(self, piece: str) -> str:
        """What is certain to be text after this piece."""
        text = self._held + piece
        for end, character in enumerate(piece, start=len(self._held) + 1):
            self._step(character)
            complete = [s for s, matched in zip(self._stop, self._matched, strict=True) if matched == len(s)]
            if complete:
                self.found = max(complete, key=len)
                self._held = ""
                return text[: end - len(self.found)]
        certain = len(text) - max(self._matched, default=0)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """What was held back, when no more comes."""
        held, self._held = self._held, ""
        return held

    def _step(self, character: str) -> None:
        for i, (string, borders) in enumerate(zip(self._stop, self._borders, strict=True)):
            matched = self._matched[i]
            while matched and string[matched] != character:
                matched = borders[matched - 1]
            self._matched[i] = matched + (string[matched] == character)


def _borders(string: str) -> list[int]:
    """For each beginning of ``string``, how long the longest shorter one is that it ends with (Knuth–Morris–Pratt)."""
    borders = [0]
    for character in string[1:]:
        border = borders[-1]
        while border and string[border] != character:
            border = borders[border - 1]
        borders.append(border + (string[border] == character))
    return borders


class Transcript:
    """What one answer has become so far."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.tokens: list[Drawn] = []  # all that were drawn, those of a stop string and an end token included
        self.finish_reason: FinishReason | None = None
        self._decoder = StreamDecoder(tokenizer)
        self._stop = StopStrings(params.stop)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def stop_string(self) -> str | None:
        """Which one ended the answer."""
        return self._stop.found

    def push(self, token: Drawn) -> str:
        """What the text grows by, perhaps nothing. Once there is a finish reason, no more tokens may follow."""
        assert self.finish_reason is None
        self.tokens.append(token)
        piece = self._stop.push(self._decoder.push(token.id))
        if token.finish is not None and self._stop.found is None:
            piece += self._stop.push(self._decoder.flush())
            piece += self._stop.flush()
        self.finish_reason = token.finish if self._stop.found is None else "stop"
        self._pieces.append(piece)
        return piece
