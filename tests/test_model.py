"""What must hold of the model whatever its weights: equal ways to the same numbers, and nothing leaks."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kimi_vl.checkpoint import load_model
from kimi_vl.config import KimiVLConfig
from kimi_vl.generate import decode_step, generate, prefill
from kimi_vl.model import vision
from kimi_vl.model.attention import LatentCache, MultiHeadLatentAttention, rope_angles
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.model.moe import MoE, SwiGLU, route
from kimi_vl.sampling import Sampler, SamplingParams
from tests.conftest import GOLDEN, SMALL_CONFIG, random_model, random_pixels

MODEL = random_model()
TEXT = SMALL_CONFIG.text_config
PLACEHOLDER = SMALL_CONFIG.media_placeholder_token_id
NO_PICTURES = torch.empty(0, 2, dtype=torch.int64)

seeds = st.integers(0, 1000)
even = st.integers(1, 4).map(lambda n: 2 * n)
grid_lists = st.lists(st.tuples(even, even), max_size=3)


def prompt(grids: list[tuple[int, int]], words: int, seed: int) -> Tensor:
    """Ids with each picture's run of placeholders between random words."""
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for h, w in grids:
        pieces += [torch.randint(0, 50, (words,), generator=generator)]
        pieces += [torch.full((h * w // 4,), PLACEHOLDER)]
    return torch.cat([*pieces, torch.randint(0, 50, (words,), generator=generator)])


def logits_of(model: Model, ids: Tensor, grids: list[tuple[int, int]], seed: int) -> Tensor:
    pixels, hws = random_pixels(grids, seed)
    return model(ids, [len(ids)], pixel_values=pixels, image_grid_hws=hws).logits


def new_cache(model: Model = MODEL) -> LatentCache:
    return LatentCache(model.config.text_config, dtype=model.dtype, device=model.device)


def assert_close(ours: Tensor, theirs: Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4)


# --- one sequence, in different ways ---------------------------------------------------------------------------


@given(grids=grid_lists, words=st.integers(1, 30), said=st.integers(1, 6), seed=seeds)
@settings(max_examples=15)
@torch.inference_mode()
def test_cached_equals_uncached(grids: list[tuple[int, int]], words: int, said: int, seed: int) -> None:
    ids = torch.cat((prompt(grids, words, seed), prompt([], said, seed + 1)))
    start = len(ids) - said
    whole = logits_of(MODEL, ids, grids, seed)
    pixels, hws = random_pixels(grids, seed)
    cache = new_cache()
    steps = [prefill(MODEL, ids[:start], cache, pixel_values=pixels if grids else None, image_grid_hws=hws)]
    steps += [decode_step(MODEL, int(token), cache) for token in ids[start:]]
    assert cache.length == len(ids)
    assert_close(torch.stack(steps), whole[start - 1 :])


def test_a_placeholder_that_is_said_is_a_word_like_others() -> None:
    """A model that has hardly learned says anything, and no picture is missed."""
    model = random_model(config=SMALL_CONFIG)
    said = SMALL_CONFIG.media_placeholder_token_id
    with torch.no_grad():
        model.language_model.lm_head.weight.zero_()
        model.language_model.lm_head.weight[said] = model.language_model.model.norm.weight
    sampler = Sampler([1, 2], (), SamplingParams(max_new_tokens=4))
    no_grids = torch.empty(0, 2, dtype=torch.int64)
    prompt_ids = torch.tensor([1, 2])
    drawn = [
        token.id for token in generate(model, prompt_ids, pixel_values=None, image_grid_hws=no_grids, sampler=sampler)
    ]
    assert len(drawn) == 4
    assert said in drawn


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=seeds)
@settings(max_examples=15)
@torch.inference_mode()
def test_any_split_into_chunks_equals_the_whole(cuts: list[int], seed: int) -> None:
    ids = prompt([], sum(cuts), seed)
    embeds, places = MODEL.embed(ids), torch.arange(len(ids))
    cache = new_cache()
    pieces = zip(embeds.split(cuts), places.split(cuts), strict=True)
    states = torch.cat([MODEL.hidden(x, at, cache).states for x, at in pieces])
    assert_close(states, MODEL.hidden(embeds, places, [len(ids)]).states)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
@torch.inference_mode()
def test_prefill_in_chunks(chunk: int) -> None:
    ids = prompt([(4, 6)], 20, 3)
    pixels, hws = random_pixels([(4, 6)], 3)
    logits = prefill(MODEL, ids, new_cache(), pixel_values=pixels, image_grid_hws=hws, chunk=chunk)
    assert_close(logits, logits_of(MODEL, ids, [(4, 6)], 3)[-1])


@torch.inference_mode()
def test_the_cache_keeps_its_rows_when_it_grows() -> None:
    cache, rank = new_cache(), TEXT.kv_lora_rank
    rows = torch.randn(300, rank + TEXT.qk_rope_head_dim)
    for start, stop in itertools.pairwise((0, 1, 64, 65, 200, 300)):
        for layer in range(TEXT.num_hidden_layers):
            part = rows[start:stop] + layer
            latent, k_rope = cache.extend(layer, part[:, :rank], part[:, rank:])
            assert torch.equal(torch.cat((latent, k_rope), -1), rows[:stop] + layer)
        cache.length = stop


@torch.inference_mode()
def test_a_later_token_changes_nothing_before_it() -> None:
    ids = prompt([], 40, 0)
    other = ids.clone()
    other[30] = (other[30] + 1) % 50
    before, after = MODEL(ids, [40]).logits, MODEL(other, [40]).logits
    assert torch.equal(before[:30], after[:30])
    assert (before[30:] != after[30:]).any(-1).all()


# --- attention -------------------------------------------------------------------------------------------------


def attention() -> MultiHeadLatentAttention:
    module = MODEL.language_model.model.layers[1].self_attn
    assert isinstance(module, MultiHeadLatentAttention)
    return module


def naive_attention(attn: MultiHeadLatentAttention, x: Tensor, positions: Tensor) -> Tensor:
    """Token by token and head by head, in float64, turning pairs as complex numbers."""
    x = x.double()
    rank, rope, nope, v_dim = TEXT.kv_lora_rank, TEXT.qk_rope_head_dim, TEXT.qk_nope_head_dim, TEXT.v_head_dim
    q_w, kv_a_w, kv_b_w, o_w = (
        part.weight.double() for part in (attn.q_proj, attn.kv_a_proj_with_mqa, attn.kv_b_proj, attn.o_proj)
    )
    freqs = TEXT.rope_theta ** (-torch.arange(0, rope, 2).double() / rope)

    def turn(y: Tensor, at: Tensor) -> Tensor:
        pairs = torch.view_as_complex(y.reshape(-1, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(freqs), at * freqs)).flatten()

    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(TEXT.num_attention_heads):
            q = (q_w @ x[t]).view(-1, nope + rope)[h]
            q = torch.cat((q[:nope], turn(q[nope:], positions[t])))
            scores, values = [], []
            for s in range(t + 1):
                latent, k_rope = (kv_a_w @ x[s]).split((rank, rope))
                latent = latent / (latent.square().mean() + 1e-6).sqrt() * attn.kv_a_layernorm.weight.double()
                k_nope, v = (kv_b_w @ latent).view(-1, nope + v_dim)[h].split((nope, v_dim))
                scores.append(q @ torch.cat((k_nope, turn(k_rope, positions[s]))) / (nope + rope) ** 0.5)
                values.append(v)
            heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        rows.append(o_w @ torch.cat(heads))
    return torch.stack(rows)


@pytest.mark.parametrize("positions", [[0, 1, 2, 3, 4], [0, 1, 900, 901, 902]])
@torch.inference_mode()
def test_attention_equals_a_naive_loop(positions: list[int]) -> None:
    """Positions with a gap too: only distances count, and the sequence stays one."""
    x, at = torch.randn(5, TEXT.hidden_size, generator=torch.Generator().manual_seed(1)), torch.tensor(positions)
    ours = attention().attend_packed(x, rope_angles(at, TEXT), [5])
    assert_close(ours.double(), naive_attention(attention(), x, at), 1e-3)


@given(new=st.integers(1, 9), old=st.integers(0, 40), seed=seeds)
@settings(max_examples=25)
@torch.inference_mode()
def test_absorbed_equals_plain(new: int, old: int, seed: int) -> None:
    attn, generator = attention(), torch.Generator().manual_seed(seed)
    x = torch.randn(old + new, TEXT.hidden_size, generator=generator)
    angles = rope_angles(torch.arange(old + new), TEXT)
    queries = attn.queries(x[old:], angles[old:])
    latents = attn.latents(x, angles)
    assert_close(attn.absorbed(*queries, *latents), attn.plain(*queries, *latents))


@given(new=st.integers(1, 2000))
@settings(max_examples=50)
def test_absorbing_pays_where_it_multiplies_less(new: int) -> None:
    """Multiplications of one head at the report's sizes, counted out for a long past."""
    text = KimiVLConfig().text_config
    rank, rope, nope, v = text.kv_lora_rank, text.qk_rope_head_dim, text.qk_nope_head_dim, text.v_head_dim
    keys = 10**7
    plain = keys * rank * (nope + v) + new * keys * (nope + rope + v)
    absorbed = new * nope * rank + new * keys * (rank + rope + rank) + new * rank * v
    with torch.device("meta"):
        assert MultiHeadLatentAttention(text).absorbing_pays(new) == (absorbed < plain)


# --- several sequences and pictures ----------------------------------------------------------------------------


@given(rows=st.lists(st.tuples(grid_lists, st.integers(1, 12)), min_size=1, max_size=4), seed=seeds)
@settings(max_examples=15)
@torch.inference_mode()
def test_packed_equals_alone(rows: list[tuple[list[tuple[int, int]], int]], seed: int) -> None:
    ids = [prompt(grids, words, seed + i) for i, (grids, words) in enumerate(rows)]
    inputs = [random_pixels(grids, seed + i) for i, (grids, _) in enumerate(rows)]
    pixels, hws = (torch.cat(part) for part in zip(*inputs, strict=True))
    lengths = [len(row) for row in ids]
    packed = MODEL(torch.cat(ids), lengths, pixel_values=pixels, image_grid_hws=hws).logits
    alone = [logits_of(MODEL, row, grids, seed + i) for i, (row, (grids, _)) in enumerate(zip(ids, rows, strict=True))]
    assert_close(packed, torch.cat(alone))


@given(grids=st.lists(st.tuples(even, even), min_size=1, max_size=5), seed=seeds)
@settings(max_examples=20)
@torch.inference_mode()
def test_a_picture_is_the_same_alone_and_in_a_batch(grids: list[tuple[int, int]], seed: int) -> None:
    pixels, hws = random_pixels(grids, seed)
    sizes = [h * w for h, w in grids]
    alone = [MODEL.image_features(p, g[None]) for p, g in zip(pixels.split(sizes), hws, strict=True)]
    assert_close(MODEL.image_features(pixels, hws), torch.cat(alone), 2e-5)


@given(grid=st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda g: (2 * g[0], 2 * g[1])))
@settings(max_examples=20)
@torch.inference_mode()
def test_as_many_features_as_placeholders(grid: tuple[int, int]) -> None:
    ids = prompt([grid], 2, 0)
    features = MODEL.image_features(*random_pixels([grid]))
    assert features.shape == ((ids == PLACEHOLDER).sum(), TEXT.hidden_size)
    embeds = MODEL.embed(ids, features)
    assert torch.equal(embeds[ids == PLACEHOLDER], features)
    words = ids != PLACEHOLDER
    assert torch.equal(embeds[words], MODEL.language_model.model.embed_tokens(ids[words]))


@pytest.mark.parametrize(("placeholders", "given_"), [(3, 4), (5, 4), (0, 4), (4, 0)])
def test_other_numbers_of_features_and_placeholders_are_refused(placeholders: int, given_: int) -> None:
    features = torch.zeros(given_, TEXT.hidden_size) if given_ else None
    message = f"the text has {placeholders} image placeholders, the pictures give {given_} features"
    with pytest.raises(ValueError, match=message):
        MODEL.embed(torch.tensor([1, *[PLACEHOLDER] * placeholders]), features)


@pytest.mark.parametrize(
    ("grids", "patches", "message"),
    [
        ([(3, 4)], 12, "3x4 patches cannot be merged 2x2"),
        ([(4, 5)], 20, "4x5 patches cannot be merged 2x2"),
        ([(0, 4)], 0, "0x4 patches cannot be merged 2x2"),
        ([(4, 4), (2, 2)], 16, "the grids hold 20 patches, pixel_values 16"),
        ([(4, 4)], 20, "the grids hold 16 patches, pixel_values 20"),
    ],
)
def test_grids_that_do_not_fit_are_refused(grids: list[tuple[int, int]], patches: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MODEL.image_features(torch.zeros(patches, 3, 14, 14), torch.tensor(grids))


# --- MoonViT ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grids", [[(60, 40), (60, 40)], [(60, 40), (40, 60)], [(2, 90), (90, 2)]])
@torch.inference_mode()
def test_a_picture_never_sees_another(grids: list[tuple[int, int]]) -> None:
    pixels, hws = random_pixels(grids)
    first = grids[0][0] * grids[0][1]
    other = pixels.clone()
    other[first:] *= -1
    ours, theirs = MODEL.image_features(pixels, hws), MODEL.image_features(other, hws)
    assert torch.equal(ours[: first // 4], theirs[: first // 4])
    assert (ours[first // 4 :] != theirs[first // 4 :]).any(-1).all()


@given(grids=st.lists(st.tuples(even, even), min_size=1, max_size=6), limit=st.integers(1, 200))
@settings(max_examples=20)
@torch.inference_mode()
def test_passes_change_nothing(grids: list[tuple[int, int]], limit: int) -> None:
    pixels, hws = random_pixels(grids)
    whole = MODEL.image_features(pixels, hws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vision.PATCHES_PER_PASS, "cpu", limit)
        assert_close(MODEL.image_features(pixels, hws), whole, 2e-5)
        passes = list(vision._passes(pixels, grids))
    assert [grid for _, some in passes for grid in some] == grids
    assert torch.equal(torch.cat([patches for patches, _ in passes]), pixels)
    assert all(len(patches) == sum(h * w for h, w in some) for patches, some in passes)
    assert all(len(patches) <= limit or len(some) == 1 for patches, some in passes)


def test_blocks_of_patches_are_merged_in_raster_order() -> None:
    """Each picture's by themselves."""
    x = torch.arange(2 * 4 + 4 * 2)[:, None]
    merged = vision.merge_patches(x, [(2, 4), (4, 2)], (2, 2)).squeeze(-1)
    assert merged.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


# --- mixture of experts ----------------------------------------------------------------------------------------


def naive_moe(moe: MoE, x: Tensor) -> Tensor:
    """Each token by itself, with the config's routing spelled out on plain numbers."""

    def run(expert: SwiGLU, token: Tensor) -> Tensor:
        gate, up = expert.gate_proj.weight.double() @ token, expert.up_proj.weight.double() @ token
        return expert.down_proj.weight.double() @ (gate / (1 + (-gate).exp()) * up)

    config, experts = moe.gate.config, moe.gate.config.n_routed_experts
    rows = []
    for token in x.double():
        scores = (1 / (1 + (-(moe.gate.weight.double() @ token)).exp())).tolist()
        choice = [s + b for s, b in zip(scores, moe.gate.e_score_correction_bias.tolist(), strict=True)]
        size = experts // config.n_group
        groups = [list(range(g * size, (g + 1) * size)) for g in range(config.n_group)]
        groups.sort(key=lambda group: -sum(sorted((choice[e] for e in group), reverse=True)[:2]))
        allowed = [e for group in groups[: config.topk_group] for e in group]
        chosen = sorted(allowed, key=lambda e: -choice[e])[: config.num_experts_per_tok]
        total = sum(scores[e] for e in chosen) if config.norm_topk_prob else 1.0
        y = run(moe.shared_experts, token)
        for e in chosen:
            expert = moe.experts[e]
            assert isinstance(expert, SwiGLU)
            y = y + config.routed_scaling_factor * scores[e] / total * run(expert, token)
        rows.append(y)
    return torch.stack(rows)


@given(
    tokens=st.integers(1, 12),
    groups=st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 3)]),
    normed=st.booleans(),
    seed=seeds,
)
@settings(max_examples=20)
@torch.inference_mode()
def test_moe_equals_a_naive_loop(tokens: int, groups: tuple[int, int], normed: bool, seed: int) -> None:
    text = replace(TEXT, n_group=groups[0], topk_group=groups[1], norm_topk_prob=normed)
    model = random_model(seed, config=replace(SMALL_CONFIG, text_config=text))
    moe = model.language_model.model.layers[1].mlp
    assert isinstance(moe, MoE)
    x = torch.randn(tokens, text.hidden_size, generator=torch.Generator().manual_seed(seed))
    y, routing = moe(x)
    assert_close(y.double(), naive_moe(moe, x), 1e-3)
    assert routing.load.sum() == tokens * text.num_experts_per_tok


@given(seed=seeds)
@settings(max_examples=20)
def test_the_bias_changes_the_choice_but_not_the_weights(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, TEXT.n_routed_experts, generator=generator)
    bias = torch.randn(TEXT.n_routed_experts, generator=generator)
    free, biased = route(logits, torch.zeros_like(bias), TEXT), route(logits, bias, TEXT)
    assert not torch.equal(free.topk_idx.sort(-1).values, biased.topk_idx.sort(-1).values)
    chosen = logits.sigmoid().gather(1, biased.topk_idx)
    assert_close(biased.topk_weight, TEXT.routed_scaling_factor * chosen / chosen.sum(-1, keepdim=True), 1e-6)
    assert torch.equal(free.scores, biased.scores)
    # A bias equal for all experts changes nothing at all.
    level = route(logits, torch.full_like(bias, 0.5), TEXT)
    assert torch.equal(level.topk_idx.sort(-1).values, free.topk_idx.sort(-1).values)


def test_the_gradient_reaches_the_router_and_every_expert_that_was_chosen() -> None:
    model = random_model().train()
    ids = prompt([(4, 4)], 20, 0)
    pixels, hws = random_pixels([(4, 4)])
    output = model(ids, [len(ids)], pixel_values=pixels, image_grid_hws=hws)
    output.logits.logsumexp(-1).sum().backward()
    for layer, routing in zip((1, 2), output.routings, strict=True):
        moe = model.language_model.model.layers[layer].mlp
        assert isinstance(moe, MoE)
        assert moe.gate.weight.grad is not None and moe.gate.weight.grad.abs().sum() > 0
        assert not moe.gate.e_score_correction_bias.requires_grad
        for expert, load in zip(moe.experts, routing.load, strict=True):
            assert isinstance(expert, SwiGLU)
            assert (expert.up_proj.weight.grad is not None) == bool(load)
    experts = {name for name, _ in model.named_parameters() if ".experts." in name}
    others = {n: p.grad for n, p in model.named_parameters() if n not in experts}
    assert [n for n, grad in others.items() if grad is None or not grad.isfinite().all()] == []
    assert "e_score_correction_bias" not in " ".join(n for n, _ in model.named_parameters())


# --- the whole -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_a_forward_changes_nothing(training: bool) -> None:
    model = random_model().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = prompt([(2, 4)], 5, 0)
    first = logits_of(model, ids, [(2, 4)], 0)
    assert torch.equal(logits_of(model, ids, [(2, 4)], 0), first)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 0.0), (torch.bfloat16, 0.7), (torch.float16, 0.1)])
