"""Objective, advantages and length reward on numbers worked out by hand, and gradients by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kimi_vl.train.rl.policy import (
    above_mean,
    above_mean_by_spread,
    answer_sums,
    grpo_loss,
    length_rewards,
    mirror_descent_loss,
)


def test_advantages_are_what_is_above_ones_own_question() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert above_mean(rewards).tolist() == [[0.5, -0.5, -0.5, 0.5], [0.25, 0.25, 0.25, -0.75], [0.0] * 4]
    by_spread = above_mean_by_spread(rewards)
    assert by_spread[0].tolist() == [1.0, -1.0, -1.0, 1.0]
    assert by_spread[1].tolist() == pytest.approx([1 / math.sqrt(3)] * 3 + [-math.sqrt(3)])
    assert by_spread[2].tolist() == [0.0] * 4


def test_rounding_is_no_spread() -> None:
    assert above_mean_by_spread(torch.tensor([[0.3, 0.3, 0.3 + 1e-8]])).tolist() == [[0.0] * 3]


@pytest.mark.parametrize(
    ("lengths", "right", "wanted"),
    [
        ([10, 20, 30], [True, True, True], [0.5, 0.0, -0.5]),
        # A wrong answer gains nothing by being short, and loses by being long.
        ([10, 20, 30], [False, True, False], [0.0, 0.0, -0.5]),
        ([10, 15, 30], [True, False, True], [0.5, 0.0, -0.5]),
        ([10, 25, 30], [True, False, True], [0.5, -0.25, -0.5]),
        ([7, 7, 7], [True, False, True], [0.0, 0.0, 0.0]),
        ([3, 4, 4], [True, True, False], [0.5, -0.5, -0.5]),
    ],
)
def test_short_right_answers_are_worth_more(lengths: list[int], right: list[bool], wanted: list[float]) -> None:
    assert length_rewards(torch.tensor([lengths]), torch.tensor([right])).tolist() == [wanted]


def test_lengths_are_compared_within_a_question() -> None:
    found = length_rewards(torch.tensor([[1, 2], [100, 200]]), torch.ones(2, 2, dtype=torch.bool))
    assert found.tolist() == [[0.5, -0.5]] * 2


def test_mirror_descent_by_hand() -> None:
    now, before = torch.tensor([-2.0, -3.0]), torch.tensor([-2.5, -3.0])
    # 0.5 · 2 + 0.1 / 2 · 0.25, and −0.5 · 3
    assert float(mirror_descent_loss(now, before, torch.tensor([0.5, -0.5]), 0.1)) == pytest.approx(1.0125 - 1.5)


def test_where_mirror_descent_comes_to_rest() -> None:
    """log π − log π_before = A / τ, the closed form of the best policy without its normaliser."""
    before, advantages, tau = torch.tensor([-4.0, -1.0]), torch.tensor([0.5, -0.25]), 0.2
    now = (before + advantages / tau).requires_grad_()
    mirror_descent_loss(now, before, advantages, tau).backward()
    assert now.grad is not None and now.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_grpo_by_hand() -> None:
    """Two answers, of two tokens and one. The first ratio is beyond what it may gain by, the others are not."""
    before = torch.tensor([-1.0, -1.0, -2.0])
    now = before + torch.tensor([1.5, 1.1, 1.5]).log()
    which, advantages = torch.tensor([0, 0, 1]), torch.tensor([1.0, -1.0])
    assert float(grpo_loss(now, before, which, advantages)) == pytest.approx(-((1.2 + 1.1) / 2 - 1.5))
    apart = [1 / r - 1 + math.log(r) for r in (1.5, 1.1, 1.5)]
    wanted = -((1.2 + 1.1) / 2 - 1.5) + 0.04 * ((apart[0] + apart[1]) / 2 + apart[2])
    assert float(grpo_loss(now, before, which, advantages, kl=0.04)) == pytest.approx(wanted)


def test_what_grpo_clips_has_no_gradient() -> None:
    before = torch.tensor([-1.0, -1.0, -1.0, -1.0])
    now = (before + torch.tensor([1.5, 0.5, 1.5, 0.5]).log()).requires_grad_()
    grpo_loss(now, before, torch.arange(4), torch.tensor([1.0, 1.0, -1.0, -1.0])).backward()
    assert now.grad is not None
    # Up enough, still to rise, still to fall, down enough.
    assert now.grad.tolist() == pytest.approx([0.0, -0.5, 1.5, 0.0])


def by_differences(loss: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> list[float]:
    moves = torch.eye(len(at), dtype=at.dtype) * step
    return [float((loss(at + move) - loss(at - move)) / (2 * step)) for move in moves]


@pytest.mark.parametrize("objective", ["mirror descent", "grpo"])
def test_gradients_are_those_of_the_formula(objective: str) -> None:
    """Of a small softmax policy over its logits: the whole way from weights to loss."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([0, 3, 1, 2, 2, 0, 3])
    which = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    advantages = torch.tensor([0.6, -0.4, -0.2], dtype=torch.float64)
    logits = torch.randn(7 * 4, generator=generator, dtype=torch.float64)
    before = torch.randn(7 * 4, generator=generator, dtype=torch.float64)

    def chances(flat: Tensor) -> Tensor:
        return flat.view(7, 4).log_softmax(-1)[torch.arange(7), tokens]

    def loss(flat: Tensor) -> Tensor:
        now, then = chances(flat), chances(before)
        if objective == "grpo":
            return grpo_loss(now, then, which, advantages, kl=0.1)
        return mirror_descent_loss(answer_sums(now, which, 3), answer_sums(then, which, 3), advantages, 0.3)

    moved = logits.clone().requires_grad_()
    loss(moved).backward()
    assert moved.grad is not None
    assert moved.grad.tolist() == pytest.approx(by_differences(loss, logits), abs=1e-7)


def test_at_the_first_step_both_are_the_plain_policy_gradient() -> None:
    """Where nothing has moved yet, −A · ∇ log π of an answer, of which GRPO takes the mean of its tokens."""
    before = torch.tensor([-1.0, -0.5, -2.0])
    which, advantages = torch.tensor([0, 0, 1]), torch.tensor([0.5, -1.0])
    now = before.clone().requires_grad_()
    mirror_descent_loss(answer_sums(now, which, 2), answer_sums(before, which, 2), advantages, 0.1).backward()
    assert now.grad is not None and now.grad.tolist() == [-0.5, -0.5, 1.0]
    again = before.clone().requires_grad_()
    grpo_loss(again, before, which, advantages).backward()
    assert again.grad is not None and again.grad.tolist() == [-0.25, -0.25, 1.0]
