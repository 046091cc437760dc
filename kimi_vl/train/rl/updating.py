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
from kimi_vl.model.segments import Fork, Forks
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.losses import head_logprobs
from kimi_vl.train.rl.policy import answer_sums, grpo_loss, mirror_descent_loss
from kimi_vl.train.rl.recipe import RLRecipe
from kimi_vl.train.rl.rollouts import Rollout

MOVES = ("model.language_model.",)


@dataclass(frozen=True, eq=False)
class Row:
    """Questions, each before all of its answers: T tokens, of which n are of answers."""

    input_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, each token's place in its question and answer
    forks: Forks
    seen: Tensor  # [n] int64, the token that each of an answer follows
    targets: Tensor  # [n] int64, the answers' tokens

    def to(self, device: torch.device) -> Row:
        moved = (each.to(device) for each in (self.input_ids, self.positions, self.seen, self.targets))
        ids, positions, seen, targets = moved
        return Row(ids, positions, self.forks, seen, targets)


class Policy(Pupil):
    def __init__(self, model: KimiVLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: Row, features: Tensor | None) -> Tensor:
        """The log-probability of each token of the answers: [n] float32. ``features`` are [image tokens, D]."""
        model = self.model
        hidden = model.hidden(model.embed(row.input_ids, features), row.positions, row.forks)
        return head_logprobs(model.language_model.lm_head, hidden.states.index_select(0, row.seen), row.targets)


@dataclass(frozen=True, eq=False)
class Piece:
    """The answers to some problems in one row. n tokens of B answers."""

    row: Row
    features: Tensor | None  # [image tokens, D]
    which: Tensor  # [n] int64, the answer of each token
    drawn_at: Tensor  # [n] float32, the engine's log-probabilities

    def logprobs(self, policy: Policy) -> Tensor:
        """[n] float32."""
        device = policy.model.device
        features = None if self.features is None else self.features.to(device)
        now: Tensor = policy(self.row.to(device), features)
        return now


def row_of(asked: Sequence[tuple[Tensor, Sequence[Tensor]]]) -> Row:
    """Of the ids of questions, and of the answers to each. An answer's last token is not read: nothing follows it."""
    ids, positions, seen, forks = [], [], [], []
    start = 0
    for prompt, answers in asked:
        branches = tuple(len(answer) - 1 for answer in answers)
        forks.append(Fork(len(prompt), branches))
        ids += [prompt, *(answer[:-1] for answer in answers)]
        positions += [torch.arange(len(prompt)), *(torch.arange(n) + len(prompt) for n in branches)]
        last = start + len(prompt) - 1
        start += len(prompt)
        for n in branches:
            seen += [torch.tensor([last]), torch.arange(start, start + n)]
            start += n
    targets = torch.cat([answer for _, answers in asked for answer in answers])
    return Row(torch.cat(ids), torch.cat(positions), Forks(tuple(forks)), torch.cat(seen), targets)


def piece_of(rollouts: Sequence[Rollout]) -> Piece:
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    features = [rollout.features for rollout in rollouts if rollout.features is not None]
    return Piece(
        row_of([(rollout.prompt, [answer.ids for answer in rollout.answers]) for rollout in rollouts]),
        torch.cat(features) if features else None,
        torch.arange(len(answers)).repeat_interleave(torch.tensor([len(answer.ids) for answer in answers])),
        torch.cat([answer.logprobs for answer in answers]),
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
