"""What a model will need in memory, by what it is for, before any of it is taken.

    weights, and what is asked of them ─→ bytes by kind, and their peak

Two ways of running: the engine with 4-bit weights, and the exact model in torch. Arithmetic only, without torch. Tests
hold the engine's figures against what a process really takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from kimi_vl.config import KimiVLConfig, MoonViTConfig, TextConfig
from kimi_vl.engine.layout import VISION
from kimi_vl.engine.pages import PAGE, CacheDtype, row_bytes
from kimi_vl.footprint import BYTES_PER_PARAMETER, footprint
from kimi_vl.patches import ImageProcessorConfig, PatchGrid, plan_grid

# Python, torch and the native library when they have begun to work.
PROGRAM = 250 * 10**6
EXACT_STEP = 1024  # tokens of a prompt that pass the exact model together
# What an MLP of MoonViT makes of so many is small enough to find its memory again, and large enough for fast products.
PATCHES_AT_ONCE = 1024


@dataclass(frozen=True)
class Demand:
    """What a model is to hold at a time. The exact model takes its requests one after the other."""

    context: int  # tokens of one request: prompt, pictures and answer
    batch: int = 1  # requests at once
    pictures: int = 0  # of one request
    size: tuple[int, int] = (896, 896)  # of each picture, width and height in pixels
    settings: ImageProcessorConfig = field(default_factory=ImageProcessorConfig)
    step_tokens: int = 512  # that the engine reads at a time
    feature_tokens: int = 16384  # most that it keeps of pictures that were seen
    kv_cache_dtype: CacheDtype = "bfloat16"

    @property
    def grid(self) -> PatchGrid:
        """Raises: ``ValueError`` for a size that no picture may have."""
        return plan_grid(*self.size, self.settings)

    def check(self, config: KimiVLConfig) -> None:
        """Raises: ``ValueError`` with the numbers if no memory would be enough."""
        limit, tokens = config.text_config.max_position_embeddings, self.pictures * self.grid.tokens
        if self.context > limit:
            raise ValueError(f"a context of {self.context:,} tokens is more than the {limit:,} that the model knows")
        if tokens >= self.context:
            raise ValueError(
                f"{self.pictures} pictures of {self.grid.tokens:,} tokens fill a context of {self.context:,}: "
                "ask for a longer one, or for fewer or smaller pictures"
            )


@dataclass(frozen=True)
class Weights:
    """A model's weights in memory, in bytes."""

    form: str  # "int4", else a type of torch
    decoder: int  # with embeddings and head
    pictures: int  # MoonViT and projector
    number: int  # bytes of one number within MoonViT


def int4_weights(files: Mapping[str, int]) -> Weights:
    """``files``: what each file of the 4-bit folder holds; see :mod:`kimi_vl.engine.layout`."""
    return Weights(form="int4", decoder=sum(files.values()) - files[VISION], pictures=files[VISION], number=4)


def exact_weights(config: KimiVLConfig, form: str) -> Weights:
    """``form`` is a type of torch."""
    counts, number = footprint(config), int(BYTES_PER_PARAMETER[form])
    pictures = counts.vision_tower + counts.projector
    return Weights(form, number * counts.language_model, number * pictures, number=number)


@dataclass(frozen=True)
class Plan:
    """Bytes, by what they are for."""

    program: int
    weights: int  # of the decoder, with embeddings and head
    picture_weights: int
    cache: int
    features: int  # of pictures that were seen
    pixels: int  # of pictures that wait, cut into patches
    encoder: int  # while a picture passes MoonViT
    step: int  # while tokens pass the decoder

    @property
    def peak(self) -> int:
        held = self.program + self.weights + self.picture_weights + self.cache + self.features + self.pixels
        return held + max(self.encoder, self.step)


def plan(config: KimiVLConfig, weights: Weights, demand: Demand) -> Plan:
    """Raises: ``ValueError`` if the demand is for more than the model can take; see :meth:`Demand.check`."""
    demand.check(config)
    grid, is_engine = demand.grid, weights.form == "int4"
    pictures = demand.pictures * (demand.batch if is_engine else 1)
    patches = grid.h * grid.w if pictures else 0
    if is_engine:
        return _engine_plan(
            config,
            weights,
            pages=demand.batch * math.ceil(demand.context / PAGE),
            step_tokens=max(demand.step_tokens, demand.batch),
            answers=demand.batch,
            # one more than is kept may be there for as long as it is being kept
            feature_tokens=min(pictures * grid.tokens, demand.feature_tokens + grid.tokens),
            patches=patches,
            waiting=pictures * patches,
            cache_dtype=demand.kv_cache_dtype,
        )
    return _exact_plan(
        config, weights, context=demand.context, merged=pictures * grid.tokens, patches=patches, pictures=pictures
    )


@dataclass(frozen=True)
class Limits:
    """What an engine may hold and do at a time, as its options have it."""

    context: int
    step_tokens: int
    most_running: int
    feature_tokens: int
    kv_cache_dtype: CacheDtype = "bfloat16"


