"""A model in memory as it is, behind the engine: its own weights in their own precision, and no copy of them.

The weights may change between requests, as they do while a model learns from its own answers; then
:meth:`kimi_vl.engine.engine.Engine.forget` is due. Plain torch, on whatever device the model is.

    pixel_values ─ MoonViT ─ projector ─→ features
    ids ─ embed ─→ x ─ layers, over pages of latents ─→ x ─ norm, head ─→ logits
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
        # Of zeros: what no token has come to yet weighs nothing, and nothing times NaN would be NaN.
        return torch.zeros(
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
            x = x + _attend(layer.self_attn, layer.input_layernorm(x), angles, step, of_layer)
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
        single: list[tuple[int, Segment]] = []
        self.rest: list[tuple[slice, Segment, Tensor]] = []  # with the pages of each
        positions, at = list[int](), list[int]()
        for segment in segments:
            first = len(positions)
            if segment.tokens == 1 and not segment.is_prompt:
                single.append((first, segment))
            else:
                pages = torch.tensor(segment.pages, device=device)
                self.rest.append((slice(first, first + segment.tokens), segment, pages))
            here = range(segment.start, segment.start + segment.tokens)
            positions += here
            at += [segment.pages[token // PAGE] * PAGE + token % PAGE for token in here]
        self.positions = torch.tensor(positions, device=device)
        self.at = torch.tensor(at, device=device)  # of all pages' places, those of the step's tokens
        # Answers go on by a token each, and attend together; their pages are filled up to the most.
        self.single = torch.tensor([at for at, _ in single], dtype=torch.int64, device=device)
        used = [torch.tensor(s.pages[: s.start // PAGE + 1]) for _, s in single]
        self.pages = pad_sequence(used, batch_first=True).to(device) if single else None  # [n, pages]
        self.lengths = torch.tensor([s.start + 1 for _, s in single], device=device)


def _attend(attention: MultiHeadLatentAttention, x: Tensor, angles: Tensor, step: _Step, cache: Tensor) -> Tensor:
    """``cache`` [pages, 64, rank + rope] is one layer's, which the step's tokens join: [T, D] → [T, D]."""
    q_nope, q_rope = attention.queries(x, angles)
    cache.flatten(0, 1)[step.at] = torch.cat(attention.latents(x, angles), dim=-1)
    out = x.new_empty(len(x), attention.num_heads, attention.v_head_dim)
    split = (attention.kv_lora_rank, attention.rope_dim)
    if step.pages is not None:
        queries = q_nope[step.single], q_rope[step.single]
        out[step.single] = _absorbed(attention, *queries, cache[step.pages].flatten(1, 2), step.lengths)
    for here, segment, pages in step.rest:
        known = cache[pages].flatten(0, 1)[: segment.start + segment.tokens]
        latent, k_rope = known.split(split, dim=-1)
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
    seen = torch.arange(known.shape[1], device=known.device) < lengths[:, None]
    # All heads have the same keys, and so are as many queries of one; values are the first of a key's numbers.
    mixed = F.scaled_dot_product_attention(
        query[:, None], known[:, None], known[:, None], attn_mask=seen[:, None, None], scale=attention.scale
    )
    return torch.einsum("bhr,hvr->bhv", mixed[:, 0, :, :rank], w_uv)
