"""Learning from one's own answers: rewards to what each answer is worth, and that to a loss. Pure functions.

k answers are drawn to each question. B answers in all, T tokens of them; ``before`` is what the model thought of its
answers when it gave them. Losses are sums, to be divided by the answers of a step.

Source: Kimi k1.5 (arXiv 2501.12599), sections 2.3.1 to 2.3.3; GRPO from DeepSeekMath (arXiv 2402.03300), section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SAME = 1e-6  # of rewards whose spread is rounding


def above_mean(rewards: Tensor) -> Tensor:
    """Rewards [n, k] of k answers to each of n questions, less their question's mean (off-policy baseline)."""
    return rewards - rewards.mean(-1, keepdim=True)


def above_mean_by_spread(rewards: Tensor) -> Tensor:
    """The same over their question's standard deviation, as GRPO has it; 0 where all are alike."""
    spread = rewards.std(-1, correction=0, keepdim=True)
    return torch.where(spread > _SAME, above_mean(rewards) / spread.clamp_min(_SAME), 0.0)


def length_rewards(lengths: Tensor, right: Tensor) -> Tensor:
    """From 0.5 for the shortest of k answers to −0.5 for the longest, and never above 0 for a wrong one.

    Args:
        lengths: [n, k] tokens.
        right: [n, k] bool.

    Returns: [n, k] float32, 0 where all are of one length.
    """
    tokens = lengths.float()
    least, most = tokens.amin(-1, keepdim=True), tokens.amax(-1, keepdim=True)
    shortness = 0.5 - (tokens - least) / (most - least).clamp_min(1.0)
    shortness = torch.where(most > least, shortness, 0.0)
    return torch.where(right, shortness, shortness.clamp_max(0.0))


def answer_sums(of_tokens: Tensor, which: Tensor, answers: int) -> Tensor:
    """Sums of [T] numbers over the tokens of each answer, ``which`` [T] it is of: [B]."""
    return of_tokens.new_zeros(answers).index_add(0, which, of_tokens)


def mirror_descent_loss(now: Tensor, before: Tensor, advantages: Tensor, tau: float) -> Tensor:
    """Online policy mirror descent: what the best policy near the present one would have, as a squared error.

        −A · log π(y) + τ/2 · (log π(y) − log π_before(y))²

    Args:
        now: [B] log-probability of each whole answer.
        before: [B] the same when it was drawn, without gradient.
        advantages: [B].
        tau: how dear it is to leave the policy that answered.
    """
    return (-advantages * now + tau / 2 * (now - before).square()).sum()


def grpo_loss(
    now: Tensor, before: Tensor, which: Tensor, advantages: Tensor, *, clip: float = 0.2, kl: float = 0.0
) -> Tensor:
    """Group relative policy optimization: each token's ratio to the policy that drew it, clipped; an answer's mean.

    Args:
        now, before: [T] log-probabilities of tokens.
        which: [T] int64, the answer of each.
        advantages: [B].
        clip: a ratio gains no more beyond 1 ± this.
        kl: weight of the estimate r − 1 − log r of the divergence, with r = π_before / π.
    """
    lengths = answer_sums(torch.ones_like(now), which, len(advantages))
    of_token = advantages[which]
    ratio = (now - before).exp()
    gain = torch.minimum(ratio * of_token, ratio.clamp(1 - clip, 1 + clip) * of_token)
    apart = (before - now).exp() - 1 - (before - now)
    return -(answer_sums(gain - kl * apart, which, len(advantages)) / lengths).sum()