def plan_limits(config: KimiVLConfig, weights: Weights, limits: Limits, settings: ImageProcessorConfig) -> Plan:
    """What an engine may come to hold, whatever it is asked."""
    side = math.isqrt(settings.in_token_limit) * settings.patch_size
    grid = plan_grid(side, side, settings)
    return _engine_plan(
        config,
        weights,
        pages=math.ceil(limits.context / PAGE),
        step_tokens=limits.step_tokens,
        answers=limits.most_running,
        feature_tokens=limits.feature_tokens + grid.tokens,
        patches=grid.h * grid.w,
        waiting=grid.h * grid.w,
        cache_dtype=limits.kv_cache_dtype,
    )


# ---- the two ways of running ----


def _engine_plan(
    config: KimiVLConfig,
    weights: Weights,
    *,
    pages: int,
    step_tokens: int,
    answers: int,
    feature_tokens: int,
    patches: int,
    waiting: int,
    cache_dtype: CacheDtype,
) -> Plan:
    """``patches`` are those of one picture, ``waiting`` those of all that are not yet answered."""
    text, vision = config.text_config, config.vision_config
    return Plan(
        program=PROGRAM,
        weights=weights.decoder,
        picture_weights=weights.pictures,
        cache=pages * PAGE * text.num_hidden_layers * row_bytes(text.kv_lora_rank, text.qk_rope_head_dim, cache_dtype),
        features=feature_tokens * text.hidden_size * 4,
        pixels=waiting * _patch_numbers(vision) * 4,
        encoder=_engine_encoder(vision, patches),
        step=_engine_step(text, step_tokens, answers),
    )


def _exact_plan(
    config: KimiVLConfig, weights: Weights, *, context: int, merged: int, patches: int, pictures: int
) -> Plan:
    text, vision, number = config.text_config, config.vision_config, weights.number
    cache = _exact_room(context) * footprint(config).cache_per_token * number
    return Plan(
        program=PROGRAM,
        weights=weights.decoder,
        picture_weights=weights.pictures,
        cache=cache,
        # what MoonViT makes of each, all of them together, and what the projector makes of those
        features=merged * (2 * vision.merged_size + text.hidden_size) * number,
        pixels=pictures * patches * _patch_numbers(vision) * 4,
        encoder=patches * _encoder_bytes(vision, number),
        # the cache is copied as it grows, before the keys are expanded
        step=max(cache // 2, _exact_step(text, context, number)),
    )


def _patch_numbers(vision: MoonViTConfig) -> int:
    return 3 * vision.patch_size**2


def _encoder_bytes(vision: MoonViTConfig, number: int) -> int:
    """For a patch within a block: itself, its queries, keys and values, twice the inner width; attended in float32."""
    width = 6 * vision.hidden_size + 2 * vision.intermediate_size + _patch_numbers(vision)
    return width * number + 4 * vision.hidden_size


def _engine_encoder(vision: MoonViTConfig, patches: int) -> int:
    """A patch, and its queries, keys and values or what attention makes of them; the largest matrix as numbers, with
    what an MLP makes of some patches; one head's keys and values."""
    width, inner = vision.hidden_size, vision.intermediate_size
    matrices = inner * (2 * width + 2 * min(patches, PATCHES_AT_ONCE)) if patches else 0
    # where products are bfloat16, queries, keys and values are there in both types for a while
    return 4 * (patches * (7 * width + _patch_numbers(vision) + 2 * vision.head_dim) + matrices)


def _engine_step(text: TextConfig, tokens: int, answers: int) -> int:
    """Rows that the native functions keep for the tokens of a step, and the logits of those that answer.

    8-bit rows take 1.5 bytes a number with their scales.
    """
    width, heads, inner = text.hidden_size, text.num_attention_heads, text.moe_intermediate_size
    attention = 4 * heads * (text.qk_head_dim + text.v_head_dim) + 4 * (text.kv_lora_rank + text.qk_rope_head_dim)
    experts = 1.5 * text.num_experts_per_tok * (width + inner) + 1.5 * inner * text.n_shared_experts
    feed_forward = 10 * width + max(experts, 1.5 * text.intermediate_size)
    # 8 parts of a long context are attended apart and then joined
    answer = 4 * heads * (9 * text.kv_lora_rank + 3 * text.qk_rope_head_dim)
    return int(tokens * (8 * width + max(attention, feed_forward)) + answers * (answer + 4 * 4 * text.vocab_size))


def _exact_room(context: int) -> int:
    """Tokens that the exact model's cache has room for, which is doubled as it fills."""
    room = min(context, EXACT_STEP)
    while room < context:
        room *= 2
    return room


def _exact_step(text: TextConfig, context: int, number: int) -> int:
    """The prompt itself, every latent expanded to the keys and values of all heads, and who sees whom."""
    heads, tokens = text.num_attention_heads, min(context, EXACT_STEP)
    expanded = heads * (2 * text.qk_head_dim + text.qk_nope_head_dim + text.v_head_dim)
    return context * ((text.hidden_size + expanded) * number + tokens * (2 + number))
