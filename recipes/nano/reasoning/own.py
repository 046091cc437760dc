"""Rejection sampling: of a model's own answers to training problems, those that are right, to learn from again.

    python -m recipes.nano.reasoning.own MODEL FOLDER

Writes FOLDER/own.jsonl, a conversation a line, and its pictures beside it: what `jsonl` of a recipe's source reads.
Of a problem that was answered both rightly and wrongly, its shortest right answer is kept; of those that were always
answered rightly every fourth, for what one can do already teaches little; and of those that never were, every other
one's worked solution.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch

from kimi_vl import KimiVL, KimiVLProcessor, SamplingParams
from kimi_vl.marks import THOUGHT
from kimi_vl.train.opening import keep_memory
from kimi_vl.train.rewards import Judge, parts
from kimi_vl.train.rl.rollouts import Answer, Rollouts
from recipes.nano.reasoning import nlvr
from recipes.nano.reasoning.kinds import KINDS, problem
from recipes.nano.reasoning.posed import posed_of
from recipes.nano.reasoning.problem import LEVELS, Problem

_TOGETHER = 64  # problems
_CACHE = 131072
_LONGEST = 384  # tokens
# Numbers of problems that neither worked solutions nor learning by reward begin at.
_FIRST = 900_000_000


def posable(number: int) -> Problem:
    """A training problem of any kind and level."""
    random = Random(f"own/{number}")
    names = [*KINDS, *(["nlvr"] if nlvr.is_there() else [])]
    kind, level = random.choice(names), random.randint(1, LEVELS)
    if kind == "nlvr":
        return nlvr.nlvr_problem(random, "train", level)
    return problem(kind, "train", level, _FIRST + number)


def kept(one: Problem, answers: Sequence[Answer], right: Sequence[bool], lot: float) -> str | None:
    """What to learn from; ``lot``, from 0 to 1, decides where all are right, or none."""
    good = [answer for answer, is_right in zip(answers, right, strict=True) if is_right]
    if not good:
        return f"{THOUGHT.opening}{one.thought}{THOUGHT.closing}{one.answer}" if lot < 0.5 else None
    if all(right) and lot >= 0.25:
        return None
    return min(good, key=lambda answer: len(answer.ids)).text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4000, help="problems")
    parser.add_argument("--answers", type=int, default=4, help="to each")
    args = parser.parse_args()
    keep_memory()
    torch.set_grad_enabled(False)
    model, processor = KimiVL.from_pretrained(args.model, dtype="float32"), KimiVLProcessor.from_pretrained(args.model)
    rollouts = Rollouts(model.model, processor, cache=_CACHE)
    pictures = args.folder / "own"
    pictures.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    seen: Counter[str] = Counter()
    with Judge() as judge:
        for first in range(0, args.count, _TOGETHER):
            numbers = range(first, min(args.count, first + _TOGETHER))
            problems = [posable(number) for number in numbers]
            params = [
                SamplingParams(max_new_tokens=_LONGEST, temperature=1.0, n=args.answers, seed=number)
                for number in numbers
            ]
            given = rollouts.answer([posed_of(one).messages for one in problems], params)
            for number, one, rollout in zip(numbers, problems, given, strict=True):
                found = [parts(answer.text) if answer.ended else None for answer in rollout.answers]
                right = [each is not None and judge.is_right(one.rule, each.said) for each in found]
                seen["answers"] += len(right)
                seen["right"] += sum(right)
                text = kept(one, rollout.answers, right, Random(f"kept/{number}").random())
                if text is None:
                    continue
                name = f"own/{number}.png"
                one.picture.save(args.folder / name)
                asked = {"role": "user", "content": [{"type": "image", "image": name}, one.question]}
                lines.append(json.dumps({"messages": [asked, {"role": "assistant", "content": text}]}))
            print(f"{numbers.stop} of {args.count}: {len(lines)} kept", flush=True)
    part = args.folder / "own.jsonl.part"
    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    part.replace(args.folder / "own.jsonl")
    print(f"{seen['right'] / seen['answers']:.1%} of {seen['answers']} answers right, {len(lines)} kept")


if __name__ == "__main__":
    main()
