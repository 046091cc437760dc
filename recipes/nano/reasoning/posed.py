"""Problems as they are posed to a model that thinks, and with their worked solutions as samples to learn from.

Comes in: `Problem`. Goes out: `Posed` for learning by reward, `Sample` for learning by example, held-out problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from PIL import Image

from kimi_vl.chat import Message, TextPart
from kimi_vl.marks import THOUGHT
from kimi_vl.train.data.conversations import sample_of
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.rl.problems import Posed
from recipes.nano import lines, scenes
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.figures import charts
from recipes.nano.fonts import Split
from recipes.nano.questions import READ
from recipes.nano.reasoning.kinds import KINDS, problem
from recipes.nano.reasoning.nlvr import nlvr_problem
from recipes.nano.reasoning.problem import LEVELS, Problem
from recipes.nano.samples import processor, question_of

SLIPS = 0.08  # of a worked solution's steps
_APART = 10**7  # problems of a seed
# What is thought where there is nothing to work out.
_PLAIN = "It is there to be seen."


# ---- by reward ----


def posed_of(one: Problem) -> Posed:
    return Posed([question_of((one.picture,), one.question)], one.rule, one.answer)


def nlvr(seed: int, index: int, level: int) -> Posed:
    return posed_of(nlvr_problem(Random(f"nlvr/{seed}/{index}"), "train", level))


def __getattr__(name: str) -> Callable[[int, int, int], Posed]:
    """Every other kind by its name: (seed, index, level) -> `Posed`."""
    if name in KINDS:
        return lambda seed, index, level: posed_of(problem(name, "train", level, seed * _APART + index))
    raise AttributeError(f"there is no kind {name!r}; there are {', '.join(KINDS)}")


# ---- by example ----


def solved(one: Problem, thought: str | None = None) -> Sample:
    """With its own worked solution, or another ``thought`` that led to its answer."""
    return _answered(one.picture, one.question, one.thought if thought is None else thought, one.answer)


def _answered(picture: Image.Image, question: str, thought: str, answer: str) -> Sample:
    said = f"{THOUGHT.opening}{thought}{THOUGHT.closing}{answer}"
    messages = [question_of((picture,), question), Message("assistant", (TextPart(said),))]
    return sample_of(messages, [picture], processor())


def worked(seed: int, index: int) -> Sample:
    """A problem of any kind and level with its worked solution."""
    random = Random(f"worked/{seed}/{index}")
    kind, level = random.choice(list(KINDS)), random.randint(1, LEVELS)
    return solved(problem(kind, "train", level, seed * _APART + index, slips=SLIPS))


def worked_nlvr(seed: int, index: int) -> Sample:
    random = Random(f"worked nlvr/{seed}/{index}")
    return solved(nlvr_problem(random, "train", random.randint(1, LEVELS)))


def known(seed: int, index: int) -> Sample:
    """What nano answers at a glance: lines, emoji, how many there are, charts."""
    random = Random(f"known/{seed}/{index}")
    shown = random.choice(_KNOWN)(seed, index)
    turn = shown.turns[0]
    return _answered(shown.pictures[0], turn.question, _PLAIN, turn.answer)


def _line(seed: int, index: int) -> Conversation:
    line = lines.line_sample(seed, index, "train")
    return Conversation((line.image,), (Turn(Random(f"question/{seed}/{index}").choice(READ), line.text),))


_KNOWN: tuple[Callable[[int, int], Conversation], ...] = (
    _line,
    lambda seed, index: scenes.emoji_conversation(seed, index, "train"),
    lambda seed, index: scenes.counting_conversation(seed, index, "train"),
    lambda seed, index: charts.chart_sample(seed, index, "train"),
)


# ---- held out ----


def heldout(count: int, split: Split = "heldout") -> Iterator[Problem]:
    """Each kind and level in turn."""
    cells = [(kind, level) for kind in KINDS for level in range(1, LEVELS + 1)]
    for number in range(count):
        kind, level = cells[number % len(cells)]
        yield problem(kind, split, level, number // len(cells))


def unseen(count: int) -> Iterator[Posed]:
    return map(posed_of, heldout(count))
