"""(seed, index) -> training samples, in the very form in which the model will be asked.

Comes in: pictures with questions and answers, and books. Goes out: `Sample`, ids and patches. One function a source
of the mixture.
"""

from collections.abc import Callable
from functools import cache
from random import Random

import torch
from PIL import Image

from kimi_vl.hub import NANO
from kimi_vl.patches import ImageProcessorConfig, patchify
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train.packing import Sample
from recipes.nano import questions
from recipes.nano.fonts import Split
from recipes.nano.lines import LONGEST, line_sample
from recipes.nano.scenes import SceneSample, every_name
from recipes.nano.text import book

PICTURES = ImageProcessorConfig()
LONGEST_TEXT = 96  # tokens
# Letters are learned sooner, and far more cheaply, from short lines.
SHORT_LINE = 32  # characters
SHORT_UNTIL = 150_000  # samples of the run


@cache
def processor() -> KimiVLProcessor:
    return KimiVLProcessor(Tokenizer.from_pretrained(NANO), PICTURES)


def line_reading(seed: int, index: int) -> Sample:
    """A line of text for the tower alone: no question, no answer."""
    longest = SHORT_LINE if index < SHORT_UNTIL else LONGEST
    line = line_sample(seed, index, "train", longest=longest)
    return tower_only(line.image, written=line.text)


def line_answering(seed: int, index: int) -> Sample:
    """A line of text, and the answer that reads it."""
    line = line_sample(seed, index, "train")
    question = Random(f"question/{seed}/{index}").choice(questions.READ)
    return asked(line.image, question, line.text, written=line.text)


def names() -> dict[str, list[int]]:
    """Every name of a single thing, with its tokens."""
    return {name: processor().tokenizer.encode(name) for name in every_name()}


def scene_naming(draw: Callable[[int, int, Split], SceneSample]) -> Callable[[int, int], Sample]:
    """A source of pictures of one thing for the tower alone."""

    def sample(seed: int, index: int) -> Sample:
        scene = draw(seed, index, "train")
        return tower_only(scene.image, named=_single_name(scene))

    return sample


def _single_name(scene: SceneSample) -> str | None:
    """A scene's answer where it is the name of the one thing it shows, and not, say, its group or number."""
    return scene.answer if scene.question in (*questions.NAME, *questions.CLIPART) else None


def scene_answering(draw: Callable[[int, int, Split], SceneSample]) -> Callable[[int, int], Sample]:
    """A source of one kind of scene."""

    def sample(seed: int, index: int) -> Sample:
        scene = draw(seed, index, "train")
        return asked(scene.image, scene.question, scene.answer, named=_single_name(scene))

    return sample


def plain_text(seed: int, index: int) -> Sample:
    """A piece of a book, every token of it learned."""
    random = Random(f"text/{seed}/{index}")
    paragraphs = book("train")
    tokenizer = processor().tokenizer
    ids = tokenizer.encode(paragraphs[random.randrange(len(paragraphs))])
    start = random.randrange(max(1, len(ids) - LONGEST_TEXT))
    piece = [*ids[start : start + LONGEST_TEXT], tokenizer.eos_id]
    return Sample(
        input_ids=torch.tensor(piece),
        answer_mask=torch.ones(len(piece), dtype=torch.bool),
        pixel_values=None,
        image_grid_hws=torch.zeros(0, 2, dtype=torch.int64),
    )


def tower_only(image: Image.Image, *, written: str | None = None, named: str | None = None) -> Sample:
    """A picture without question or answer."""
    pixel_values, grid = patchify(image, PICTURES)
    return Sample(
        input_ids=torch.zeros(1, dtype=torch.int64),
        answer_mask=torch.zeros(1, dtype=torch.bool),
        pixel_values=pixel_values,
        image_grid_hws=torch.tensor([[grid.h, grid.w]]),
        written=written,
        named=named,
    )


def asked(
    image: Image.Image, question: str, answer: str, *, written: str | None = None, named: str | None = None
) -> Sample:
    """A picture, a question about it and the answer, as a conversation of one turn."""
    inputs = processor()(
        [
            {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": answer},
        ],
        add_generation_prompt=False,
    )
    return Sample(inputs.input_ids, inputs.answer_mask, inputs.pixel_values, inputs.image_grid_hws, written, named)
