"""Every native library that runs here against plain torch, and against itself cut in other ways."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kimi_vl.engine import int4
from kimi_vl.engine.backend import Backend, backend
from kimi_vl.engine.kernels import KINDS, NATIVE, Kernels
from kimi_vl.engine.latents import empty_cache
from kimi_vl.engine.pages import CacheDtype
from kimi_vl.engine.reference import Reference
from kimi_vl.engine.weights import DecoderWeights, Ends, LatentAttentionWeights, Segment
from kimi_vl.model.rotary import rotate_pairs
from tests.layers import Sizes, attention_weights, feed_forward_weights, matrix

REFERENCE = Reference(1)


def runnable() -> list[Kernels]:
    found = []
    for kind in KINDS:
        try:
            found.append(Kernels(kind, 2))
        except OSError:
            assert not (NATIVE / f"{kind}.so").exists() or kind != "portable"
    return found


NATIVES = runnable()
every_native = pytest.mark.parametrize("native", NATIVES, ids=lambda n: n.kind)


def off_by(found: Tensor, wanted: Tensor) -> float:
    """Relative error over all numbers."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-9))


def test_the_libraries_are_there() -> None:
    assert "portable" in [native.kind for native in NATIVES], "the package was installed without a compiler"
    assert backend(2).kind == NATIVES[0].kind


# --- 4-bit matrices ----------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 70), st.integers(1, 300))