@torch.inference_mode()
def test_every_dtype_runs_and_is_near_float32(
    dtype: torch.dtype, near: float, golden: dict[str, Tensor], golden_model: Model
) -> None:
    """Near in the mean only: a random model's routing flips on rounding, and then single logits are far off."""
    model = load_model(GOLDEN, dtype=dtype)
    ids = golden["mm.input_ids"][0]
    pixels, hws = golden["vision.pixel_values_f16"].float(), golden["vision.grid_hws"][:2]
    pixels = pixels[: int(hws.prod(-1).sum())]
    logits = model(ids, [len(ids)], pixel_values=pixels, image_grid_hws=hws).logits
    exact = golden_model(ids, [len(ids)], pixel_values=pixels, image_grid_hws=hws).logits
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    assert (logits.float() - exact).abs().mean() <= near
    features = model.image_features(pixels, hws).float()
    assert (features - golden_model.image_features(pixels, hws)).abs().max() <= near / 10
    sampler = Sampler(ids.tolist(), (), SamplingParams(max_new_tokens=8))
    answer = list(generate(model, ids, pixel_values=pixels, image_grid_hws=hws, sampler=sampler))
    assert len(answer) == 8
    assert all(0 <= token.id < model.config.text_config.vocab_size for token in answer)


def test_new_weights_depend_on_seed_and_name_only() -> None:
    text = replace(TEXT, num_hidden_layers=2)
    shallow, deep = Model(replace(SMALL_CONFIG, text_config=text)), Model(SMALL_CONFIG)
    shallow.init_weights(7)
    deep.init_weights(7)
    wide = deep.state_dict()
    assert all(torch.equal(tensor, wide[name]) for name, tensor in shallow.state_dict().items())
    deep.init_weights(8)
    name = "language_model.model.embed_tokens.weight"
    assert not torch.equal(deep.state_dict()[name], shallow.state_dict()[name])


def test_new_weights_are_normal_with_plain_norms_and_no_biases() -> None:
    model = Model(SMALL_CONFIG)
    model.init_weights(0)
    for name, tensor in model.state_dict().items():
        if not name.endswith(".weight"):
            assert not tensor.any(), name
        elif tensor.ndim == 1:
            assert (tensor == 1).all(), name
        else:
            assert abs(float(tensor.std()) / TEXT.initializer_range - 1) < 0.2, name
            assert abs(float(tensor.mean())) < 0.005, name
