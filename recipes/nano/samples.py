"""Conversations and captions -> training samples, in the very form in which the model will be asked.

Comes in: what the sources draw. Goes out: `Sample`, ids and patches of bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from random import Random

import torch
from PIL import Image

from kimi_vl.chat import FilePart, Message, PicturePart, PictureSource, TextPart, picture_ids, render, with_pages
from kimi_vl.hub import NANO
from kimi_vl.patches import ImageProcessorConfig, cut_bytes, fit, plan_grid
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train.data.conversations import sample_of
from kimi_vl.train.data.packing import Sample
from recipes.nano import questions
from recipes.nano.captioned import Captioned
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.lines import LONGEST, line_sample
from recipes.nano.text import book

PICTURES = ImageProcessorConfig.from_dict(json.loads((NANO / "preprocessor_config.json").read_bytes()))
LONGEST_TEXT = 256  # tokens
# Letters are learned sooner, and far more cheaply, from short lines.
SHORT_LINE = 32  # characters
SHORT_UNTIL = 200_000  # samples of the run

Draw = Callable[[int, int], Sample]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pretrained(NANO)


@cache
def processor() -> KimiVLProcessor:
    return KimiVLProcessor(tokenizer(), PICTURES)


def conversing(draw: Callable[[int, int, Split], Conversation]) -> Draw:
    """A source of conversations."""
    return lambda seed, index: of_conversation(draw(seed, index, "train"))


def talking(draw: Callable[[int, int, Split], Sequence[Conversation]]) -> Draw:
    """A source of conversations that go from one thing to the next."""
    return lambda seed, index: of_conversation(*draw(seed, index, "train"))


def captioning(draw: Callable[[int, int, Split], Captioned]) -> Draw:
    """A source of pictures with captions."""

    def sample(seed: int, index: int) -> Sample:
        captioned = draw(seed, index, "train")
        return of_caption(captioned.image, captioned.caption)

    return sample


def read_aloud(draw: Callable[[int, int, Split], Conversation], *, line: bool = False) -> Draw:
    """The pictures of a source that asks to read, with what stands on them as their caption."""

    def sample(seed: int, index: int) -> Sample:
        shown = draw(seed, index, "train")
        text = shown.turns[0].answer
        return of_caption(shown.pictures[0], text, written=text if line else None)

    return sample


def paired(draw: Draw) -> Draw:
    """A source of captions, for the decoder: the picture, then the caption, and no word between them."""

    def sample(seed: int, index: int) -> Sample:
        captioned = draw(seed, index)
        merged = int(captioned.image_grid_hws.prod()) // math.prod(PICTURES.merge_kernel_size)
        picture, caption = picture_ids(merged, tokenizer()), captioned.input_ids[1:].tolist()
        ids = torch.tensor([*picture, *caption])
        return replace(captioned, input_ids=ids, answer_mask=torch.arange(len(ids)) >= len(picture))

    return sample


def reading(draw: Callable[[int, int, Split], Conversation]) -> Draw:
    """A source that asks to read one line, which the tower's reading head sees too."""

    def sample(seed: int, index: int) -> Sample:
        shown = draw(seed, index, "train")
        return of_conversation(shown, written=shown.turns[0].answer)

    return sample


def line_captioned(seed: int, index: int, *, short_until: int = 0) -> Sample:
    """A line of text, and the text as its caption."""
    line = line_sample(seed, index, "train", longest=SHORT_LINE if index < short_until else LONGEST)
    return of_caption(line.image, line.text, written=line.text)


def line_asked(seed: int, index: int) -> Sample:
    """A line of text, and the answer that reads it."""
    line = line_sample(seed, index, "train")
    question = Random(f"question/{seed}/{index}").choice(questions.READ)
    return of_conversation(Conversation((line.image,), (Turn(question, line.text),)), written=line.text)


def plain_text(seed: int, index: int) -> Sample:
    """A piece of a book, every token of it learned."""
    return piece_of(book("train"), LONGEST_TEXT, seed, index)


def whole_text(paragraphs: Callable[[Split], Sequence[str]], window: int) -> Draw:
    """A source of pieces of ``window`` tokens, paragraph after paragraph."""
    return lambda seed, index: piece_of(paragraphs("train"), window, seed, index)


def piece_of(paragraphs: Sequence[str], longest: int, seed: int, index: int) -> Sample:
    """As many tokens from some paragraph on, every one of them learned."""
    random = Random(f"text/{seed}/{index}")
    ids: list[int] = []
    place = random.randrange(len(paragraphs))
    while len(ids) < longest and place < len(paragraphs):
        ids += [*tokenizer().encode(paragraphs[place]), tokenizer().eos_id]
        place += 1
    piece = torch.tensor(ids[:longest])
    return Sample(piece, torch.ones(len(piece), dtype=torch.bool), None, torch.zeros(0, 2, dtype=torch.int64))


def of_caption(image: Image.Image, caption: str, *, written: str | None = None) -> Sample:
    """A picture and its caption, between a beginning and an end, for the tower."""
    fitted, grid = fit(image, PICTURES)
    pixels = cut_bytes(fitted.tobytes(), grid.h, grid.w, PICTURES)
    ids = torch.tensor([tokenizer().bos_id, *tokenizer().encode(caption), tokenizer().eos_id])
    return Sample(ids, torch.arange(len(ids)) > 0, pixels, torch.tensor([[grid.h, grid.w]]), written)


def of_conversation(*parts: Conversation, written: str | None = None) -> Sample:
    """Pictures, questions and answers as the chat template has them; several parts are one conversation."""
    pictures = [picture for shown in parts for picture in shown.pictures]
    return sample_of(messages_of(parts), pictures, processor(), written=written)


def messages_of(parts: Sequence[Conversation]) -> list[Message]:
    """The messages of a conversation: each part's pictures stand before its first question."""
    messages: list[Message] = []
    for shown in parts:
        for number, turn in enumerate(shown.turns):
            messages.append(question_of(() if number else shown.pictures, turn.question, pages=shown.pages))
            messages.append(Message("assistant", (TextPart(turn.answer),)))
    return messages


def question_of(pictures: Sequence[PictureSource], question: str, *, pages: bool = False) -> Message:
    """Pictures and a question about them; ``pages`` are told by number, in the words in which a file is shown."""
    if not pages or not pictures:
        return Message("user", (*map(PicturePart, pictures), TextPart(question)))
    (message,) = with_pages([Message("user", (FilePart(b""), TextPart(question)))], [len(pictures)])
    shown = iter(pictures)
    parts = (PicturePart(next(shown)) if isinstance(part, PicturePart) else part for part in message.parts)
    return Message("user", tuple(parts))


def tokens_of(messages: Sequence[Message], sizes: Sequence[tuple[int, int]]) -> int:
    """The length of a conversation with pictures of these (width, height)."""
    pictures = [plan_grid(*size, PICTURES).tokens for size in sizes]
    return len(render(messages, tokenizer(), pictures, add_generation_prompt=False).input_ids)
