"""A hundred thousand tokens behind: the cache's last pages are read as its first, and memory is that of the cache.

A whole prompt of that length takes minutes; ``benchmarks/long_context.py`` reads one.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
import torch

from kimi_vl import SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.reference import Reference
from kimi_vl.engine.request import Request
from kimi_vl.engine.weights import Segment
from tests.memory import forget_peak, peak, resident

BEHIND = 100_000


@pytest.mark.parametrize(("tokens", "is_prompt"), [(1, False), (5, True)])
def test_a_token_sees_all_hundred_thousand_before_it(nano4: EngineModel, tokens: int, is_prompt: bool) -> None:
    """(G8) As plain torch does, in pages that lie in any order; one far latent more or less is noticed.

    In two layers, since what is rounded adds up from layer to layer.
    """
    config = replace(nano4.config, text_config=replace(nano4.config.text_config, num_hidden_layers=2))
    decoder = replace(nano4.decoder, layers=nano4.decoder.layers[:2])
    shallow, plain = (
        EngineModel(config, decoder, nano4.tower, nano4.projector, backend) for backend in (nano4.backend, Reference(1))
    )
    count = -(-(BEHIND + tokens) // PAGE)
    pages = list(range(count))
    random.Random(0).shuffle(pages)
    torch.manual_seed(0)
    cache = torch.randn(shallow.new_cache(count).shape).mul(0.7).bfloat16()
    segment = Segment(tuple(pages), BEHIND, tokens, is_prompt)
    x = shallow.embed(torch.arange(tokens) + 300)
    found = shallow.run(x, [segment], cache.clone())
    wanted = plain.run(x, [segment], cache.clone())
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
    other = cache.clone()
    other[:, pages[: count // 2]] *= 2  # the older half
    assert float((shallow.run(x, [segment], other) - found).norm() / found.norm()) > 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_for_a_step_behind_them_does_not_grow_with_them(nano4: EngineModel) -> None:
    """A step of 64 tokens and an answer: [tokens, context] of floats for one head would be 26 MB."""
    count = BEHIND // PAGE + 2
    cache = torch.zeros(nano4.new_cache(count).shape, dtype=torch.bfloat16)
    text = nano4.config.text_config
    assert cache.nbytes == text.num_hidden_layers * count * PAGE * (text.kv_lora_rank + text.qk_rope_head_dim) * 2
    pages = tuple(range(count))
    x = nano4.embed(torch.arange(65))
    before_any = [Segment(pages, 0, 1, False), Segment(pages, 0, 64, True)]
    nano4.run(x, before_any, cache)  # what the libraries allocate once
    forget_peak()
    before = resident()
    nano4.run(x, [Segment(pages, BEHIND + 64, 1, False), Segment(pages, BEHIND, 64, True)], cache)
    assert peak() - before < 8_000_000


def test_the_whole_window_is_the_limit(nano4: EngineModel) -> None:
    """A request of all of it is taken, and one token more is refused before anything is spent."""
    window = nano4.config.text_config.max_position_embeddings
    assert window == 131_072
    engine = Engine(nano4, EngineOptions(context=window))
    prompt = tuple(i % 3000 for i in range(window - 3))
    whole = Request("a", prompt, (), (), SamplingParams(max_new_tokens=4), seed=0)
    engine.add(whole)
    engine.step()
    engine.cancel("a")
    with pytest.raises(ValueError, match=r"need 2049 pages of 64 tokens, but the cache has 2048"):
        engine.add(replace(whole, prompt=(*prompt, 0)))
