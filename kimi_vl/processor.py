"""A conversation with its pictures -> what the model takes.

In: chat messages in any shape that :mod:`kimi_vl.chat` knows. Out: :class:`ModelInputs`, one unpadded row of
token ids and the patches of all its pictures. Knows nothing of the model, of batches or of devices.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kimi_vl.chat import FilePart, Message, PicturePart, parse_messages, render, shown_parts, with_pages
from kimi_vl.config import KimiVLConfig
from kimi_vl.documents import is_pdf, pdf_pages
from kimi_vl.hub import PROCESSOR_FILES, resolve
from kimi_vl.media import DEFAULT_LIMITS, WHITE, PictureLimits, inline_file, load_picture
from kimi_vl.patches import ImageProcessorConfig, cut, patchify
from kimi_vl.tokenizer import Tokenizer

MOST_PAGES = 100  # of a PDF, which no context holds more of
_FILE = "preprocessor_config.json"


@dataclass(frozen=True, eq=False)
class CutPicture:
    """One picture as patches."""

    pixel_values: torch.Tensor  # (h · w, 3, P, P) float32
    h: int
    w: int


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """One conversation in tensors (T tokens, N pictures, L patches of P x P pixels over all pictures)."""

    input_ids: torch.Tensor  # (T,) int64
    answer_mask: torch.Tensor  # (T,) bool, true on the tokens that a training loss may see
    pixel_values: torch.Tensor | None  # (L, 3, P, P) float32, the pictures one after the other; None without any
    image_grid_hws: torch.Tensor  # (N, 2) int64, patches down and across
    text_tokens: int  # all tokens but the placeholders
    image_tokens: int  # placeholders, one for each merged patch
    end_ids: tuple[int, ...]  # any of them ends the answer
    vocab_size: int  # ids that the tokenizer knows
    seconds: float  # that reading the pictures and words took


def check_fit(config: KimiVLConfig, inputs: ModelInputs, max_new_tokens: int) -> None:
    """Raises ``ValueError`` with the numbers where a request cannot be answered by a model of this config."""
    limit = config.text_config.max_position_embeddings
    prompt = inputs.text_tokens + inputs.image_tokens
    if prompt + max_new_tokens > limit:
        raise ValueError(
            f"{inputs.text_tokens} text tokens, {inputs.image_tokens} image tokens and {max_new_tokens} new "
            f"tokens exceed the context of {limit}: ask for fewer, or send fewer or smaller pictures"
        )
    _check_vocabulary(inputs.vocab_size, config)
    if inputs.pixel_values is not None:
        _check_patches(inputs.pixel_values.shape[-1], config)


def _check_vocabulary(ids: int, config: KimiVLConfig) -> None:
    known = config.text_config.vocab_size
    if ids != known:
        raise ValueError(f"the tokenizer has {ids} ids, the model {known}: load both from the same checkpoint")


def _check_patches(side: int, config: KimiVLConfig) -> None:
    known = config.vision_config.patch_size
    if side != known:
        raise ValueError(
            f"the processor cuts patches of {side} pixels, the model sees {known}: load both from the same checkpoint"
        )


@dataclass(frozen=True)
class KimiVLProcessor:
    """The tokenizer and the picture settings of one checkpoint, used together."""

    tokenizer: Tokenizer
    image_config: ImageProcessorConfig
    limits: PictureLimits = DEFAULT_LIMITS
    background: tuple[int, int, int] = WHITE  # RGB, each 0 to 255, seen through transparent pictures

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "nano", *, revision: str | None = None, offline: bool = False
    ) -> KimiVLProcessor:
        """Reads the tokenizer and ``preprocessor_config.json`` of a folder, an alias or a hub id.

        Raises ``ValueError`` naming the file when one is missing or broken.
        """
        folder = resolve(name, PROCESSOR_FILES, revision=revision, offline=offline)
        path = folder / _FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing: copy {_FILE} of the checkpoint into this folder")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ValueError(f"{path} must hold a mapping, not {type(raw).__name__}")
        return cls(Tokenizer.from_pretrained(folder), ImageProcessorConfig.from_dict(raw))

    def check(self, config: KimiVLConfig) -> None:
        """Raises ``ValueError`` where its tokens or its patches are not those of a model of this config."""
        _check_vocabulary(self.tokenizer.vocab_size, config)
        _check_patches(self.image_config.patch_size, config)
        mine, known = self.image_config.merge_kernel_size, config.vision_config.merge_kernel_size
        if tuple(mine) != tuple(known):
            raise ValueError(
                f"the processor merges {mine[0]} x {mine[1]} patches, the model {known[0]} x {known[1]}: load both "
                "from the same checkpoint"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files that :meth:`from_pretrained` and the official classes read."""
        folder = Path(folder)
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(self.image_config.to_dict(), indent=2) + "\n"
        (folder / _FILE).write_text(text, encoding="utf-8")

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> ModelInputs:
        """Reads the pictures and renders the conversation around them, as :func:`kimi_vl.chat.render` does.

        All messages are checked before the first picture is opened. Raises ``ValueError`` naming the message
        (``messages[0].content[1]``) or the picture (``picture 2 of 3``, counting from 1 over all messages).
        """
        began = time.perf_counter()
        parsed = parse_messages(messages)
        parts = shown_parts(parsed)
        pictures: list[CutPicture] = []
        pages: list[int | None] = []  # of each file
        for number, part in enumerate(parts, start=1):
            try:
                if isinstance(part, PicturePart):
                    pictures.append(self._picture(part))
                else:
                    opened, is_pdf = self._file(part)
                    pages.append(len(opened) if is_pdf else None)
                    pictures += opened
            except ValueError as error:
                raise ValueError(f"picture {number} of {len(parts)}: {error}") from error
        parsed = with_pages(parsed, pages)
        inputs = self.assemble(
            parsed,
            pictures,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        return replace(inputs, seconds=time.perf_counter() - began)

    def _picture(self, part: PicturePart) -> CutPicture:
        # One after the other: a picture is large only until it is cut, so many take little more memory.
        picture = load_picture(part.source, limits=self.limits, background=self.background)
        patches, grid = patchify(picture, self.image_config, min_pixels=part.min_pixels, max_pixels=part.max_pixels)
        return CutPicture(patches, grid.h, grid.w)

    def _file(self, part: FilePart) -> tuple[list[CutPicture], bool]:
        """The pages of a PDF, or a picture; and which of both."""
        assert isinstance(part.source, str)
        data = inline_file(part.source, limits=self.limits)
        if not is_pdf(data):
            return [self._picture(PicturePart(data))], False
        pixels = self.image_config.in_token_limit * self.image_config.patch_size**2
        pages = (patchify(page, self.image_config) for page in pdf_pages(data, most=MOST_PAGES, pixels=pixels))
        return [CutPicture(patches, grid.h, grid.w) for patches, grid in pages], True

    def text(self, prompt: str | Sequence[int]) -> ModelInputs:
        """Plain text, or ids, to be gone on with: no conversation, no pictures, every id as it is.

        Raises: ``ValueError`` if it is empty or has an id outside the vocabulary or one of a picture.
        """
        began = time.perf_counter()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise ValueError("is empty: give at least one token")
        strangers = [i for i in ids if not 0 <= i < self.tokenizer.vocab_size]
        if strangers:
            raise ValueError(f"has id {strangers[0]}, outside the vocabulary, 0 to {self.tokenizer.vocab_size - 1}")
        if self.tokenizer.media_pad_id in ids:
            raise ValueError(f"has id {self.tokenizer.media_pad_id}, which stands for a picture's part, but no picture")
        return ModelInputs(
            input_ids=torch.tensor(ids),
            answer_mask=torch.zeros(len(ids), dtype=torch.bool),
            pixel_values=None,
            image_grid_hws=torch.zeros((0, 2), dtype=torch.int64),
            text_tokens=len(ids),
            image_tokens=0,
            end_ids=self.tokenizer.end_ids,
            vocab_size=self.tokenizer.vocab_size,
            seconds=time.perf_counter() - began,
        )

    def cut(self, pixels: bytes, h: int, w: int) -> CutPicture:
        """A picture that :func:`kimi_vl.patches.fit` made h by w patches large, from its RGB bytes."""
        return CutPicture(cut(pixels, h, w, self.image_config), h, w)

    def assemble(
        self,
        messages: Sequence[Message],
        pictures: Sequence[CutPicture],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> ModelInputs:
        """Renders a conversation around its pictures, which were read elsewhere: one for each of its parts."""
        began = time.perf_counter()
        down, across = self.image_config.merge_kernel_size
        counts = [picture.h * picture.w // (down * across) for picture in pictures]
        rendered = render(
            messages,
            self.tokenizer,
            counts,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        return ModelInputs(
            input_ids=torch.tensor(rendered.input_ids),
            answer_mask=torch.tensor(rendered.answer_mask),
            pixel_values=torch.cat([picture.pixel_values for picture in pictures]) if pictures else None,
            image_grid_hws=torch.tensor([(p.h, p.w) for p in pictures], dtype=torch.int64).reshape(-1, 2),
            text_tokens=len(rendered.input_ids) - sum(counts),
            image_tokens=sum(counts),
            end_ids=self.tokenizer.end_ids,
            vocab_size=self.tokenizer.vocab_size,
            seconds=time.perf_counter() - began,
        )
