"""How near a 4-bit checkpoint's answers are to its original's, on texts and pictures that somebody gives.

Both models read the same prompts, each a layer at a time, so that neither is ever in memory as a whole:

    prompts ─┬─ StreamedModel (float32) ──→ states ─ head ─→ logits ─┐
             └─ EngineModel, layer by layer → states ─ head ─→ logits ─┴─→ KL(original ‖ 4 bits), same first choice

Counted is what follows each token of text; what follows a picture's own placeholders is of no use to anybody.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kimi_vl.checkpoint import Checkpoint
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine import store
from kimi_vl.engine.backend import Backend
from kimi_vl.engine.int4 import Int4Matrix
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.streamed import StreamedModel
from kimi_vl.engine.weights import DecoderWeights, Ends, Segment
from kimi_vl.model.projector import KimiVLMultiModalProjector
from kimi_vl.model.vision import MoonViT
from kimi_vl.processor import KimiVLProcessor

# All prompts pass a layer together, and their states stay in memory.
MOST_TOKENS = 8192
MOST_TOKENS_OF_A_TEXT = 1024
QUESTION = "What is this?"
_STEP_TOKENS = 512
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Agreement:
    """Of one prompt, or of all."""

    prompt: str
    tokens: int
    kl_mean: float  # nats
    kl_99: float  # the 99th percentile
    top1: float  # share of tokens after which both would say the same


@dataclass(frozen=True, eq=False)
class Prompt:
    name: str
    ids: Tensor  # [T] int64
    pixel_values: Tensor | None  # [L, 3, patch, patch], pictures end to end
    image_grid_hws: Tensor  # [N, 2]


def read_prompts(paths: Sequence[Path], processor: KimiVLProcessor, config: KimiVLConfig) -> list[Prompt]:
    """Files to prompts: of a text its beginning, a picture with a short question, or messages (``.json``).

    Raises: ``ValueError`` naming the file if it is none of these, or with the numbers if all are too long together or
    the tokenizer is another model's.
    """
    processor.check(config)
    prompts = [_read_prompt(path, processor) for path in paths]
    tokens = sum(len(prompt.ids) for prompt in prompts)
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"the files to check have {tokens:,} tokens, which is more than {MOST_TOKENS:,}: give fewer or smaller ones"
        )
    return prompts


def compare(original: Checkpoint, folder: Path, prompts: Sequence[Prompt], backend: Backend) -> list[Agreement]:
    """Each prompt's agreement, and that of all together as the last.

    Args:
        original: what ``folder`` was made from.
        folder: of 4 bits.
    """
    exact = StreamedModel(original)
    placeholder = original.config.media_placeholder_token_id
    ids = torch.cat([prompt.ids for prompt in prompts])
    counted = ids != placeholder
    wanted = _exact_states(exact, prompts, ids, ~counted)[counted]
    model, states = _engine_states(folder, original, prompts, ids, ~counted, backend)
    kl, same = _compare(exact, wanted, model, states[counted].contiguous())
    lengths = [int((prompt.ids != placeholder).sum()) for prompt in prompts]
    parts = zip([prompt.name for prompt in prompts], kl.split(lengths), same.split(lengths), strict=True)
    return [_agreement(*part) for part in (*parts, ("all", kl, same))]


def _read_prompt(path: Path, processor: KimiVLProcessor) -> Prompt:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    text = _as_text(raw)
    if text is None:
        content = [{"type": "image", "image": str(path)}, {"type": "text", "text": QUESTION}]
        return _conversation(path, [{"role": "user", "content": content}], processor)
    if path.suffix == ".json":
        return _conversation(path, _messages(path, text), processor)
    ids = processor.tokenizer.encode(text)[:MOST_TOKENS_OF_A_TEXT]
    if not ids:
        raise ValueError(f"{path} holds no text")
    return Prompt(str(path), torch.tensor(ids), None, torch.zeros(0, 2, dtype=torch.int64))


def _as_text(raw: bytes) -> str | None:
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _messages(path: Path, text: str) -> list[dict[str, object]]:
    try:
        messages = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages) or not messages:
        raise ValueError(f"{path} must hold a list of messages, each with role and content")
    return messages


def _conversation(path: Path, messages: list[dict[str, object]], processor: KimiVLProcessor) -> Prompt:
    try:
        inputs = processor(messages, add_generation_prompt=messages[-1].get("role") != "assistant")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Prompt(str(path), inputs.input_ids, inputs.pixel_values, inputs.image_grid_hws)


# ---- the original ----


def _exact_states(model: StreamedModel, prompts: Sequence[Prompt], ids: Tensor, of_pictures: Tensor) -> Tensor:
    """[T, D]; ``of_pictures`` [T] says where the placeholders are."""
    x = model.embed(ids)
    features = [
        model.image_features(prompt.pixel_values, prompt.image_grid_hws)
        for prompt in prompts
        if prompt.pixel_values is not None
    ]
    if features:
        x[of_pictures] = torch.cat(features)
    return model.hidden(x, [len(prompt.ids) for prompt in prompts])


# ---- the 4-bit model ----


def _engine_states(
    folder: Path, original: Checkpoint, prompts: Sequence[Prompt], ids: Tensor, of_pictures: Tensor, backend: Backend
) -> tuple[EngineModel, Tensor]:
    """A model with head and no layers, and what all layers made of the prompts [T, D]."""
    config = original.config
    _give_back()
    features = _engine_features(folder, original, prompts, backend)
    _give_back()
    with torch.device("meta"):
        no_pictures = MoonViT(config.vision_config), KimiVLMultiModalProjector(config)
    ends = store.read_ends(folder, config)
    without_layers = EngineModel(config, DecoderWeights([], ends), *no_pictures, backend)
    x = without_layers.embed(ids).clone()
    if features:
        x[of_pictures] = torch.cat(features)
    steps = _steps([len(prompt.ids) for prompt in prompts])
    for index in range(config.text_config.num_hidden_layers):
        one = DecoderWeights([store.read_layer(folder, config, index)], ends)
        model = EngineModel(config, one, *no_pictures, backend)
        cache = model.new_cache(sum(len(segment.pages) for segment in steps if segment.start == 0))[:1]
        parts = x.split([segment.tokens for segment in steps])
        x = torch.cat([model.run(part, [step], cache) for part, step in zip(parts, steps, strict=True)])
    return without_layers, x


def _engine_features(folder: Path, original: Checkpoint, prompts: Sequence[Prompt], backend: Backend) -> list[Tensor]:
    """Of every picture [tokens, D], while nothing but the picture side is in memory."""
    with_pictures = [prompt for prompt in prompts if prompt.pixel_values is not None]
    if not with_pictures:
        return []
    nothing = Int4Matrix(torch.empty(0), torch.empty(0), 0, 0)
    no_decoder = DecoderWeights([], Ends(nothing, torch.empty(0), nothing))
    model = EngineModel(original.config, no_decoder, *store.read_vision(folder, original.config, backend), backend)
    features = []
    for prompt in with_pictures:
        assert prompt.pixel_values is not None
        grids = [(int(h), int(w)) for h, w in prompt.image_grid_hws.tolist()]
        pictures = prompt.pixel_values.split([h * w for h, w in grids])
        features += [model.image_features(picture, grid) for picture, grid in zip(pictures, grids, strict=True)]
    return features


def _give_back() -> None:
    """Memory that was freed in pieces goes back to the system, where the C library can be told to."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _steps(lengths: Sequence[int]) -> list[Segment]:
    """Every prompt in pages of its own, read in pieces."""
    steps, first_page = [], 0
    for length in lengths:
        count = -(-length // PAGE)
        pages = tuple(range(first_page, first_page + count))
        first_page += count
        for start in range(0, length, _STEP_TOKENS):
            steps.append(Segment(pages, start, min(_STEP_TOKENS, length - start), is_prompt=True))
    return steps


# ---- both ----


def _compare(exact: StreamedModel, wanted: Tensor, model: EngineModel, states: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergence [n] float64 and whether the first choice is the same [n], of states [n, D]."""
    kl, same = [], []
    for ours, theirs in zip(states.split(_ROWS_AT_ONCE), wanted.split(_ROWS_AT_ONCE), strict=True):
        p, q = exact.logits(theirs).log_softmax(-1), model.logits(ours).log_softmax(-1)
        kl.append((p.exp() * (p - q)).double().sum(-1))
        same.append(p.argmax(-1) == q.argmax(-1))
    return torch.cat(kl), torch.cat(same)


def _agreement(name: str, kl: Tensor, same: Tensor) -> Agreement:
    return Agreement(name, len(kl), float(kl.mean()), float(kl.quantile(0.99)), float(same.double().mean()))
