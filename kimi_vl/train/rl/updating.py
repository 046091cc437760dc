"""One update: answers and what each was worth → the policy's log-probabilities of them → a loss → a step.

    prompt and answer ids, features ─ decoder, head ─→ log π of each token [n]
    log π, log π_before, advantages ─ objective ─→ loss

MoonViT and the projector stay as they are, so that what the engine saw of a picture is what is learned with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train.data.packing import Batch, Sample, pack
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.losses import head_logprobs
from kimi_vl.train.rl.policy import answer_sums, grpo_loss, mirror_descent_loss
from kimi_vl.train.rl.recipe import RLRecipe
from kimi_vl.train.rl.rollouts import Rollout

MOVES = ("model.language_model.",)


class Policy(Pupil):
    def __init__(self, model: KimiVLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, features: Tensor | None) -> Tensor:
        """The log-probability of each token that the batch sees: [n] float32."""
        model = self.model
        hidden = model.hidden(model.embed(batch.input_ids, features), batch.positions, batch.lengths)
        seen = batch.seen
        return head_logprobs(
            model.language_model.lm_head, hidden.states.index_select(0, seen), batch.targets.index_select(0, seen)
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """The answers to some problems in one row. n tokens of B answers."""

    batch: Batch
    features: Tensor | None  # [image tokens, D], of each problem once for each of its answers
    which: Tensor  # [n] int64, the answer of each token that is seen
    drawn_at: Tensor  # [n] float32, the engine's log-probabilities

    @property
    def answers(self) -> int:
        return len(self.batch.lengths)

    def logprobs(self, policy: Policy) -> Tensor:
        """[n] float32."""
        device = policy.model.device
        features = None if self.features is None else self.features.to(device)
        now: Tensor = policy(self.batch.to(device), features)
        return now


def piece_of(rollouts: Sequence[Rollout]) -> Piece:
    samples, features, sizes, drawn_at = [], [], [], []
    nothing_seen = torch.empty(0, 2, dtype=torch.int64)
    for rollout in rollouts:
        for answer in rollout.answers:
            ids = torch.cat((rollout.prompt, answer.ids))
            samples.append(Sample(ids, torch.arange(len(ids)) >= len(rollout.prompt), None, nothing_seen))
            sizes.append(len(answer.ids))
            drawn_at.append(answer.logprobs)
            if rollout.features is not None:
                features.append(rollout.features)
    return Piece(
        pack(samples),
        torch.cat(features) if features else None,
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        torch.cat(drawn_at),
    )


def loss_of(recipe: RLRecipe, now: Tensor, before: Tensor, which: Tensor, advantages: Tensor) -> Tensor:
    """The recipe's objective, a sum over answers.

    Args:
        now, before: [n] log-probabilities of tokens.
        which: [n] int64, the answer of each.
        advantages: [B].
    """
    if recipe.objective == "grpo":
        return grpo_loss(now, before, which, advantages, clip=recipe.clip, kl=recipe.kl)
    count = len(advantages)
    return mirror_descent_loss(
        answer_sums(now, which, count), answer_sums(before, which, count), advantages, recipe.tau
    )


def divergence(now: Tensor, before: Tensor) -> Tensor:
    """Of the policy that answered from that of now: r − 1 − log r, summed over tokens [n] that the former drew.

    Source: Schulman, Approximating KL Divergence (2020), the third estimator.
    """
    ratio = now - before
    return (ratio.exp() - 1 - ratio).sum()
