"""Multi-head latent attention (MLA), in its two equal forms.

    x [T, D] ─ q_proj ──────────────→ q_nope [T, H, nope], q_rope [T, H, rope]
             └ kv_a_proj_with_mqa ──→ latent [T, rank] (normed), k_rope [T, rope] (one for all heads)

    plain     kv_b_proj expands every latent to k_nope, v of each head; ordinary attention follows
    absorbed  q_nope goes through W_UK into latent space, attends there, and W_UV brings the result back

The cache holds latent and turned k_rope only. T tokens, H heads, S cached and new tokens together.
Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1; Kimi-VL has no query compression.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_vl.config import TextConfig
from kimi_vl.model.norm import RMSNorm
from kimi_vl.model.rotary import rotate_pairs
from kimi_vl.model.segments import Forks, forked_attention, segment_attention

# The official class builds this norm without the config's rms_norm_eps.
KV_A_LAYERNORM_EPS = 1e-6


def rope_angles(positions: Tensor, config: TextConfig) -> Tensor:
    """Angles of each position, position · theta^(-2j/rope_dim): [T, rope_dim / 2] float32."""
    steps = torch.arange(0, config.qk_rope_head_dim, 2, dtype=torch.float32, device=positions.device)
    inv_freq = 1.0 / (config.rope_theta ** (steps / config.qk_rope_head_dim))
    return positions.float()[:, None] * inv_freq


class LatentCache:
    """What one sequence leaves behind in every layer: its latents [S, rank] and turned rope keys [S, rope].

    ``length`` counts the tokens that have passed the whole decoder. Room is doubled as it fills.
    """

    def __init__(self, config: TextConfig, *, dtype: torch.dtype, device: torch.device) -> None:
        self.length = 0
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self._rank = config.kv_lora_rank
        self._rows = torch.empty(config.num_hidden_layers, 64, width, dtype=dtype, device=device)

    def extend(self, layer: int, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """Adds T tokens to one layer. Returns that layer's whole latents [S, rank] and rope keys [S, rope]."""
        end = self.length + latent.shape[0]
        if end > self._rows.shape[1]:
            room = max(end, 2 * self._rows.shape[1])
            rows = self._rows.new_empty(self._rows.shape[0], room, self._rows.shape[2])
            rows[:, : self._rows.shape[1]] = self._rows
            self._rows = rows
        self._rows[layer, self.length : end] = torch.cat((latent, k_rope), dim=-1)
        whole = self._rows[layer, :end]
        return whole[:, : self._rank], whole[:, self._rank :]


