"""What is asked of the engine, and how far it has come."""

from __future__ import annotations

import hashlib
import math
import uuid
from dataclasses import dataclass, field, replace

from torch import Tensor

from kimi_vl.engine.guess import Guesses
from kimi_vl.engine.pages import PAGE, Key, PictureSpan, page_keys
from kimi_vl.processor import ModelInputs
from kimi_vl.sampling import Drawn, FinishReason, Sampler, SamplingParams, new_seed


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a prompt, ready for the tower."""

    span: PictureSpan
    pixel_values: Tensor  # [h·w, 3, patch, patch] float32
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Request:
    """One answer to be given."""

    id: str
    prompt: tuple[int, ...]
    pictures: tuple[Picture, ...]
    end_ids: tuple[int, ...]
    params: SamplingParams
    seed: int

    @property
    def most_tokens(self) -> int:
        """That it will ever have in the cache: its last token is never read."""
        return len(self.prompt) + self.params.max_new_tokens - 1


def request_of(
    inputs: ModelInputs, params: SamplingParams, *, placeholder: int, merge_kernel_size: tuple[int, int]
) -> Request:
    """A conversation as a request. ``placeholder`` is the id that stands for one merged patch.

    Raises: ``ValueError`` if ``params`` do not suit the vocabulary or ask for several answers, its placeholders are not
    those of its pictures, or an id is none of the tokenizer's.
    """
    params.check(inputs.vocab_size)
    prompt = inputs.input_ids.tolist()
    if not prompt or not 0 <= min(prompt) <= max(prompt) < inputs.vocab_size:
        raise ValueError(f"a prompt must be ids from 0 to {inputs.vocab_size - 1}, and at least one")
    sizes = [h * w // math.prod(merge_kernel_size) for h, w in inputs.image_grid_hws.tolist()]
    starts = _starts(prompt, sizes, placeholder)
    pictures = []
    first_patch = 0
    for start, tokens, (h, w) in zip(starts, sizes, inputs.image_grid_hws.tolist(), strict=True):
        assert inputs.pixel_values is not None
        pixel_values = inputs.pixel_values[first_patch : first_patch + h * w]
        # The patches and how they lie are all that the tower sees of a picture, its preprocessing included.
        content = pixel_values.contiguous().numpy().data
        digest = hashlib.blake2b(content, digest_size=32, salt=f"{h}x{w}".encode())
        pictures.append(Picture(PictureSpan(start, tokens, digest.digest()), pixel_values, (h, w)))
        first_patch += h * w
    seed = new_seed() if params.seed is None else params.seed
    return Request(uuid.uuid4().hex, tuple(prompt), tuple(pictures), inputs.end_ids, params, seed)


def _starts(prompt: list[int], sizes: list[int], placeholder: int) -> list[int]:
    """Where the placeholders of each picture begin."""
    places = [at for at, token in enumerate(prompt) if token == placeholder]
    if len(places) != sum(sizes):
        raise ValueError(f"the prompt has {len(places)} placeholders, but its pictures {sum(sizes)} tokens: {sizes}")
    starts = []
    first = 0
    for number, tokens in enumerate(sizes, start=1):
        start = places[first]
        if places[first + tokens - 1] != start + tokens - 1:
            raise ValueError(f"the {tokens} placeholders of picture {number} of {len(sizes)} do not lie together")
        starts.append(start)
        first += tokens
    return starts


@dataclass(eq=False)
class Running:
    """A request under way. Its tokens are those of the prompt and then those drawn."""

    request: Request
    cached: int = 0  # tokens whose latents are in its pages
    pages: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)  # of its first full pages
    has_begun: bool = False
    reused: int = 0  # tokens that were found in the cache when it began
    sampler: Sampler = field(init=False)
    guesses: Guesses = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.sampler = Sampler(request.prompt, request.end_ids, replace(request.params, seed=request.seed))
        self.guesses = Guesses(request.prompt, request.most_tokens + 1)

    @property
    def answer(self) -> list[int]:
        return self.sampler.answer

    @property
    def tokens(self) -> int:
        return len(self.request.prompt) + len(self.answer)

    @property
    def ids(self) -> list[int]:
        return [*self.request.prompt, *self.answer]

    def keys_of(self, pages: int) -> list[Key]:
        """The keys of its first pages, which are full. Each is made once, however often it is asked for."""
        if len(self.keys) < pages:
            spans = [picture.span for picture in self.request.pictures]
            self.keys = page_keys(self.ids[: pages * PAGE], spans, self.keys)
        return self.keys[:pages]

    @property
    def prompt_keys(self) -> list[Key]:
        """Of the pages that the prompt fills."""
        return self.keys_of(len(self.request.prompt) // PAGE)


@dataclass(frozen=True)
class Progress:
    """What a step brought one request."""

    request: Request
    drawn: Drawn
    reused: int

    @property
    def finish(self) -> FinishReason | None:
        return self.drawn.finish
