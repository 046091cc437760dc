"""A user's JSONL file -> training samples: checked first, cut to the context, in a new order each epoch.

In: the file, and the processor of the model that learns. Out: :class:`Sample`, and a :class:`Report` of what is in it.
Of the file only where its lines begin stays in memory. Knows nothing of the model, of batches or of steps.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from kimi_vl import media
from kimi_vl.chat import Message, PicturePart, picture_parts, render
from kimi_vl.patches import cut_bytes, fit, plan_grid
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train.data.conversation_shapes import Faults, answers, conversation_of, lines_of
from kimi_vl.train.data.packing import Sample

_ROUNDS = 6  # of mixing, for an order that looks drawn
_LEAST_BITS = 3  # of each half, for orders of few lines to differ


@dataclass(frozen=True)
class Report:
    """What a file holds, at one context."""

    conversations: int  # that are learnt from
    cut: int  # of these, which lost turns at their end
    dropped: int  # beside these, whose first exchange alone is too long
    pictures: int
    tokens: int
    answers: int  # of these, which a loss sees
    longest: int  # tokens of the longest conversation of the file, uncut
    digest: str  # SHA-256 of the file: a run goes on with no other


def sample_of(
    messages: Sequence[Message],
    pictures: Sequence[Image.Image],
    processor: KimiVLProcessor,
    *,
    written: str | None = None,
) -> Sample:
    """A conversation as the chat template has it, and its pictures (RGB) as bytes, a quarter of what floats take.

    ``pictures`` stand for the picture parts, in their order. Raises ``ValueError`` if they are not as many.
    """
    parts, images = picture_parts(messages), processor.image_config
    if len(parts) != len(pictures):
        raise ValueError(f"the conversation shows {len(parts)} pictures, but {len(pictures)} are given")
    fitted = [
        fit(picture, images, min_pixels=part.min_pixels, max_pixels=part.max_pixels)
        for picture, part in zip(pictures, parts, strict=True)
    ]
    pieces = [cut_bytes(image.tobytes(), grid.h, grid.w, images) for image, grid in fitted]
    rendered = render(messages, processor.tokenizer, [grid.tokens for _, grid in fitted], add_generation_prompt=False)
    return Sample(
        torch.tensor(rendered.input_ids),
        torch.tensor(rendered.answer_mask),
        torch.cat(pieces) if pieces else None,
        torch.tensor([(grid.h, grid.w) for _, grid in fitted], dtype=torch.int64).reshape(-1, 2),
        written,
    )


def check(path: str | Path, processor: KimiVLProcessor, *, context: int, whole: bool = False) -> Report:
    """Reads all lines, and of each picture the header, or with ``whole`` all of it.

    Raises one ``ValueError`` with the faults and their lines, or if nothing fits ``context`` tokens. A conversation
    that is too long is no fault.
    """
    return _read(Path(path), processor, context, whole)[0]


class Conversations:
    """The checked conversations of a file, each as often as any other. Usable in any process, also after a fork."""

    def __init__(self, path: str | Path, processor: KimiVLProcessor, *, context: int) -> None:
        """Checks the file as :func:`check` does."""
        self.path, self.processor, self.context = Path(path), processor, context
        self.report, self._index = _read(self.path, processor, context, False)

    def __len__(self) -> int:
        """Conversations in an epoch."""
        return self.report.conversations

    def counts(self) -> dict[str, int]:
        """Conversations that were cut, and that were dropped."""
        return {"cut": self.report.cut, "dropped": self.report.dropped}

    def draw(self, seed: int, index: int) -> Sample:
        """The sample at ``index`` of an endless run of epochs: the same whenever and wherever it is asked for.

        Raises ``ValueError`` if the file or a picture is no longer what was checked.
        """
        epoch, place = divmod(index, len(self))
        chosen = place_in_epoch(place, len(self), f"{seed}/{epoch}")
        where = f"{self.path}:{self._index.numbers[chosen]}"
        with self.path.open("rb") as file:
            file.seek(self._index.offsets[chosen])
            line = file.readline()
        if _fingerprint(line) != self._index.fingerprints[chosen]:
            raise ValueError(
                f"{where}: is no longer the line that was checked: leave the file alone while it is learnt"
            )
        messages = conversation_of(line, self.path.parent)[: self._index.turns[chosen]]
        parts = picture_parts(messages)
        try:
            sample = sample_of(messages, [_opened(part, self.processor) for part in parts], self.processor)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if len(sample.input_ids) > self.context:
            raise ValueError(
                f"{where}: has {len(sample.input_ids)} tokens, over the context of {self.context}, since a picture was "
                f"changed after the check"
            )
        return sample


def place_in_epoch(place: int, count: int, key: str) -> int:
    """Which of ``count`` stands at ``place`` in the order of that ``key``: a permutation, at no memory.

    A Feistel network over a power of four, walked until it falls below ``count`` (Black and Rogaway, Ciphers with
    Arbitrary Finite Domains, 2002).
    """
    bits = max(_LEAST_BITS, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    while True:
        left, right = place >> bits, place & mask
        for number in range(_ROUNDS):
            mixed = hashlib.blake2b(f"{key}/{number}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed) & mask)
        place = left << bits | right
        if place < count:
            return place


# -- the check -------------------------------------------------------------------------------------


def _eights() -> array[int]:
    return array("Q")


@dataclass(frozen=True)
class _Index:
    """Of each conversation that is learnt from, its line in the file and the turns that are kept: 32 bytes."""

    numbers: array[int] = field(default_factory=_eights)
    offsets: array[int] = field(default_factory=_eights)
    fingerprints: array[int] = field(default_factory=_eights)
    turns: array[int] = field(default_factory=_eights)


@dataclass(frozen=True)
class _Measured:
    """A line as it will be learnt from; no turns are kept where none fits."""

    turns: int
    pictures: int
    tokens: int
    answers: int
    uncut: int  # tokens


def _read(path: Path, processor: KimiVLProcessor, context: int, whole: bool) -> tuple[Report, _Index]:
    if context < 1:
        raise ValueError(f"context must be at least 1 token, not {context}")
    index, faults, digest = _Index(), Faults(path), hashlib.sha256()
    cut = dropped = pictures = tokens = learnt = longest = 0
    for number, offset, line in lines_of(path):
        digest.update(line)
        if not line.strip():
            continue
        try:
            messages = conversation_of(line, path.parent)
            seen = _measured(messages, processor, context, whole)
        except ValueError as error:
            faults.add(number, error)
            continue
        longest = max(longest, seen.uncut)
        if not seen.turns:
            dropped += 1
            continue
        cut += seen.turns < len(messages)
        pictures, tokens, learnt = pictures + seen.pictures, tokens + seen.tokens, learnt + seen.answers
        index.numbers.append(number)
        index.offsets.append(offset)
        index.fingerprints.append(_fingerprint(line))
        index.turns.append(seen.turns)
    faults.tell()
    if not index.numbers:
        if dropped:
            raise ValueError(
                f"{path}: none of its {dropped} conversations fits a context of {context} tokens, the longest has "
                f"{longest}: allow a longer one"
            )
        raise ValueError(f"{path}: holds no conversation: write one a line")
    return Report(len(index.numbers), cut, dropped, pictures, tokens, learnt, longest, digest.hexdigest()), index


def _measured(messages: list[Message], processor: KimiVLProcessor, context: int, whole: bool) -> _Measured:
    """The longest beginning of a conversation that fits, if it is cut behind an answer."""
    parts, counts = picture_parts(messages), list[int]()
    for number, part in enumerate(parts, start=1):
        try:
            counts.append(_picture_tokens(part, processor, whole))
        except ValueError as error:
            raise ValueError(f"picture {number} of {len(parts)}: {error}") from error
    rendered = render(messages, processor.tokenizer, counts, add_generation_prompt=False)
    uncut = len(rendered.input_ids)
    turns, tokens = len(messages), uncut
    if uncut > context:
        # Only structure gives this token, so each ends a message, the first perhaps a system's that was not given.
        end = processor.tokenizer.im_end_id
        ends = [place + 1 for place, token in enumerate(rendered.input_ids) if token == end][-len(messages) :]
        fitting = [
            (turn, length)
            for turn, (message, length) in enumerate(zip(messages, ends, strict=True), start=1)
            if length <= context and answers(message)
        ]
        turns, tokens = fitting[-1] if fitting else (0, 0)
    kept = len(picture_parts(messages[:turns]))
    return _Measured(turns, kept, tokens, sum(rendered.answer_mask[:tokens]), uncut)


def _picture_tokens(part: PicturePart, processor: KimiVLProcessor, whole: bool) -> int:
    if whole or part.min_pixels is not None or part.max_pixels is not None:
        picture = _opened(part, processor)
        return fit(picture, processor.image_config, min_pixels=part.min_pixels, max_pixels=part.max_pixels)[1].tokens
    # Turned or not, a picture takes as many tokens, so the orientation is not asked for.
    assert not isinstance(part.source, Image.Image)
    size = media.picture_size(part.source, limits=processor.limits)
    return plan_grid(*size, processor.image_config).tokens


def _opened(part: PicturePart, processor: KimiVLProcessor) -> Image.Image:
    return media.load_picture(part.source, limits=processor.limits, background=processor.background)


def _fingerprint(line: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest())
