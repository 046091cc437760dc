"""The native functions as functions of tensors: what is checked here is not checked there.

In and out: CPU tensors, contiguous, float32 unless said otherwise (T tokens, D width). The library is that of
``native/``, compiled for the processor's kind. Each function has its equal in :mod:`kimi_vl.engine.reference`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kimi_vl.engine.int4 import BLOCK_BYTES, BLOCK_COLUMNS, BLOCK_ROWS, Int4Matrix, Loss, likeliest
from kimi_vl.engine.opened import Opened, by_torch
from kimi_vl.engine.pages import PAGE, row_bytes
from kimi_vl.engine.weights import DecoderWeights, FeedForwardWeights, LatentAttentionWeights, Segment, SwiGLUWeights

NATIVE = Path(__file__).parent / "native"
# Best first.
KINDS = ("avx512", "avx2", "portable")


class _Int4(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.c_void_p),
        ("row_scale", ctypes.c_void_p),
        ("rest", ctypes.c_void_p),
        ("rest_scale", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


class _SwiGLU(ctypes.Structure):
    _fields_ = (("gate_up", _Int4), ("down", _Int4))


class _FeedForward(ctypes.Structure):
    _fields_ = (
        ("norm", ctypes.c_void_p),
        ("eps", ctypes.c_float),
        ("hidden", ctypes.c_int32),
        ("shared", _SwiGLU),
        ("experts", ctypes.c_int32),
        ("chosen", ctypes.c_int32),
        ("groups", ctypes.c_int32),
        ("kept_groups", ctypes.c_int32),
        ("normalize", ctypes.c_int32),
        ("routed_scale", ctypes.c_float),
        ("router", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("one", _SwiGLU),
    )


class _LatentAttention(ctypes.Structure):
    _fields_ = (
        ("norm", ctypes.c_void_p),
        ("latent_norm", ctypes.c_void_p),
        ("frequency", ctypes.c_void_p),
        ("eps", ctypes.c_float),
        ("latent_eps", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("hidden", "heads", "rank", "nope", "rope", "value")),
        *((name, _Int4) for name in ("q", "latent", "o", "mix", "key", "upright")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (("attention", _LatentAttention), ("feed_forward", _FeedForward))


class _Segment(ctypes.Structure):
    _fields_ = (
        ("pages", ctypes.c_void_p),
        ("tokens", ctypes.c_int32),
        ("start", ctypes.c_int32),
        ("is_prompt", ctypes.c_int32),
    )


class Kernels:
    """The library for one kind of processor, with its threads."""

    def __init__(self, kind: str, threads: int) -> None:
        """Raises: ``OSError`` if there is no library of this kind or the processor cannot run it."""
        library = ctypes.CDLL(str(NATIVE / f"{kind}.so"))
        library.kimi_vl_supported.restype = ctypes.c_int
        if not library.kimi_vl_supported():
            raise OSError(f"this processor has no {kind}")
        library.many_bytes.restype = ctypes.c_int64
        library.pool_start.restype = ctypes.c_void_p
        library.pool_start.argtypes = (ctypes.c_int,)
        self.kind = kind
        self.threads = threads
        self.torch_threads = 1  # beside its own
        # With AVX2 it multiplies for pictures too, and torch's threads, which spin for a while, would be in its way.
        self.picture_torch_threads = 1 if kind == "avx2" else threads
        self._number = torch.bfloat16 if kind == "avx512" else torch.float32
        self._library = library
        self._pool = ctypes.c_void_p(library.pool_start(threads))
        # As the library takes them, made once.
        self._decoders: WeakKeyDictionary[DecoderWeights, ctypes.Array[_Layer]] = WeakKeyDictionary()

    def encode(self, weights: Tensor) -> tuple[Int4Matrix, Loss]:
        """A matrix [rows, columns] to 4 bits; see :func:`kimi_vl.engine.int4.encode`."""
        rows, columns = weights.shape
        _check(weights, torch.float32, rows, columns)
        padded = -(-rows // BLOCK_ROWS) * BLOCK_ROWS
        blocks = torch.empty(padded // BLOCK_ROWS, -(-columns // BLOCK_COLUMNS), BLOCK_BYTES, dtype=torch.uint8)
        row_scale = torch.empty(padded)
        squared = (ctypes.c_double * 2)()
        self._library.int4_encode(
            self._pool,
            _at(weights),
            ctypes.c_int64(rows),
            ctypes.c_int64(columns),
            _at(blocks),
            _at(row_scale),
            squared,
        )
        return Int4Matrix(blocks, row_scale, rows, columns), Loss(*squared)

    def linear(self, x: Tensor, matrix: Int4Matrix, *, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
        """x [T, D], after RMSNorm if ``norm`` [D] is given, times a matrix [rows, D]: [T, rows]."""
        return self._linear_padded(x, matrix, norm, eps)[:, : matrix.rows]

    def _linear_padded(self, x: Tensor, matrix: Int4Matrix, norm: Tensor | None, eps: float) -> Tensor:
        tokens, width = x.shape
        _check(x, torch.float32, tokens, width)
        assert matrix.columns == width and matrix.blocks.dim() == 3
        out = torch.empty(tokens, matrix.row_scale.shape[-1])
        self._library.int4_linear(
            self._pool,
            _at(x),
            ctypes.c_int64(width),
            ctypes.c_int64(tokens),
            _at(norm),
            ctypes.c_float(eps),
            ctypes.byref(_int4(matrix)),
            _at(out),
        )
        return out

    def vocabulary(self, x: Tensor, matrix: Int4Matrix, *, norm: Tensor, eps: float, exact: int) -> Tensor:
        """x [T, D], after RMSNorm, times a matrix [V, D] that has a rest: [T, V].

        The rest is added but in those ``exact`` blocks of 16 rows of each token that have the largest sums without it,
        and not read for others.
        """
        rest = matrix.rest
        assert rest is not None
        found = self._linear_padded(x, replace(matrix, rest=None), norm, eps)
        wanted, places = likeliest(found, exact)
        more = torch.empty(*wanted.shape, BLOCK_ROWS)
        self._library.int4_linear_some(
            self._pool,
            _at(x),
            ctypes.c_int64(x.shape[1]),
            ctypes.c_int64(len(x)),
            _at(norm),
            ctypes.c_float(eps),
            ctypes.byref(_int4(rest)),
            _at(wanted),
            ctypes.c_int64(wanted.shape[1]),
            _at(more),
        )
        return found.scatter_add_(1, places, more.flatten(1))[:, : matrix.rows]

    def opened(self, matrix: Int4Matrix, bias: Tensor, *, gelu: bool = False) -> Opened:
        """x [T, D] → x times a matrix [rows, D], plus bias, then GELU if that is wanted: [T, rows], for thousands of x.

        The weights are as large as this multiplies them fastest for as long as it is kept: bfloat16 with AVX-512, by
        torch; 16 bits with AVX2, half as fast again as torch with float32; else float32, by torch.
        """
        if self.kind != "avx2":
            return by_torch(self.numbers(matrix), bias, gelu=gelu)
        size = ctypes.c_int64(matrix.rows), ctypes.c_int64(matrix.columns)
        packed = torch.empty(self._library.many_bytes(*size), dtype=torch.uint8)
        self._library.many_pack(self._pool, ctypes.byref(_int4(matrix)), *size, _at(packed))

        def times(x: Tensor) -> Tensor:
            _check(x, torch.float32, len(x), matrix.columns)
            _check(bias, torch.float32, matrix.rows)
            out = torch.empty(len(x), matrix.rows)
            count = ctypes.c_int64(len(x))
            self._library.many_times(
                self._pool, _at(x), count, _at(packed), *size, _at(bias), ctypes.c_int32(gelu), _at(out)
            )
            return out

        return times

    def numbers(self, matrix: Int4Matrix) -> Tensor:
        """A matrix [rows, columns] as torch multiplies many rows by it: bfloat16 with AVX-512, else float32."""
        assert matrix.blocks.dim() == 3
        numbers = torch.empty(matrix.rows, matrix.columns, dtype=self._number)
        self._library.int4_numbers(
            self._pool,
            ctypes.byref(_int4(matrix)),
            ctypes.c_int64(matrix.rows),
            ctypes.c_int64(matrix.columns),
            _at(numbers),
        )
        return numbers

    def feed_forward(self, x: Tensor, weights: FeedForwardWeights) -> Tensor | None:
        """Adds the feed-forward half of a layer to x [T, D]. Returns whom each token chose: [T, k] int32, ascending."""
        tokens = len(x)
        _check(x, torch.float32, tokens, weights.norm.shape[0])
        chosen = None
        if weights.routed is not None:
            chosen = torch.empty(tokens, weights.routed.chosen, dtype=torch.int32)
        self._library.feed_forward_run(
            self._pool, ctypes.byref(_feed_forward(weights)), _at(x), ctypes.c_int64(tokens), _at(chosen), None
        )
        return chosen

    def latent_attention(
        self, x: Tensor, weights: LatentAttentionWeights, segments: Sequence[Segment], cache: Tensor
    ) -> None:
        """Adds the attention half of a layer to x [T, D], and the tokens to one layer's cache.

        ``cache`` is [pages, 64, rank + rope] bfloat16, or int8 with the scales behind each row
        (:func:`kimi_vl.engine.pages.row_bytes`). The segments follow one another in ``x``, prompts last.
        """
        _check_step(x, weights, segments, cache[None])
        _tables, listed = _segments(segments)
        self._library.latent_attention_run(
            self._pool,
            ctypes.byref(_latent_attention(weights)),
            _at(x),
            listed,
            ctypes.c_int32(len(segments)),
            _at(cache),
            ctypes.c_int32(cache.dtype == torch.int8),
            None,
        )

    def layers(self, x: Tensor, decoder: DecoderWeights, segments: Sequence[Segment], cache: Tensor) -> Tensor | None:
        """Both halves of all layers over x [T, D]; ``cache`` is [layers, pages, …].

        Returns whom each token chose: [layers that have experts, T, k] int32, ascending.
        """
        assert len(cache) == len(decoder.layers)
        _check_step(x, decoder.layers[0][0], segments, cache)
        argument = self._decoders.get(decoder)
        if argument is None:
            made = (_Layer(_latent_attention(a), _feed_forward(f)) for a, f in decoder.layers)
            argument = self._decoders[decoder] = (_Layer * len(decoder.layers))(*made)
        routed = [f.routed for _, f in decoder.layers if f.routed is not None]
        chosen = torch.empty(len(routed), len(x), routed[0].chosen, dtype=torch.int32) if routed else None
        _tables, listed = _segments(segments)
        self._library.decoder_run(
            self._pool,
            argument,
            ctypes.c_int32(len(argument)),
            _at(x),
            listed,
            ctypes.c_int32(len(segments)),
            _at(cache),
            ctypes.c_int64(cache.stride(0) * cache.element_size()),
            ctypes.c_int32(cache.dtype == torch.int8),
            _at(chosen),
        )
        return chosen

    def picture_attention(self, qkv: Tensor, angles: Tensor) -> Tensor:
        """Attention of a picture's patches, qkv [L, 3, H, dim] → [L, H, dim]; ``angles`` [L, dim / 2] turn q and k."""
        patches, _, heads, dim = qkv.shape
        _check(qkv, torch.float32, patches, 3, heads, dim)
        cosine, sine = angles.cos(), angles.sin()
        _check(cosine, torch.float32, patches, dim // 2)
        out = torch.empty(patches, heads, dim)
        self._library.picture_attention(
            self._pool,
            _at(qkv),
            _at(cosine),
            _at(sine),
            ctypes.c_int64(patches),
            ctypes.c_int64(heads),
            ctypes.c_int64(dim),
            _at(out),
        )
        return out


def _check(x: Tensor, dtype: torch.dtype, *shape: int) -> None:
    assert x.dtype == dtype and tuple(x.shape) == shape and x.is_contiguous() and x.device.type == "cpu"


def _check_step(x: Tensor, weights: LatentAttentionWeights, segments: Sequence[Segment], cache: Tensor) -> None:
    """``cache`` is [layers, pages, …]."""
    _check(x, torch.float32, sum(s.tokens for s in segments), weights.norm.shape[0])
    eight = cache.dtype == torch.int8
    row = row_bytes(weights.rank, weights.rope, "int8") if eight else weights.rank + weights.rope
    _check(cache, torch.int8 if eight else torch.bfloat16, *cache.shape[:2], PAGE, row)


def _segments(segments: Sequence[Segment]) -> tuple[list[Tensor], ctypes.Array[_Segment]]:
    """Pages of each, which must be kept as long as the segments are used."""
    tables = [torch.tensor(s.pages, dtype=torch.int32) for s in segments]
    listed = (
        _Segment(table.data_ptr(), s.tokens, s.start, s.is_prompt) for table, s in zip(tables, segments, strict=True)
    )
    return tables, (_Segment * len(segments))(*listed)


def _at(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _int4(m: Int4Matrix) -> _Int4:
    """The first of the stacked matrices; the others are found from it."""
    row_blocks, column_blocks, _ = m.blocks.shape[-3:]
    rows, columns = row_blocks * BLOCK_ROWS, column_blocks * BLOCK_COLUMNS
    stride = _stride(m)
    rest: tuple[int | None, int | None] = (None, None)
    if m.rest is not None:
        assert m.rest.blocks.shape == m.blocks.shape and _stride(m.rest) == stride
        rest = (m.rest.blocks.data_ptr(), m.rest.row_scale.data_ptr())
    return _Int4(m.blocks.data_ptr(), m.row_scale.data_ptr(), *rest, rows, columns, stride)


def _stride(m: Int4Matrix) -> int:
    """Bytes from 16 rows to the next, through all stacked matrices."""
    *stack, row_blocks, column_blocks, _ = m.blocks.shape
    *stacked, stride, of_block, of_byte = m.blocks.stride()
    assert (of_block, of_byte) == (BLOCK_BYTES, 1) and stride >= column_blocks * BLOCK_BYTES
    assert not stack or (len(stack) == 1 and stacked == [row_blocks * stride])
    assert m.row_scale.is_contiguous()
    return stride


def _swiglu(w: SwiGLUWeights) -> _SwiGLU:
    return _SwiGLU(_int4(w.gate_up), _int4(w.down))


def _feed_forward(w: FeedForwardWeights) -> _FeedForward:
    f = _FeedForward(norm=w.norm.data_ptr(), eps=w.eps, hidden=w.norm.shape[0], shared=_swiglu(w.shared))
    if w.routed is not None:
        r = w.routed
        f.experts, f.chosen, f.groups, f.kept_groups = r.router.shape[0], r.chosen, r.groups, r.kept_groups
        f.normalize, f.routed_scale = r.normalize, r.scale
        f.router, f.bias, f.one = r.router.data_ptr(), r.bias.data_ptr(), _swiglu(r.experts)
    return f


def _latent_attention(w: LatentAttentionWeights) -> _LatentAttention:
    assert w.rank % 16 == w.nope % 16 == w.value % 16 == 0
    return _LatentAttention(
        norm=w.norm.data_ptr(),
        latent_norm=w.latent_norm.data_ptr(),
        frequency=w.frequency.data_ptr(),
        eps=w.eps,
        latent_eps=w.latent_eps,
        hidden=w.norm.shape[0],
        heads=w.heads,
        rank=w.rank,
        nope=w.nope,
        rope=w.rope,
        value=w.value,
        q=_int4(w.q),
        latent=_int4(w.latent),
        o=_int4(w.o),
        mix=_int4(w.mix),
        key=_int4(w.key),
        upright=_int4(w.upright),
    )
