"""Tokens to text: nothing of a stop string, nothing that is taken back, however the text is cut into tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_vl import KimiVLProcessor
from kimi_vl.sampling import Drawn, FinishReason, SamplingParams
from kimi_vl.transcript import StopStrings, Transcript

TOKENIZER = KimiVLProcessor.from_pretrained("nano").tokenizer
BYTE_IDS = {TOKENIZER.decode_bytes([i]): i for i in range(TOKENIZER.n_base)}


def cut_at_first(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """By the definition: as the text grows, the first to be there whole; of several, the longest."""
    for end in range(1, len(text) + 1):
        there = [s for s in stop if text[:end].endswith(s)]
        if there:
            longest = max(there, key=len)
            return text[: end - len(longest)], longest
    return text, None


def transcribe(pieces: list[str], *, stop: tuple[str, ...], finish: FinishReason = "stop") -> tuple[Transcript, str]:
    """Every byte is a token of its own, so characters are split over tokens too; what was streamed comes second."""
    ids = [BYTE_IDS[bytes([byte])] for piece in pieces for byte in piece.encode()]
    transcript, streamed = Transcript(TOKENIZER, SamplingParams(stop=stop)), ""
    for place, token in enumerate(ids, start=1):
        streamed += transcript.push(Drawn(token, finish=finish if place == len(ids) else None))
        if transcript.finish_reason is not None:
            break
    return transcript, streamed


@given(
    pieces=st.lists(st.text("abé", max_size=4), max_size=8),
    stop=st.lists(st.text("abé", min_size=1, max_size=4), max_size=3).map(tuple),
)
@settings(max_examples=300)
def test_the_first_stop_string_ends_the_text_however_it_is_cut(pieces: list[str], stop: tuple[str, ...]) -> None:
    strings = StopStrings(stop)
    out = ""
    for piece in pieces:
        out += strings.push(piece)
        assert cut_at_first("".join(pieces), stop)[0].startswith(out)
        if strings.found is not None:
            break
    out += strings.flush()
    assert (out, strings.found) == cut_at_first("".join(pieces), stop)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "found"),
    [
        ("one\n\ntwo", ("\n\n",), "one", "\n\n"),
        ("a日本b", ("本",), "a日", "本"),
        ("😀😁😂", ("😁😂",), "😀", "😁😂"),
        ("aab", ("ab", "aab"), "", "aab"),
        ("abcd", ("abcd", "bc"), "a", "bc"),
        ("abcab", ("abcabd",), "abcab", None),
        ("END", ("END",), "", "END"),
    ],
)
def test_a_text_ends_before_a_stop_string(text: str, stop: tuple[str, ...], expected: str, found: str | None) -> None:
    transcript, streamed = transcribe([text], stop=stop, finish="length")
    assert streamed == transcript.text == expected
    assert transcript.stop_string == found
    assert transcript.finish_reason == ("length" if found is None else "stop")


def test_what_looked_like_a_stop_string_is_given_as_soon_as_it_is_none() -> None:
    strings = StopStrings(("<end>",))
    assert [strings.push(piece) for piece in ("a<", "en", "de", "<", "end>")] == ["a", "", "<ende", "", ""]
    assert strings.found == "<end>"


def test_half_a_character_at_the_end_is_still_text() -> None:
    half = [BYTE_IDS[bytes([byte])] for byte in b"a\xe6"]
    transcript = Transcript(TOKENIZER, SamplingParams(stop=("b",)))
    assert transcript.push(Drawn(half[0])) + transcript.push(Drawn(half[1], finish="length")) == "a\ufffd"


def test_an_end_token_gives_what_was_held_back() -> None:
    a = BYTE_IDS[b"a"]
    transcript = Transcript(TOKENIZER, SamplingParams(stop=("ab",)))
    assert transcript.push(Drawn(a)) == ""
    assert transcript.push(Drawn(TOKENIZER.im_end_id, finish="stop")) == "a"
    assert (transcript.finish_reason, transcript.stop_string) == ("stop", None)