class MultiHeadLatentAttention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.kv_lora_rank, self.v_head_dim = config.kv_lora_rank, config.v_head_dim
        self.nope_dim, self.rope_dim = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.scale = config.qk_head_dim**-0.5
        heads, dim = self.num_heads, config.hidden_size
        self.q_proj = nn.Linear(dim, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(dim, self.kv_lora_rank + self.rope_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, KV_A_LAYERNORM_EPS)
        self.kv_b_proj = nn.Linear(self.kv_lora_rank, heads * (self.nope_dim + self.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * self.v_head_dim, dim, bias=False)

    def queries(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """[T, D] → q_nope [T, H, nope] and turned q_rope [T, H, rope]."""
        q = self.q_proj(x).unflatten(-1, (self.num_heads, self.nope_dim + self.rope_dim))
        q_nope, q_rope = q.split((self.nope_dim, self.rope_dim), dim=-1)
        return q_nope, rotate_pairs(q_rope, angles)

    def latents(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """[T, D] → normed latent [T, rank] and turned k_rope [T, rope]."""
        latent, k_rope = self.kv_a_proj_with_mqa(x).split((self.kv_lora_rank, self.rope_dim), dim=-1)
        return self.kv_a_layernorm(latent), rotate_pairs(k_rope.unsqueeze(1), angles).squeeze(1)

    def expand(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [S, rank], k_rope [S, rope] → every head's keys [S, H, nope + rope] and values [S, H, v]."""
        kv = self.kv_b_proj(latent).unflatten(-1, (self.num_heads, self.nope_dim + self.v_head_dim))
        k_nope, v = kv.split((self.nope_dim, self.v_head_dim), dim=-1)
        shared = k_rope.unsqueeze(1).expand(-1, self.num_heads, -1)
        return torch.cat((k_nope, shared), dim=-1), v

    def attend_packed(self, x: Tensor, angles: Tensor, lengths: Sequence[int]) -> Tensor:
        """Plain form over whole sequences, end to end: [T, D] → [T, D]."""
        k, v = self.expand(*self.latents(x, angles))
        q = torch.cat(self.queries(x, angles), dim=-1)
        out = segment_attention(q, k, v, lengths, scale=self.scale, causal=True)
        return self.o_proj(out.flatten(1))

    def attend_forked(self, x: Tensor, angles: Tensor, forks: Forks) -> Tensor:
        """Plain form over beginnings, each before several ways to go on, end to end: [T, D] → [T, D]."""
        k, v = self.expand(*self.latents(x, angles))
        q = torch.cat(self.queries(x, angles), dim=-1)
        return self.o_proj(forked_attention(q, k, v, forks, scale=self.scale).flatten(1))

    def attend_cached(self, x: Tensor, angles: Tensor, cache: LatentCache, layer: int) -> Tensor:
        """The next T tokens of one sequence, over its cache, which they join: [T, D] → [T, D]."""
        q_nope, q_rope = self.queries(x, angles)
        latent, k_rope = cache.extend(layer, *self.latents(x, angles))
        form = self.absorbed if self.absorbing_pays(x.shape[0]) else self.plain
        return self.o_proj(form(q_nope, q_rope, latent, k_rope).flatten(1))

    def absorbing_pays(self, new_tokens: int) -> bool:
        """Absorbed attention costs more per pair of tokens, plain attention expands every latent once."""
        rank, rope, nope, v = self.kv_lora_rank, self.rope_dim, self.nope_dim, self.v_head_dim
        dearer_by = (2 * rank + rope) - (nope + rope + v)
        return new_tokens * dearer_by < rank * (nope + v)

    def plain(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor) -> Tensor:
        """q_nope [T, H, nope], q_rope [T, H, rope], latent [S, rank], k_rope [S, rope] → [T, H, v].

        The T queries belong to the last T of the S tokens.
        """
        k, v = self.expand(latent, k_rope)
        q = torch.cat((q_nope, q_rope), dim=-1)
        v = F.pad(v, (0, q.shape[-1] - self.v_head_dim)) if q.shape[-1] > self.v_head_dim else v
        q, k, v = (y.transpose(0, 1).unsqueeze(0) for y in (q, k, v))  # [1, H, T or S, dim]
        mask = _causal_mask(q.shape[2], k.shape[2], q.device)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return out.squeeze(0).transpose(0, 1)[..., : self.v_head_dim]

    def absorbed(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor) -> Tensor:
        """The same as :meth:`plain`, without expanding a latent."""
        w = self.kv_b_proj.weight.view(self.num_heads, self.nope_dim + self.v_head_dim, self.kv_lora_rank)
        w_uk, w_uv = w.split((self.nope_dim, self.v_head_dim), dim=1)  # [H, nope, rank], [H, v, rank]
        q_latent = torch.einsum("thn,hnr->htr", q_nope, w_uk)
        scores = q_latent @ latent.T + q_rope.transpose(0, 1) @ k_rope.T  # [H, T, S]
        mask = _causal_mask(scores.shape[1], scores.shape[2], scores.device)
        scores = (scores.float() * self.scale).masked_fill(~mask, float("-inf"))
        mixed = scores.softmax(-1).to(latent.dtype) @ latent  # [H, T, rank]
        return torch.einsum("htr,hvr->thv", mixed, w_uv)


def _causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """[T, S] bool: the last T of S tokens, each seeing itself and what came before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
