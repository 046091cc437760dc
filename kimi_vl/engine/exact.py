"""A model in memory as it is, behind the engine: its own weights in their own precision, and no copy of them.

The weights may change between requests, as they do while a model learns from its own answers; then
:meth:`kimi_vl.engine.engine.Engine.forget` is due. Plain torch, on whatever device the model is.

    pixel_values ─ MoonViT ─ projector ─→ features
    ids ─ embed ─→ x ─ layers, over pages of latents ─→ x ─ norm, head ─→ logits
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kimi_vl.engine.pages import PAGE, CacheDtype
from kimi_vl.engine.weights import Segment
from kimi_vl.model.attention import MultiHeadLatentAttention, rope_angles
from kimi_vl.model.decoder import DecoderLayer
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import MoE


class ExactModel:
    """Stands in for :class:`kimi_vl.engine.model.EngineModel`."""

    def __init__(self, model: KimiVLForConditionalGeneration) -> None:
        self.config = model.config
        self._model = model

    @property
    def torch_threads(self) -> int:
        return torch.get_num_threads()

    def new_cache(self, pages: int, dtype: CacheDtype = "bfloat16") -> Tensor:
        """[layers, pages, 64, rank + rope] of the model's own type. Raises: ``ValueError`` for one of 8 bits."""
        if dtype == "int8":
            raise ValueError("a cache of 8 bits is for weights of 4: leave kv_cache_dtype out")
        text = self.config.text_config
        width = text.kv_lora_rank + text.qk_rope_head_dim
        return torch.empty(
            text.num_hidden_layers, pages, PAGE, width, dtype=self._model.dtype, device=self._model.device
        )

    @torch.inference_mode()
    def embed(self, ids: Tensor) -> Tensor:
        """[T] int64 → [T, D]."""
        return self._model.language_model.model.embed_tokens(ids.to(self._model.device))

    @torch.inference_mode()
    def image_features(self, pixel_values: Tensor, grid: tuple[int, int]) -> Tensor:
        """One picture's patches [h·w, 3, patch, patch] float32 → [tokens, D]."""
        return self._model.image_features(pixel_values.to(self._model.device), torch.tensor([grid]))

    @torch.inference_mode()
    def run(self, x: Tensor, segments: Sequence[Segment], cache: Tensor) -> Tensor:
        """The tokens of a step [T, D] through all layers; they join the cache. Returns x after the last."""
        step = _Step(segments, x.device)
        angles = rope_angles(step.positions, self.config.text_config)
        for layer, of_layer in zip(self._model.language_model.model.layers, cache, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = x + _attend(layer.self_attn, layer.input_layernorm(x), angles, step, of_layer.flatten(0, 1))
            normed = layer.post_attention_layernorm(x)
            x = x + (layer.mlp(normed)[0] if isinstance(layer.mlp, MoE) else layer.mlp(normed))
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Rows of what :meth:`run` returned, [n, D] → [n, V] float32, where they are drawn from."""
        language = self._model.language_model
        return language.lm_head(language.model.norm(x)).float().cpu()


class _Step:
    """Where the tokens of a step lie, in it and in the cache."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        places = [_places(segment).to(device) for segment in segments]
        self.positions = torch.cat([torch.arange(s.start, s.start + s.tokens) for s in segments]).to(device)
        self.at = torch.cat([known[s.start :] for known, s in zip(places, segments, strict=True)])
        single: list[tuple[int, Tensor]] = []
        self.rest: list[tuple[slice, Segment, Tensor]] = []
        first = 0
        for segment, known in zip(segments, places, strict=True):
            if segment.tokens == 1 and not segment.is_prompt:
                single.append((first, known))
            else:
                self.rest.append((slice(first, first + segment.tokens), segment, known))
            first += segment.tokens
        # Answers go on by a token each, and attend together; what they know is filled up to the longest.
        self.single = torch.tensor([at for at, _ in single], dtype=torch.int64, device=device)
        self.known = pad_sequence([known for _, known in single], batch_first=True) if single else None  # [n, S]
        self.lengths = torch.tensor([len(known) for _, known in single], device=device)


def _places(segment: Segment) -> Tensor:
    """Of all tokens of a sequence, those before the segment too, counted over all pages."""
    tokens = torch.arange(segment.start + segment.tokens)
    return torch.tensor(segment.pages)[tokens // PAGE] * PAGE + tokens % PAGE


def _attend(attention: MultiHeadLatentAttention, x: Tensor, angles: Tensor, step: _Step, rows: Tensor) -> Tensor:
    """``rows`` [pages · 64, rank + rope] are one layer's cache, which the step's tokens join: [T, D] → [T, D]."""
    q_nope, q_rope = attention.queries(x, angles)
    rows[step.at] = torch.cat(attention.latents(x, angles), dim=-1)
    out = x.new_empty(len(x), attention.num_heads, attention.v_head_dim)
    split = (attention.kv_lora_rank, attention.rope_dim)
    if step.known is not None:
        queries = q_nope[step.single], q_rope[step.single]
        out[step.single] = _absorbed(attention, *queries, rows[step.known], step.lengths)
    for here, segment, known in step.rest:
        latent, k_rope = rows[known].split(split, dim=-1)
        form = attention.plain if segment.is_prompt else attention.absorbed
        out[here] = form(q_nope[here], q_rope[here], latent, k_rope)
    return attention.o_proj(out.flatten(1))


def _absorbed(
    attention: MultiHeadLatentAttention, q_nope: Tensor, q_rope: Tensor, known: Tensor, lengths: Tensor
) -> Tensor:
    """One query of each of n sequences.

    Args:
        q_nope, q_rope: [n, H, nope], [n, H, rope].
        known: [n, S, rank + rope], of which only the first ``lengths`` [n] are.

    Returns: [n, H, v].
    """
    rank, nope = attention.kv_lora_rank, attention.nope_dim
    w_uk, w_uv = attention.kv_b_proj.weight.view(attention.num_heads, -1, rank).split((nope, attention.v_head_dim), 1)
    query = torch.cat((torch.einsum("bhn,hnr->bhr", q_nope, w_uk), q_rope), dim=-1)
    scores = (query @ known.transpose(1, 2)).float() * attention.scale
    absent = torch.arange(known.shape[1], device=known.device) >= lengths[:, None]
    weights = scores.masked_fill(absent[:, None], float("-inf")).softmax(-1).to(known.dtype)
    return torch.einsum("bhr,hvr->bhv", weights @ known[..., :rank], w_uv)
