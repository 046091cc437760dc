"""Runs the stage that learns from its own answers, by its recipe: weights and problems in, a run folder out.

    problems ─ curriculum ─→ posed ─ engine ─→ k answers to each ─ judge ─→ rewards ─→ advantages ─ updates ─→ weights

RUN/config.json         the architecture
RUN/state.safetensors   what the run goes on from, or RUN/state-STEP/ where several processes wrote it
RUN/log.jsonl           what it told
RUN/asked.jsonl         every problem by its cell, and how many of its answers were right: the curriculum's memory
RUN/samples.jsonl       answers at every save, with their rewards and pictures
RUN/model/              when it is done: a model folder, with its processor, that everything else here opens

A step depends on the weights, the record and its number alone: one that a kill cut off is done again alike.
Source: Kimi k1.5 (arXiv 2501.12599), section 2.3; Kimi-VL report (arXiv 2504.07491), section 2.4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from kimi_vl.processor import KimiVLProcessor
from kimi_vl.sampling import SamplingParams
from kimi_vl.train import parallel
from kimi_vl.train.data.packing import Totals
from kimi_vl.train.opening import config_of, export, open_pupil, settle, write_config
from kimi_vl.train.optim.muon_adamw import MuonAdamW
from kimi_vl.train.optim.rates import rate
from kimi_vl.train.rewards import Judge, parts
from kimi_vl.train.rl.curriculum import Asked, chosen, open_cells, success_rates
from kimi_vl.train.rl.policy import above_mean, above_mean_by_spread, length_rewards
from kimi_vl.train.rl.problems import Exam, Posed, Problems, exams
from kimi_vl.train.rl.recipe import RLRecipe
from kimi_vl.train.rl.record import Given, Record, Told
from kimi_vl.train.rl.rollouts import Answer, Rollout, Rollouts
from kimi_vl.train.rl.updating import MOVES, Policy, divergence, loss_of, piece_of, row_of
from kimi_vl.train.scale.layout import Layout
from kimi_vl.train.state import Progress, load_state, save_state, stored_in
from kimi_vl.train.stopping import Stopping
from kimi_vl.train.watching.log import Listener, RunLog
from kimi_vl.train.watching.watched import RIGHT


def run(recipe: RLRecipe, *, listener: Listener | None = None) -> Path:
    """Trains to the recipe's last step and returns the model's folder. Called again, it goes on where it was.

    Of several processes each answers and learns from its share of a step's problems. Raises: ``ValueError`` for
    anything in the recipe that cannot be, before the first answer; and where engine and trainer drift apart.
    """
    folder = Path(recipe.run)
    processor = KimiVLProcessor.from_pretrained(recipe.processor)
    config = config_of(recipe)
    processor.check(config)
    problems, asked_at_saves = Problems(recipe.problems), exams(recipe.exams)
    device = parallel.join()
    share = recipe.updates * recipe.pieces * parallel.world_size()
    if recipe.batch_size % share:
        raise ValueError(
            f"a batch of {recipe.batch_size} problems is not cut evenly for {parallel.world_size()} processes, "
            f"{recipe.updates} updates and {recipe.pieces} pieces: make it a multiple of {share}"
        )
    layout = Layout(parallel.world_size())
    # The engine's log-probabilities and the trainer's are to be the same numbers.
    policy = open_pupil(recipe, config, Policy, MOVES, layout, device, torch.float32)
    assert isinstance(policy, Policy)
    write_config(recipe, config)
    settle(device)
    with ExitStack() as stack:
        judge = stack.enter_context(Judge())
        learning = Learning(recipe, policy, processor, problems, judge)
        stored, identity = stored_in(folder), _identity(recipe)
        start = 0 if stored is None else load_state(stored, policy, learning.optimizer, identity).step
        record = stack.enter_context(Record(folder, start))
        log: RunLog | None = None
        if not parallel.rank():
            plan = {"steps": recipe.steps, "batch_size": recipe.batch_size * recipe.answers}
            (folder / "schedule.json").write_text(json.dumps(plan))
            path = folder / "log.jsonl"
            log = stack.enter_context(RunLog(path, start=start, steps=recipe.steps, listener=listener))
        stopping = stack.enter_context(Stopping())
        for step in range(start, recipe.steps):
            done = step + 1
            saves = done % recipe.save_every == 0 or done == recipe.steps
            learnt = learning.step(step, record.asked)
            record.add(done, learnt.asked, learnt.told[: recipe.show] if saves else [])
            figures = learnt.figures
            if saves:
                figures |= {f"{RIGHT}{exam.name}": learning.share_right(exam) for exam in asked_at_saves}
            if log is not None:
                log.count(Totals(samples=recipe.batch_size * recipe.answers, tokens=learnt.tokens))
                if done % recipe.log_every == 0 or saves:
                    log.tell(done, figures)
            stops = bool(parallel.total(torch.tensor(stopping.wished, dtype=torch.int32)))
            if saves or stops:
                save_state(folder, policy, learning.optimizer, Progress(done), identity)
            if stops:
                raise KeyboardInterrupt
    return export(folder, config, processor)


def _identity(recipe: RLRecipe) -> dict[str, object]:
    """What decides on the problems, the answers and what is learned from them, as JSON has it."""
    names = ("seed", "batch_size", "answers", "updates", "max_new_tokens", "objective", "reward", "steps")
    return {name: getattr(recipe, name) for name in names} | {
        "problems": [[each.name, each.levels] for each in recipe.problems]
    }


@dataclass(frozen=True)
class Learnt:
    """Of one step."""

    figures: dict[str, float]  # of all processes
    asked: list[Asked]  # of all processes, in the order of the problems
    told: list[Told]  # of this one
    tokens: int  # of all answers


@dataclass(frozen=True, eq=False)
class _Judged:
    """Answers to n problems, k to each."""

    right: Tensor  # [n, k] bool
    formless: Tensor  # [n, k] bool
    lengths: Tensor  # [n, k] int64
    rewards: Tensor  # [n, k] float32


class Learning:
    """What steps share: the policy and its optimizer, the engine over it, and who judges."""

    def __init__(
        self, recipe: RLRecipe, policy: Policy, processor: KimiVLProcessor, problems: Problems, judge: Judge
    ) -> None:
        self.recipe, self.policy, self.problems, self.judge = recipe, policy, problems, judge
        self.optimizer = MuonAdamW(policy)
        self._rollouts = Rollouts(policy.model, processor, cache=recipe.cache)
        if parallel.world_size() > 1:
            with torch.no_grad():
                policy(row_of([(_ONE, [_ONE])]).to(policy.model.device), None)

    def step(self, step: int, asked: Sequence[Asked]) -> Learnt:
        """Poses, answers, judges and learns; ``asked`` is what was before."""
        recipe = self.recipe
        places = range(parallel.rank(), recipe.batch_size, parallel.world_size())
        cells = open_cells(self.problems.cells, step / recipe.steps, recipe.opening)
        rates = success_rates(asked) if recipe.prioritised else dict.fromkeys(cells, 0.0)
        drawn = chosen(cells, rates, recipe.batch_size, f"{recipe.seed}/{step}")
        posed = [self.problems.draw(drawn[at], recipe.seed, step * recipe.batch_size + at) for at in places]
        params = [
            SamplingParams(
                temperature=1.0,
                max_new_tokens=recipe.max_new_tokens,
                logprobs=0,
                n=recipe.answers,
                seed=_seed(recipe.seed, step, at),
            )
            for at in places
        ]
        with parallel.whole(self.policy):
            rollouts = self._rollouts.answer([each.messages for each in posed], params)
        judged = self._judge(step, places, posed, rollouts)
        figures = self._learn(step, rollouts, judged)
        everyone = parallel.of_all(
            [
                (at, Asked(drawn[at], int(right), recipe.answers))
                for at, right in zip(places, judged.right.sum(1), strict=True)
            ]
        )
        told = [
            Told(problem.messages, problem.wanted, given)
            for problem, given in zip(posed, _given(rollouts, judged), strict=True)
        ]
        tokens = parallel.total(judged.lengths.sum())
        return Learnt(figures, [one for _, one in sorted(everyone, key=_first)], told, int(tokens))

    def share_right(self, exam: Exam) -> float:
        """Of problems answered by the likeliest tokens."""
        mine = exam.posed[parallel.rank() :: parallel.world_size()]
        params = [SamplingParams(max_new_tokens=self.recipe.max_new_tokens)] * len(mine)
        with parallel.whole(self.policy):
            rollouts = self._rollouts.answer([posed.messages for posed in mine], params)
        right = sum(self._is_right(posed, rollout.answers[0]) for posed, rollout in zip(mine, rollouts, strict=True))
        return int(parallel.total(torch.tensor(right))) / len(exam.posed)

    def _is_right(self, posed: Posed, answer: Answer) -> bool:
        found = parts(answer.text) if answer.ended else None
        return found is not None and self.judge.is_right(posed.rule, found.said)

    def _judge(self, step: int, places: Sequence[int], posed: Sequence[Posed], rollouts: Sequence[Rollout]) -> _Judged:
        recipe = self.recipe
        right = torch.tensor(
            [[self._is_right(each, answer) for answer in r.answers] for each, r in zip(posed, rollouts, strict=True)]
        )
        if recipe.reward == "chance":
            coins = [Random(f"chance/{recipe.seed}/{step}/{at}") for at in places]
            right = torch.tensor([[coin.random() < 0.5 for _ in range(recipe.answers)] for coin in coins])
        lengths = torch.tensor([[len(answer.ids) for answer in r.answers] for r in rollouts])
        formless = torch.tensor([[parts(answer.text) is None for answer in r.answers] for r in rollouts])
        rewards = right.float() + length_weight(recipe, step) * length_rewards(lengths, right)
        return _Judged(right, formless, lengths, rewards)

    def _learn(self, step: int, rollouts: Sequence[Rollout], judged: _Judged) -> dict[str, float]:
        """Through all answers once, in updates; momentum and moments are those of this step alone."""
        recipe, policy = self.recipe, self.policy
        above = above_mean_by_spread if recipe.objective == "grpo" else above_mean
        advantages = above(judged.rewards)
        each = len(rollouts) // (recipe.updates * recipe.pieces)
        starts = range(0, len(rollouts), each)
        pieces = [(piece_of(rollouts[at : at + each]), advantages[at : at + each].flatten()) for at in starts]
        lr = rate(
            step,
            peak=recipe.peak,
            warmup=recipe.warmup,
            total=recipe.steps,
            shape=recipe.shape,
            decay=recipe.decay,
            floor=recipe.floor,
        )
        policy.train()
        self.optimizer.forget()
        answers = recipe.batch_size * recipe.answers // recipe.updates
        apart, gap, compared, norms = 0.0, 0.0, 0, list[float]()
        for number, (piece, of_answers) in enumerate(pieces, start=1):
            now = piece.logprobs(policy)
            before, which, worth = (each.to(now.device) for each in (piece.drawn_at, piece.which, of_answers))
            (loss_of(recipe, now, before, which, worth) / answers).backward()
            now = now.detach()
            apart += float(divergence(now, before))
            if number <= recipe.pieces:
                # Nothing has moved yet: any difference is one of how the two compute.
                gap += float((now - before).abs().sum())
                compared += len(now)
            if number == recipe.pieces:
                gap = self._checked(step, gap, compared)
            if number % recipe.pieces == 0:
                norms.append(self.optimizer.step(lr))
        return _figures(rollouts, judged, apart) | {"gap": gap, "lr": lr, "grad_norm": sum(norms) / len(norms)}

    def _checked(self, step: int, apart: float, tokens: int) -> float:
        """The mean over an update's tokens of how far the engine's log-probability is from the trainer's.

        Raises: ``ValueError`` if it is above the recipe's: what is learned would not be about what answered.
        """
        sums = parallel.total_by_name({"apart": apart, "tokens": tokens})
        gap = sums["apart"] / sums["tokens"]
        if not gap <= self.recipe.gap:
            raise ValueError(
                f"step {step + 1}: engine and trainer differ by {gap:.2g} in the mean log-probability of a token, "
                f"above the recipe's gap of {self.recipe.gap:g}: its answers are not those of the model that learns"
            )
        return gap


def _figures(rollouts: Sequence[Rollout], judged: _Judged, apart: float) -> dict[str, float]:
    """Means over the answers, and over their tokens, of all processes. ``apart`` is the divergence of all tokens."""
    given = [answer for rollout in rollouts for answer in rollout.answers]
    same = judged.rewards.amax(1) == judged.rewards.amin(1)
    of_answers = {
        "reward": float(judged.rewards.sum()),
        "right": float(judged.right.sum()),
        "alike": float(same.sum()) * judged.right.shape[1],
        "formless": float(judged.formless.sum()),
        "cut": float(sum(not answer.ended for answer in given)),
        "length": float(judged.lengths.sum()),
    }
    of_tokens = {"kl": apart, "entropy": -sum(float(answer.logprobs.sum()) for answer in given)}
    counts = {"answers": float(len(given)), "tokens": of_answers["length"]}
    sums = parallel.total_by_name(of_answers | of_tokens | counts)
    means = {name: sums[name] / sums["answers"] for name in of_answers}
    return means | {name: sums[name] / sums["tokens"] for name in of_tokens}


_SHOWN = 4  # answers to a problem
_ONE = torch.zeros(1, dtype=torch.int64)  # as little as can be learned from


def _given(rollouts: Sequence[Rollout], judged: _Judged) -> Iterator[list[Given]]:
    for rollout, rights, rewards in zip(rollouts, judged.right, judged.rewards, strict=True):
        of_all = zip(rollout.answers, rights, rewards, strict=True)
        yield [Given(answer.text, bool(right), float(reward)) for answer, right, reward in islice(of_all, _SHOWN)]


def length_weight(recipe: RLRecipe, step: int) -> float:
    """Of the length reward: up in a line between the shares ``length_from`` and ``length_full`` of the steps."""
    progress = step / recipe.steps
    if progress >= recipe.length_full:
        return recipe.length
    if progress <= recipe.length_from:
        return 0.0
    return recipe.length * (progress - recipe.length_from) / (recipe.length_full - recipe.length_from)


def _seed(seed: int, step: int, place: int) -> int:
    return Random(f"answers/{seed}/{step}/{place}").getrandbits(63)


def _first(pair: tuple[int, Asked]) -> int:
    return pair[0]
