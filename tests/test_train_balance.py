"""The experts are kept busy alike: the loss that sees each sequence, and the bias that no gradient moves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from kimi_vl.model.moe import Routing, route
from kimi_vl.train.learning.balance import (
    busiest_share,
    loads_of,
    moe_layers,
    sequence_balance_loss,
    update_correction_bias,
)
from tests.conftest import random_model
from tests.training import TINY


def routing(scores: Sequence[Sequence[float]], chosen: Sequence[Sequence[int]]) -> Routing:
    values, idx = torch.tensor(scores), torch.tensor(chosen)
    return Routing(values, idx, values.gather(1, idx))


def test_the_balance_loss_is_one_when_even() -> None:
    even = routing([[0.5] * 4] * 4, [[0, 1], [2, 3], [1, 2], [3, 0]])
    assert sequence_balance_loss([even, even], [4]).item() == pytest.approx(1.0)
    assert busiest_share(loads_of([even])) == pytest.approx(1.0)


def test_the_balance_loss_grows_with_unevenness() -> None:
    """By hand: all go to experts 0 and 1, which have 0.4 of the score each; 2 * 0.4 + 2 * 0.4."""
    uneven = routing([[0.8, 0.8, 0.2, 0.2]] * 3, [[0, 1]] * 3)
    assert sequence_balance_loss([uneven], [3]).item() == pytest.approx(1.6)
    assert busiest_share(loads_of([uneven])) == pytest.approx(2.0)


def test_balance_is_judged_in_each_sequence() -> None:
    """Two sequences that are uneven the other way round are not even together."""
    scores = [[0.8, 0.2]] * 2 + [[0.2, 0.8]] * 2
    both = routing(scores, [[0], [0], [1], [1]])
    assert sequence_balance_loss([both], [4]).item() == pytest.approx(1.0)
    assert sequence_balance_loss([both], [2, 2]).item() == pytest.approx(2 * 1.6)


def test_the_bias_moves_towards_those_who_got_less() -> None:
    model = random_model(config=TINY)
    (moe,) = moe_layers(model)
    before = moe.gate.e_score_correction_bias.clone()
    update_correction_bias(model, torch.tensor([[3, 2, 1, 0]]), 0.01)
    expected = before + torch.tensor([-0.01, -0.01, 0.01, 0.01])  # about a mean of 1.5
    assert torch.allclose(moe.gate.e_score_correction_bias, expected)


def test_the_bias_evens_out_a_router_that_prefers_one_expert() -> None:
    model = random_model(config=TINY)
    (moe,) = moe_layers(model)
    x = torch.randn(200, TINY.text_config.hidden_size, generator=torch.Generator().manual_seed(0)) + 0.3
    with torch.no_grad():
        moe.gate.e_score_correction_bias.zero_()
        moe.gate.weight[0] += 0.3
        start = busiest_share(loads_of([moe.gate(x)]))
        for _ in range(300):
            update_correction_bias(model, loads_of([moe.gate(x)]), 0.005)
        assert busiest_share(loads_of([moe.gate(x)])) < 1.15 < 1.4 < start


@pytest.mark.parametrize("shift", [-5.0, -15.0, -30.0])
def test_scores_near_nothing_make_no_balance_cheap(shift: float) -> None:
    """(H10) However low a router drives all its scores, those that are chosen more cost more, and even ones cost 1."""
    config, bias = TINY.text_config, torch.zeros(4)
    tokens = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) / 4
    uneven = tokens + torch.tensor([2.0, 1.0, 0.0, -1.0])
    balance = [sequence_balance_loss([route(x + shift, bias, config)], [50]).item() for x in (tokens, uneven)]
    assert 1.0 <= balance[0] < 1.15
    assert balance[1] > 1.4


def test_a_router_cannot_lower_the_loss_by_lowering_scores() -> None:
    """(H10) Its gradient along "all scores lower" is nothing."""
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) - 12
    shift = torch.zeros((), requires_grad=True)
    sequence_balance_loss([route(logits + shift, torch.zeros(4), TINY.text_config)], [50]).backward()
    assert shift.grad is not None
    assert abs(float(shift.grad)) < 1e-4
