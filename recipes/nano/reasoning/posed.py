"""Problems as they are posed to a model that thinks, and with their worked solutions as samples to learn from.

Comes in: `Problem`. Goes out: `Posed` for learning by reward, `Sample` for learning by example, exams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from kimi_vl.chat import Message, TextPart
from kimi_vl.marks import THOUGHT
from kimi_vl.train.data.conversations import sample_of
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.rl.problems import Posed
from recipes.nano.fonts import Split
from recipes.nano.reasoning.kinds import KINDS, problem
from recipes.nano.reasoning.problem import LEVELS, Problem
from recipes.nano.samples import processor, question_of

SLIPS = 0.08  # of a worked solution's steps
_APART = 10**7  # problems of a seed


def posed_of(one: Problem) -> Posed:
    return Posed([question_of((one.picture,), one.question)], one.rule, one.answer)


def solved(one: Problem, thought: str | None = None) -> Sample:
    """With its own worked solution, or another ``thought`` that led to its answer."""
    said = f"{THOUGHT.opening}{one.thought if thought is None else thought}{THOUGHT.closing}{one.answer}"
    messages = [question_of((one.picture,), one.question), Message("assistant", (TextPart(said),))]
    return sample_of(messages, [one.picture], processor())


def _posing(kind: str) -> Callable[[int, int, int], Posed]:
    return lambda seed, index, level: posed_of(problem(kind, "train", level, seed * _APART + index))


def __getattr__(name: str) -> Callable[[int, int, int], Posed]:
    """Every kind by its name: (seed, index, level) -> `Posed`."""
    if name in KINDS:
        return _posing(name)
    raise AttributeError(f"there is no kind {name!r}; there are {', '.join(KINDS)}")


def worked(seed: int, index: int) -> Sample:
    """A problem of any kind and level with its worked solution."""
    random = Random(f"worked/{seed}/{index}")
    kind, level = random.choice(list(KINDS)), random.randint(1, LEVELS)
    return solved(problem(kind, "train", level, seed * _APART + index, slips=SLIPS))


def heldout(count: int, split: Split = "heldout") -> Iterator[Problem]:
    """As many of each kind and level as of any other, one kind after the other."""
    cells = [(kind, level) for kind in KINDS for level in range(1, LEVELS + 1)]
    for number in range(count):
        kind, level = cells[number % len(cells)]
        yield problem(kind, split, level, number // len(cells))


def unseen(count: int) -> Iterator[Posed]:
    return map(posed_of, heldout(count))
