"""The decoder: embeddings → dense first layer → MoE layers → norm → head.

    inputs_embeds [T, D] → layers (MLA, then SwiGLU or MoE; pre-norm) → norm → hidden [T, D] → lm_head [T, V]

Tokens come packed: several whole sequences end to end with their lengths, or beginnings that several go on from, or the
next tokens of one sequence with its cache. Knows nothing of pictures.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kimi_vl.config import TextConfig
from kimi_vl.model.attention import LatentCache, MultiHeadLatentAttention, rope_angles
from kimi_vl.model.moe import MoE, Routing, SwiGLU
from kimi_vl.model.norm import RMSNorm
from kimi_vl.model.segments import Forks

Context = Sequence[int] | Forks | LatentCache


@dataclass(frozen=True)
class Hidden:
    states: Tensor  # [T, D], after the final norm
    routings: list[Routing]  # one per MoE layer, first layer first


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.self_attn = MultiHeadLatentAttention(config)
        self.mlp: MoE | SwiGLU
        if config.is_moe_layer(index):
            self.mlp = MoE(config)
        else:
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, angles: Tensor, context: Context) -> tuple[Tensor, Routing | None]:
        normed = self.input_layernorm(x)
        if isinstance(context, LatentCache):
            x = x + self.self_attn.attend_cached(normed, angles, context, self.index)
        elif isinstance(context, Forks):
            x = x + self.self_attn.attend_forked(normed, angles, context)
        else:
            x = x + self.self_attn.attend_packed(normed, angles, context)
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MoE):
            y, routing = self.mlp(normed)
            return x + y, routing
        return x + self.mlp(normed), None


class Decoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        # Without numbers: to draw them where no memory is (meta) imports a compiler, which takes seconds.
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.hidden_size), freeze=False
        )
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, context: Context) -> Hidden:
        """Runs embedded tokens through all layers.

        Args:
            x: [T, D] embeddings, in the weights' dtype.
            positions: [T] integers, each token's place in its own sequence.
            context: the lengths of whole sequences that lie end to end in ``x``; or beginnings, each before several
                ways to go on; or the cache of the one sequence that ``x`` continues, which then holds these tokens too.
        """
        angles = rope_angles(positions, self.config)
        routings = []
        for layer in self.layers:
            x, routing = layer(x, angles, context)
            if routing is not None:
                routings.append(routing)
        if isinstance(context, LatentCache):
            context.length += x.shape[0]
        return Hidden(self.norm(x), routings)


class LanguageModel(nn.Module):
    """The decoder with its head, under the official checkpoint's names."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
