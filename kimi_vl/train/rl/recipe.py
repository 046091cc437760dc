"""The recipe of the stage that learns from its own answers: one TOML file, read strictly.

stage = "rl"
run = ".runs/nano/rl"
start = ".runs/nano/long_cot"                   # a run, a model folder or an alias
steps = 100
batch_size = 32                                 # problems a step
answers = 8                                     # to each
peak = 1e-4

[[problems]]
name = "geometry"
levels = 5
draw = "recipes.nano.reasoning.posed:geometry"  # (seed, index, level) -> Posed

[[exams]]
name = "unseen"
draw = "recipes.nano.reasoning.posed:unseen"    # (count) -> Posed, answered at every save
count = 200
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kimi_vl.train.recipe import ExamRecipe, RunRecipe
from kimi_vl.train.tables import read_tables, several, table

STAGE = "rl"
OBJECTIVES = ("mirror_descent", "grpo")
REWARDS = ("rule", "chance")


@dataclass(frozen=True)
class ProblemsRecipe:
    """Problems of one kind: ``draw`` is a function of (seed, index, level), with levels from 1, the easiest."""

    name: str
    draw: str
    levels: int = 1

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"problems {self.name}: levels must be at least 1, not {self.levels}")


@dataclass(frozen=True, kw_only=True)
class RLRecipe(RunRecipe):
    """Everything that decides what a run does that learns from its own answers (run.py).

    A step poses ``batch_size`` problems, draws ``answers`` to each, and learns from them in ``updates``, each of as
    many problems. ``tau`` is for mirror descent, ``clip`` and ``kl`` are for GRPO (policy.py). The length reward's
    weight goes in a line from 0 at the share ``length_from`` of the steps to ``length`` at ``length_full``. Levels open
    one after the other, all of them after the share ``opening`` of the steps. ``reward`` "chance" is the control: half
    of the answers count as right, whatever they say.
    """

    problems: tuple[ProblemsRecipe, ...]
    warmup: int = 0
    save_every: int = 10
    show: int = 2  # problems whose answers are kept at every save
    answers: int = 8
    updates: int = 4
    max_new_tokens: int = 512
    cache: int = 65536  # tokens of all answers that are under way
    objective: str = "mirror_descent"  # or grpo
    tau: float = 0.1
    clip: float = 0.2
    kl: float = 0.0
    length: float = 0.0
    length_from: float = 0.5
    length_full: float = 0.6
    opening: float = 0.0
    prioritised: bool = True
    reward: str = "rule"  # or chance
    gap: float = 1e-3  # between engine and trainer, mean of a step's tokens, that a run does not go on with

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_names("problems", [each.name for each in self.problems])
        self.check_counts("updates", "max_new_tokens", "cache")
        if self.start is None:
            raise ValueError("start is missing: answers come from a model that has learned to give them")
        if self.answers < 2:
            raise ValueError(f"answers must be at least 2, to be compared, not {self.answers}")
        for name, known in (("objective", OBJECTIVES), ("reward", REWARDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("length_from", "length_full", "opening"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the steps, 0 to 1, not {getattr(self, name)}")
        if self.length_full < self.length_from:
            raise ValueError(f"length_full {self.length_full} is before length_from {self.length_from}")
        for name in ("tau", "clip", "kl", "length", "gap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


def read_rl_recipe(path: Path, wishes: Sequence[str] = ()) -> RLRecipe:
    """The recipe of a file; ``wishes`` such as ``steps=10`` put other values in its place.

    Raises: ``ValueError`` naming the file and the key.
    """
    raw = read_tables(path, wishes)
    try:
        problems = tuple(table(ProblemsRecipe, each) for each in several(raw, "problems"))
        exams = tuple(table(ExamRecipe, each) for each in several(raw, "exams"))
        return table(RLRecipe, raw | {"problems": problems, "exams": exams})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
