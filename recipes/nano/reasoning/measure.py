"""What a model can work out: held-out problems of every kind and level, and NLVR's test sentences where they are.

    python -m recipes.nano.reasoning.measure MODEL                       exact, by the likeliest tokens
    python -m recipes.nano.reasoning.measure MODEL --budgets 0 32 128    with as many tokens of thought at most
    python -m recipes.nano.reasoning.measure MODEL --out one.jsonl       every answer, a line each
    python -m recipes.nano.reasoning.measure --against one.jsonl two.jsonl

A model thinks first if its name, or that of the folder it lies in, says so, or with --thinking. Shares have intervals
of 95 % (Wilson); two files of answers are compared problem by problem (McNemar).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from kimi_vl import KimiVL, KimiVLProcessor, SamplingParams
from kimi_vl.eval.intervals import mcnemar, wilson
from kimi_vl.marks import THOUGHT, thinks_first
from kimi_vl.thinking import Thinking
from kimi_vl.train.opening import keep_memory
from kimi_vl.train.rewards import Judge, parts
from kimi_vl.train.rl.rollouts import Answer, Rollouts
from recipes.nano.reasoning import nlvr
from recipes.nano.reasoning.posed import heldout, posed_of
from recipes.nano.reasoning.problem import Problem

COUNT = 2025  # 45 of each kind and level
_TOGETHER = 256
_CACHE = 131072
_LONGEST, _LONGEST_SAID = 512, 48  # tokens of an answer with a thought, and of one without


@dataclass(frozen=True)
class Marked:
    """One answer. ``tokens`` are all that were drawn."""

    number: int
    kind: str
    level: int
    right: bool
    tokens: int
    ended: bool
    text: str
    wanted: str


def problems(count: int) -> list[Problem]:
    return [*heldout(count), *(nlvr.heldout() if nlvr.is_there() and count >= COUNT else ())]


def answers(
    model: KimiVL, processor: KimiVLProcessor, asked: Sequence[Problem], *, thinks: bool, budget: int | None
) -> Iterator[Marked]:
    """Of each problem in turn, by the likeliest tokens."""
    rules = Thinking(processor.tokenizer, *THOUGHT, budget) if thinks else None
    params = SamplingParams(max_new_tokens=_LONGEST if thinks else _LONGEST_SAID, grammar=rules)
    rollouts = Rollouts(model.model, processor, cache=_CACHE)
    with Judge() as judge:
        for first in range(0, len(asked), _TOGETHER):
            some = asked[first : first + _TOGETHER]
            posed = [posed_of(problem) for problem in some]
            found = rollouts.answer([one.messages for one in posed], [params] * len(some))
            for number, (problem, rollout) in enumerate(zip(some, found, strict=True), start=first):
                (answer,) = rollout.answers
                said = _said(answer, thinks=thinks)
                right = said is not None and judge.is_right(problem.rule, said)
                tokens = len(answer.ids)
                yield Marked(
                    number, problem.kind, problem.level, right, tokens, answer.ended, answer.text, problem.answer
                )


def _said(answer: Answer, *, thinks: bool) -> str | None:
    if not answer.ended:
        return None
    if not thinks:
        return answer.text.strip()
    found = parts(answer.text)
    # A budget of nothing leaves a thought without a word, which is no fault of the answer.
    return answer.text.partition(THOUGHT.closing)[2].strip() if found is None else found.said


def told(marked: Sequence[Marked]) -> str:
    """Shares by kind and level, and of all."""
    kinds = list(dict.fromkeys(one.kind for one in marked))
    levels = sorted({one.level for one in marked})
    lines = ["kind           right            " + "".join(f"  level {level}" for level in levels) + "   tokens"]
    for kind in (*kinds, None):
        some = [one for one in marked if kind in (one.kind, None)]
        by_level = [[one.right for one in some if one.level == level] for level in levels]
        lines.append(
            f"{kind or 'all':<12} {_share([one.right for one in some])}"
            + "".join(f"{fmean(each):>9.1%}" if each else " " * 9 for each in by_level)
            + f"{fmean(one.tokens for one in some):>9.0f}"
        )
    drawn = [one.right for one in marked if one.kind != "nlvr"]
    lines.append(f"{'drawn':<12} {_share(drawn)}   {len(drawn)} problems, {sum(not one.ended for one in marked)} cut")
    return "\n".join(lines)


def _share(right: Sequence[bool]) -> str:
    low, high = wilson(sum(right), len(right))
    return f"{fmean(right):>6.1%} ({low:.1%} to {high:.1%})"


def compared(one: Sequence[Marked], other: Sequence[Marked]) -> str:
    """How the second does beside the first on the same problems."""
    pairs = list(zip(one, other, strict=True))
    if any((a.number, a.kind, a.wanted) != (b.number, b.kind, b.wanted) for a, b in pairs):
        raise ValueError("these are answers to different problems: measure both with the same --count")
    gained = sum(b.right and not a.right for a, b in pairs)
    lost = sum(a.right and not b.right for a, b in pairs)
    more = (gained - lost) / len(pairs)
    tokens = fmean(b.tokens for b in other) / fmean(a.tokens for a in one) - 1
    return (
        f"{more:+.1%} of {len(pairs)} problems ({gained} gained, {lost} lost, p = {mcnemar(gained, lost):.2g}), "
        f"{tokens:+.1%} tokens"
    )


def read(path: Path) -> list[Marked]:
    return [Marked(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, marked: Iterable[Marked]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{json.dumps(asdict(one))}\n" for one in marked), encoding="utf-8")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--count", type=int, default=COUNT, help="generated problems")
    parser.add_argument("--budgets", type=int, nargs="+", help="most tokens of a thought")
    parser.add_argument("--thinking", action=argparse.BooleanOptionalAction)
    parser.add_argument("--out", type=Path, help="where every answer goes")
    parser.add_argument("--against", type=Path, nargs=2, metavar=("ONE", "OTHER"))
    args = parser.parse_args()
    if args.against:
        print(compared(*map(read, args.against)))
        return
    if args.model is None:
        parser.error("give a model, or two files by --against")
    keep_memory()
    torch.set_grad_enabled(False)
    model, processor = KimiVL.from_pretrained(args.model, dtype="float32"), KimiVLProcessor.from_pretrained(args.model)
    named = thinks_first(args.model) or any(map(thinks_first, Path(args.model).resolve().parts))
    thinks = named if args.thinking is None else args.thinking
    asked = problems(args.count)
    for budget in args.budgets or [None]:
        marked = list(answers(model, processor, asked, thinks=thinks, budget=budget))
        if args.budgets:
            print(f"at most {budget} tokens of thought")
        print(told(marked), flush=True)
        if args.out:
            write(args.out if budget is None else args.out.with_stem(f"{args.out.stem}-{budget}"), marked)


if __name__ == "__main__":
    main()
