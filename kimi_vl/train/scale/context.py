"""Context parallelism: the processes of a group share out the tokens of one row, however long its samples are.

    a row of T tokens in 2c pieces: process n of c takes the n-th and the n-th from the end, so that all have about as
    much to look back on
    pictures: each goes through the tower of one process; all processes get the features
    attention: queries stay; every layer's latents [T, rank + rope], of which there are few, go to everybody
    router: scores go to everybody, since balance is a matter of whole samples

Put into a learner from outside. The loss of a token is found where the token is.
Source: The Llama 3 Herd of Models (arXiv 2407.21783), section 3.3.2, for gathered keys; latents are MLA's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from kimi_vl.model.attention import MultiHeadLatentAttention
from kimi_vl.model.decoder import DecoderLayer, Hidden
from kimi_vl.model.moe import Routing
from kimi_vl.train.data.packing import Batch
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.parallel import gathered


@dataclass(frozen=True)
class Share(Batch):
    """What one process of a group sees of a batch.

    ``lengths`` are those of the whole row's samples, which every process counts, as it does their balance loss.
    """

    features: Tensor  # [placeholders here], which of all pictures' features stand there
    feature_counts: list[int]  # how many features each process finds


@dataclass(frozen=True)
class Cut:
    """How a row of ``tokens`` is shared out among ``processes``."""

    tokens: int
    processes: int

    def pieces(self, process: int) -> tuple[range, range]:
        edges = [self.tokens * i // (2 * self.processes) for i in range(2 * self.processes + 1)]
        early, late = process, 2 * self.processes - 1 - process
        return range(edges[early], edges[early + 1]), range(edges[late], edges[late + 1])

    @property
    def sizes(self) -> list[int]:
        return [sum(map(len, self.pieces(process))) for process in range(self.processes)]

    def rows(self, process: int) -> Tensor:
        """The places of its tokens in the row: [T here], rising."""
        return torch.cat([torch.arange(piece.start, piece.stop) for piece in self.pieces(process)])

    @property
    def order(self) -> Tensor:
        """Puts what all processes have, end to end, into the row's order: [T]."""
        return torch.cat([self.rows(process) for process in range(self.processes)]).argsort()