@given(sizes, st.integers(0, 2**30))
@settings(max_examples=30, deadline=None)
def test_packing_loses_nothing(size: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    rows, columns = -(-size[0] // 16) * 16, -(-size[1] // 128) * 128
    q = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    scale = torch.randint(-127, 128, (rows, columns // 32), dtype=torch.int8)
    packed = int4.pack(q, scale, torch.rand(rows), rows=size[0], columns=size[1])
    q_again, scale_again = int4.unpack(packed)
    assert torch.equal(q, q_again) and torch.equal(scale, scale_again)
    index = torch.randint(0, size[0], (5,))
    assert torch.equal(int4.rows_of(packed, index), int4.decode(packed)[index])


@every_native
@given(size=sizes, seed=st.integers(0, 2**30), spread=st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
@settings(max_examples=25, deadline=None)
def test_encoding_is_that_of_torch(native: Kernels, size: tuple[int, int], seed: int, spread: float) -> None:
    torch.manual_seed(seed)
    weights = torch.randn(*size) * spread
    found, loss = native.encode(weights)
    wanted, wanted_loss = int4.encode(weights)
    assert loss.relative == pytest.approx(wanted_loss.relative, rel=1e-3, abs=1e-6)
    # sums in another order may make another of two equal scales the better one
    assert off_by(int4.decode(found), int4.decode(wanted)) < 0.02
    squared_error = float((int4.decode(found) - weights).square().sum())
    assert loss.squared_error == pytest.approx(squared_error, rel=1e-3, abs=1e-9 * loss.squared)


def test_encoding_loses_less_than_plain_maximum_scaling() -> None:
    torch.manual_seed(0)
    weights = torch.randn(256, 2048)
    groups = weights.unflatten(1, (-1, 32))
    most = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    step = (most / -8).half().float()  # Q4_0 of llama.cpp: the largest goes to -8, scales are float16
    plain = ((groups / step).round().clamp(-8, 7) * step - groups).square().sum().sqrt() / groups.norm()
    assert int4.encode(weights)[1].relative < 0.95 * float(plain)


def test_outliers_and_empty_rows_are_kept() -> None:
    weights = torch.zeros(20, 130)
    weights[3, 129] = -5.0
    weights[4] = 1.0
    for encoded in (int4.encode(weights)[0], *(native.encode(weights)[0] for native in NATIVES)):
        decoded = int4.decode(encoded)
        assert decoded[3, 129] == pytest.approx(-5.0, rel=1e-5)
        assert torch.allclose(decoded[4], torch.ones(130), rtol=1e-2)
        assert not decoded[[0, 1, 2, *range(5, 20)]].any()


@every_native
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 300),
    tokens=st.integers(1, 21),
    normed=st.booleans(),
    twice=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(max_examples=40, deadline=None)
def test_products_are_those_of_torch(
    native: Kernels, rows: int, columns: int, tokens: int, normed: bool, twice: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    stored = matrix(rows, columns, twice=twice)
    norm = torch.rand(columns) + 0.5 if normed else None
    x = torch.randn(tokens, columns)
    found = native.linear(x, stored, norm=norm, eps=1e-5)
    # a number at the edge of two steps of 8 bits may fall either way
    assert off_by(found, REFERENCE.linear(x, stored, norm=norm, eps=1e-5)) < 5e-3
    alone = [native.linear(row[None], stored, norm=norm, eps=1e-5) for row in x]
    assert torch.equal(found, torch.cat(alone))


@every_native
@given(size=sizes, twice=st.booleans(), seed=st.integers(0, 2**30))
@settings(max_examples=25, deadline=None)
def test_a_matrix_becomes_the_numbers_that_torch_has(
    native: Kernels, size: tuple[int, int], twice: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    stored = matrix(*size, twice=twice)
    found, wanted = native.numbers(stored), REFERENCE.numbers(stored)
    assert found.dtype == (torch.bfloat16 if native.kind == "avx512" else torch.float32)
    step = 1e-6 if found.dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.float(), wanted, rtol=step, atol=1e-6 * float(wanted.abs().max()))


# What is multiplied where it is not 8-bit: bfloat16, 13 bits, or float32.
TOLERANCE = {"avx512": 1e-2, "avx2": 1e-3, "portable": 1e-5}


@every_native
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 16, 2), (5, 16, 128), (50, 40, 300), (333, 100, 588), (49, 30, 2500)]
)
def test_many_rows_meet_a_matrix_as_in_torch(native: Kernels, count: int, rows: int, columns: int, gelu: bool) -> None:
    """Of more columns than stay in a core's cache, too."""
    torch.manual_seed(0)
    stored, bias, x = matrix(rows, columns, twice=True), torch.randn(rows), 3 * torch.randn(count, columns)
    x[0] = 0
    found, wanted = (by.opened(stored, bias, gelu=gelu)(x) for by in (native, REFERENCE))
    assert off_by(found, wanted) < TOLERANCE[native.kind]
    assert torch.equal(native.opened(stored, bias, gelu=gelu)(x[:1]), found[:1]) or native.kind != "avx2"


@every_native
@pytest.mark.parametrize("rows", [40, 900])
def test_the_likeliest_rows_are_exact(native: Kernels, rows: int) -> None:
    torch.manual_seed(0)
    x, norm, head = torch.randn(5, 200), torch.rand(200) + 0.5, matrix(rows, 200, twice=True)
    found = native.vocabulary(x, head, norm=norm, eps=1e-5, exact=10)
    assert off_by(found, REFERENCE.vocabulary(x, head, norm=norm, eps=1e-5, exact=10)) < 5e-3
    alone = [native.vocabulary(row[None], head, norm=norm, eps=1e-5, exact=10) for row in x]
    assert torch.equal(found, torch.cat(alone))
    assert head.rest is not None
    by_first = native.linear(x, replace(head, rest=None), norm=norm, eps=1e-5)
    by_both = by_first + native.linear(x, head.rest, norm=norm, eps=1e-5)
    exact = found == by_both
    assert exact.sum(1).tolist() == [min(rows, 160)] * 5 and torch.equal(found[~exact], by_first[~exact])
    # the largest of all sums are among the exact ones
    assert exact.gather(1, by_both.topk(5).indices).all()


# --- experts -----------------------------------------------------------------------------------------------------


@every_native
@pytest.mark.parametrize("experts", [0, 1, 5, 8])
@pytest.mark.parametrize(("inner", "hidden"), [(96, 256), (40, 144), (16, 32)])
def test_feed_forward_is_that_of_torch(native: Kernels, experts: int, inner: int, hidden: int) -> None:
    torch.manual_seed(experts)
    weights = feed_forward_weights(Sizes(hidden=hidden, inner=inner, experts=experts, chosen=min(3, max(experts, 1))))
    for tokens in (1, 2, 37):
        x = torch.randn(tokens, hidden)
        found, wanted, alone = x.clone(), x.clone(), x.clone()
        chosen = native.feed_forward(found, weights)
        wanted_chosen = REFERENCE.feed_forward(wanted, weights)
        assert off_by(found - x, wanted - x) < 5e-3
        if experts:
            assert chosen is not None and wanted_chosen is not None and torch.equal(chosen, wanted_chosen)
        for row in alone:
            native.feed_forward(row[None], weights)
        assert torch.equal(found, alone)


@every_native
def test_expert_groups_are_those_of_torch(native: Kernels) -> None:
    torch.manual_seed(0)
    weights = feed_forward_weights(Sizes(), groups=4, kept_groups=2)
    x = torch.randn(50, 256)
    found, wanted = native.feed_forward(x.clone(), weights), REFERENCE.feed_forward(x.clone(), weights)
    assert found is not None and wanted is not None and torch.equal(found, wanted)
    assert all(len({e // 2 for e in row}) <= 2 for row in found.tolist())


# --- latent attention --------------------------------------------------------------------------------------------

PAGES = tuple(random.Random(0).sample(range(16), 16))
Cut = tuple[int, bool]  # tokens, is_prompt


def attend(
    engine: Kernels | Reference,
    x: Tensor,
    weights: LatentAttentionWeights,
    cuts: Sequence[Cut],
    dtype: CacheDtype = "bfloat16",
) -> tuple[Tensor, Tensor]:
    """One sequence in pieces: what was added to x [T, D], and the cache."""
    cache = empty_cache(16, weights.rank, weights.rope, dtype).zero_()
    added = []
    start = 0
    for tokens, is_prompt in cuts:
        piece = x[start : start + tokens].clone()
        engine.latent_attention(piece, weights, [Segment(PAGES, start, tokens, is_prompt)], cache)
        added.append(piece - x[start : start + tokens])
        start += tokens
    return torch.cat(added), cache


@every_native
@pytest.mark.parametrize("s", [Sizes(), Sizes(heads=1, nope=16, value=16, rope=2, rank=16), Sizes(heads=19, hidden=64)])
@pytest.mark.parametrize(
    "cuts", [((600, True), (50, True), (9, False)), ((1, True), (1, False)), ((64, True), (64, False))]
)
def test_latent_attention_is_that_of_torch(native: Kernels, s: Sizes, cuts: tuple[Cut, ...]) -> None:
    torch.manual_seed(0)
    weights = attention_weights(s)
    x = torch.randn(sum(tokens for tokens, _ in cuts), s.hidden)
    found, cache = attend(native, x, weights, cuts)
    wanted, wanted_cache = attend(REFERENCE, x, weights, cuts)
    # bfloat16 multiplies what the reference multiplies in float32
    assert off_by(found, wanted) < (1e-2 if native.kind == "avx512" else 5e-3)
    assert off_by(cache.float(), wanted_cache.float()) < 1e-3


@every_native
@pytest.mark.parametrize("s", [Sizes(), Sizes(rank=144, rope=6), Sizes(rank=256, rope=64)])
def test_a_cache_in_8_bits_is_that_of_torch(native: Kernels, s: Sizes) -> None:
    torch.manual_seed(0)
    weights, x = attention_weights(s), torch.randn(150, s.hidden)
    cuts = [(100, True), (41, True), (9, False)]
    found, cache = attend(native, x, weights, cuts, "int8")
    wanted, wanted_cache = attend(REFERENCE, x, weights, cuts, "int8")
    assert off_by(found, wanted) < (1e-2 if native.kind == "avx512" else 5e-3)
    width = s.rank + s.rope
    off = (cache[..., :width].int() - wanted_cache[..., :width].int()).abs()
    # a number at the edge of two steps may fall either way
    assert off.max() <= 1 and (off > 0).float().mean() < 0.01
    scales, wanted_scales = (c[..., width:].contiguous().view(torch.float32) for c in (cache, wanted_cache))
    assert torch.allclose(scales, wanted_scales, rtol=1e-3)
    # half the bytes cost less than the weights' own rounding
    assert off_by(found, attend(native, x, weights, cuts)[0]) < 2e-2


@every_native
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@given(prompt=st.lists(st.integers(1, 200), min_size=1, max_size=5), answer=st.integers(0, 70))
@settings(max_examples=10, deadline=None)
def test_a_prompt_may_be_cut_anywhere(native: Kernels, dtype: CacheDtype, prompt: list[int], answer: int) -> None:
    torch.manual_seed(0)
    weights = attention_weights(Sizes())
    x = torch.randn(sum(prompt) + answer, 256)
    whole = attend(native, x, weights, [(sum(prompt), True), *([(answer, False)] if answer else [])], dtype)
    pieces = attend(native, x, weights, [*((n, True) for n in prompt), *[(1, False)] * answer], dtype)
    assert torch.equal(whole[0], pieces[0]) and torch.equal(whole[1], pieces[1])


@every_native
def test_sequences_of_one_step_do_not_meet(native: Kernels) -> None:
    torch.manual_seed(0)
    weights = attention_weights(Sizes())
    lengths, starts, kinds = (1, 3, 1, 70, 20), (130, 0, 64, 0, 64), (False, False, False, True, True)
    pages = [(3 * i, 3 * i + 1, 3 * i + 2) for i in range(5)]
    cache = torch.randn(16, 64, 80).bfloat16()
    alone_cache = cache.clone()
    x = torch.randn(sum(lengths), 256)
    segments = [Segment(*each) for each in zip(pages, starts, lengths, kinds, strict=True)]
    together = x.clone()
    native.latent_attention(together, weights, segments, cache)
    for part, segment in zip(x.split(lengths), segments, strict=True):
        native.latent_attention(part, weights, [segment], alone_cache)
    assert torch.equal(together, x) and torch.equal(cache, alone_cache)


@every_native
def test_both_forms_give_the_same(native: Kernels) -> None:
    torch.manual_seed(0)
    weights = attention_weights(Sizes())
    x = torch.randn(300, 256)
    plain, absorbed = (attend(native, x, weights, [(300, is_prompt)])[0] for is_prompt in (True, False))
    # they round to 8 bits in other places
    assert off_by(plain, absorbed) < 2e-2


# --- layers, pictures, threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [*NATIVES, REFERENCE], ids=lambda by: by.kind)
def test_all_layers_are_one_after_the_other(by: Backend) -> None:
    """And a layer without experts is none of those whose choice is told."""
    torch.manual_seed(0)
    s, nobody = Sizes(), torch.empty(0)
    layers = [(attention_weights(s), feed_forward_weights(sizes)) for sizes in (replace(s, experts=0), s, s)]
    decoder = DecoderWeights(layers, Ends(matrix(1, 1), nobody, matrix(1, 1)))
    x = torch.randn(90, 256)
    segments = [Segment((2,), 0, 10, False), Segment((0, 1), 0, 80, True)]
    found, caches = x.clone(), empty_cache(3 * 3, s.rank, s.rope, "bfloat16").zero_().unflatten(0, (3, 3))
    chosen = by.layers(found, decoder, segments, caches)
    wanted, one_by_one, told = x.clone(), torch.zeros_like(caches), []
    for (attention, feed_forward), cache in zip(layers, one_by_one, strict=True):
        by.latent_attention(wanted, attention, segments, cache)
        told.append(by.feed_forward(wanted, feed_forward))
    assert torch.equal(found, wanted) and torch.equal(caches, one_by_one)
    assert (
        chosen is not None
        and told[0] is None
        and torch.equal(chosen, torch.stack([t for t in told[1:] if t is not None]))
    )


@every_native
@pytest.mark.parametrize(("heads", "dim"), [(4, 48), (3, 72), (1, 2), (2, 17 * 2)])
@pytest.mark.parametrize("patches", [1, 5, 64, 129, 200])
def test_picture_attention_is_that_of_torch(native: Kernels, heads: int, dim: int, patches: int) -> None:
    torch.manual_seed(0)
    qkv, angles = torch.randn(patches, 3, heads, dim), 10 * torch.randn(patches, dim // 2)
    q, k, v = qkv.unbind(1)
    q, k, v = (y.transpose(0, 1) for y in (rotate_pairs(q, angles), rotate_pairs(k, angles), v))
    wanted = F.scaled_dot_product_attention(q, k, v).transpose(0, 1)
    for by, tolerance in ((native, TOLERANCE[native.kind]), (REFERENCE, 1e-5)):
        assert off_by(by.picture_attention(qkv, angles), wanted) < tolerance


@pytest.mark.parametrize("kind", [native.kind for native in NATIVES])
def test_results_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    torch.manual_seed(0)
    s = Sizes()
    attention, feed_forward = attention_weights(s), feed_forward_weights(s)
    x = torch.randn(150, 256)
    results = []
    for threads in (1, 2, 3, 7):
        native = Kernels(kind, threads)
        y = attend(native, x, attention, [(140, True), (10, False)])[0]
        native.feed_forward(y, feed_forward)
        results.append(y)
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(results))