def share_of(batch: Batch, process: int, processes: int, *, placeholder: int, merged: int) -> Share:
    """What ``process`` sees of a batch; ``merged`` patches give one feature."""
    rows = Cut(len(batch.input_ids), processes).rows(process)
    here = torch.isin(batch.seen, rows)
    is_picture = batch.input_ids == placeholder
    which = is_picture.cumsum(0) - 1
    ids = batch.input_ids[rows]
    patches = batch.image_grid_hws.prod(1)
    ends = patches.cumsum(0)
    # A picture belongs to whom its middle falls to.
    owner = ((ends - patches / 2) * processes / max(1, int(patches.sum()))).long()
    mine = owner == process
    counts = [int(patches[owner == p].sum()) // merged for p in range(processes)]
    pixels = None
    if batch.pixels is not None:
        pixels = batch.pixels[mine.repeat_interleave(patches)]
    return Share(
        input_ids=ids,
        positions=batch.positions[rows],
        targets=batch.targets[rows],
        seen=torch.searchsorted(rows, batch.seen[here]),
        weights=batch.weights[here],
        lengths=batch.lengths,
        pixels=pixels,
        image_grid_hws=batch.image_grid_hws[mine],
        written=[text for text, is_mine in zip(batch.written, mine.tolist(), strict=True) if is_mine],
        features=which[rows][ids == placeholder],
        feature_counts=counts,
    )


def spread_context(learner: Learner, group: dist.ProcessGroup) -> None:
    """Has a learner's decoder work on shares of rows."""
    for layer in learner.model.language_model.model.layers:
        assert isinstance(layer, DecoderLayer)
        layer.self_attn.attend_packed = partial(_attend, layer.self_attn, group)  # type: ignore[method-assign]
    learner.decode = partial(_decode, learner, group)  # type: ignore[method-assign]


def _decode(
    learner: Learner, group: dist.ProcessGroup, batch: Batch, features: Tensor | None, at: Tensor | None = None
) -> Hidden:
    assert isinstance(batch, Share)
    if features is not None:
        everyones = gathered(features, batch.feature_counts, group)
        features = everyones.index_select(0, batch.features.to(everyones.device))
    embeds = learner.model.embed(batch.input_ids, features, at)
    hidden = learner.model.hidden(embeds, batch.positions, batch.lengths)
    cut = Cut(sum(batch.lengths), dist.get_world_size(group))
    return Hidden(hidden.states, [_whole(routing, cut, group) for routing in hidden.routings])


def _whole(routing: Routing, cut: Cut, group: dist.ProcessGroup) -> Routing:
    scores, chosen, weights = (
        gathered(x, cut.sizes, group).index_select(0, cut.order.to(x.device))
        for x in (routing.scores, routing.topk_idx, routing.topk_weight)
    )
    return Routing(scores, chosen, weights)


def _attend(
    attention: MultiHeadLatentAttention,
    group: dist.ProcessGroup,
    x: Tensor,
    angles: Tensor,
    lengths: Sequence[int],
) -> Tensor:
    """[T here, D] → [T here, D]."""
    cut = Cut(sum(lengths), dist.get_world_size(group))
    mine = torch.cat(attention.latents(x, angles), dim=-1)
    everyones = gathered(mine, cut.sizes, group).index_select(0, cut.order.to(x.device))
    k, v = attention.expand(*everyones.split((attention.kv_lora_rank, attention.rope_dim), dim=-1))
    q = torch.cat(attention.queries(x, angles), dim=-1)
    spans = list(_spans(cut.pieces(dist.get_rank(group)), lengths))
    return attention.o_proj(_attended(q, k, v, spans, attention.scale).flatten(1))


@dataclass(frozen=True)
class Span:
    """Queries that lie together in a sample, and everything of the sample up to the last of them."""

    queries: int
    keys: range  # places in the row


def _spans(pieces: Sequence[range], lengths: Sequence[int]) -> list[Span]:
    """In the order of the queries here."""
    ends = list(itertools.accumulate(lengths))
    return [
        Span(min(end, piece.stop) - max(end - length, piece.start), range(end - length, min(end, piece.stop)))
        for piece in pieces
        for end, length in zip(ends, lengths, strict=True)
        if max(end - length, piece.start) < min(end, piece.stop)
    ]


def _attended(q: Tensor, k: Tensor, v: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
    """Attention of every span's queries to its keys, the last query seeing all: [T here, H, v]."""
    v_dim = v.shape[-1]
    v = F.pad(v, (0, q.shape[-1] - v_dim))
    if q.device.type == "cuda" and q.dtype != torch.float32:
        # One kernel for all spans, which torch has for GPUs only.
        from torch.nn.attention.varlen import varlen_attn

        at = torch.cat([torch.arange(span.keys.start, span.keys.stop) for span in spans]).to(q.device)
        counts = [span.queries for span in spans], [len(span.keys) for span in spans]
        q_ends, k_ends = (
            torch.tensor([0, *itertools.accumulate(c)], dtype=torch.int32, device=q.device) for c in counts
        )
        longest = max(counts[0]), max(counts[1])
        keys, values = k.index_select(0, at), v.index_select(0, at)
        out = varlen_attn(q, keys, values, q_ends, k_ends, *longest, scale=scale, window_size=(-1, 0))
        assert isinstance(out, Tensor)
        return out[..., :v_dim]
    outs = []
    for span, queries in zip(spans, q.split([span.queries for span in spans]), strict=True):
        keys, values = k[span.keys.start : span.keys.stop], v[span.keys.start : span.keys.stop]
        sees = torch.ones(span.queries, len(keys), dtype=torch.bool, device=q.device).tril(len(keys) - span.queries)
        one, ones, others = (y.transpose(0, 1).unsqueeze(0) for y in (queries, keys, values))  # [1, H, tokens, dim]
        outs.append(F.scaled_dot_product_attention(one, ones, others, attn_mask=sees, scale=scale)[0].transpose(0, 1))
    return torch.cat(outs)[..., :v_dim]
