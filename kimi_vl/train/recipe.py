"""A stage's recipe: one TOML file, read strictly.

    stage = "joint"
    run = ".runs/nano/joint"          # where it is kept, and goes on from
    start = ".runs/nano/alignment"    # a run, a model folder or an alias; without it, new weights of `config`
    steps = 4000
    batch_size = 512
    peak = 2e-3

    [[sources]]
    name = "lines"
    weight = 0.3
    weight_end = 0.4                        # at the last step; without it, the weight stays
    draw = "recipes.nano.sources:line"      # (seed, index) -> Sample
    [[sources]]
    name = "mine"
    weight = 0.1
    jsonl = "mine.jsonl"                    # conversations
    [[sources]]
    recipe = "joint.toml"                   # all sources of another recipe, as they are at its end
    without = ["text"]                      # but for these
    weight = 0.6

    [[exams]]
    name = "lines"
    draw = "recipes.nano.exams:lines"       # (count) -> questions that are asked at every save
    count = 200
    [[exams]]
    recipe = "joint.toml"                   # those of another recipe

Paths are relative to where the run is started, that of another recipe to the file that names it. Knows nothing of what
a stage does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kimi_vl.train.optim.rates import SHAPES
from kimi_vl.train.tables import read_tables, several, table


@dataclass(frozen=True)
class SourceRecipe:
    """Where a share of the samples comes from: exactly one of ``draw`` and ``jsonl``.

    ``weight_end``, if given, is the weight at the last step, to which that of the first goes in a line.
    """

    name: str
    weight: float
    draw: str | None = None
    jsonl: str | None = None
    weight_end: float | None = None

    def __post_init__(self) -> None:
        if (self.draw is None) == (self.jsonl is None):
            raise ValueError(f"source {self.name}: give either draw or jsonl")
        for name in ("weight", "weight_end"):
            weight = getattr(self, name)
            if weight is not None and not 0 < weight < math.inf:
                raise ValueError(f"source {self.name}: {name} must be above 0, not {weight}")


@dataclass(frozen=True)
class _Another:
    """Sources that stand in another recipe."""

    recipe: str
    weight: float
    without: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _OtherExams:
    """Exams that stand in another recipe."""

    recipe: str


@dataclass(frozen=True)
class ExamRecipe:
    """Questions that are asked at every save: ``draw`` is a function of their ``count``."""

    name: str
    draw: str
    count: int = 100


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """What every run has, whatever it learns from.

    Weights whose names begin as one of ``still`` stay as they are, whatever the stage moves.
    """

    stage: str
    run: str
    steps: int
    batch_size: int
    peak: float
    start: str | None = None
    processor: str = "nano"
    seed: int = 0
    pieces: int = 1
    still: list[str] = field(default_factory=list)  # such as model.vision_tower.
    warmup: int = 50
    shape: str = "wsd"  # or cosine; see rates.py
    decay: float = 0.3
    floor: float = 0.0
    save_every: int = 200
    log_every: int = 1
    exams: tuple[ExamRecipe, ...] = ()
    show: int = 8  # samples whose answers are kept at every save
    recompute: str = "nothing"  # or cheap, or layers; see recompute.py

    def __post_init__(self) -> None:
        self.check_counts("steps", "batch_size", "pieces", "save_every", "log_every")
        if self.show < 0:
            raise ValueError(f"show must be at least 0, not {self.show}")
        for name, of in (("decay", "steps"), ("floor", "peak")):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the {of}, 0 to 1, not {getattr(self, name)}")
        if self.shape not in SHAPES:
            raise ValueError(f"shape is one of {', '.join(SHAPES)}, not {self.shape!r}")

    def check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def check_names(self, kind: str, names: Sequence[str]) -> None:
        """Raises ``ValueError`` if there are none, or two of one name."""
        if not names:
            raise ValueError(f"{kind}: give at least one [[{kind}]]")
        if len(set(names)) < len(names):
            raise ValueError(f"{kind}: two are called {max(names, key=names.count)!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe(RunRecipe):
    """Everything that decides what the run of a stage does that learns from samples.

    ``reading`` and ``placing`` are the weights of those losses beside that of the answers (learner.py).
    Pictures begin at the share ``resolution`` of their sides and are whole after the share ``growth`` of the steps.
    """

    sources: tuple[SourceRecipe, ...]
    config: str | None = None
    context: int = 8192
    passes: int = 1
    reading: float = 0.0
    placing: float = 0.0
    resolution: float = 1.0
    growth: float = 0.5
    context_parallel: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_names("sources", [each.name for each in self.sources])
        self.check_counts("context", "passes")
        if not 0 < self.resolution <= 1:
            raise ValueError(f"resolution is a share of a picture's sides, above 0 to 1, not {self.resolution}")
        if not 0 < self.growth <= 1:
            raise ValueError(f"growth is a share of the steps, above 0 to 1, not {self.growth}")


def read_recipe(path: Path, wishes: Sequence[str] = ()) -> Recipe:
    """The recipe of a file; ``wishes`` such as ``steps=10`` put other values in its place.

    Raises: ``ValueError`` naming the file and the key.
    """
    raw = read_tables(path, wishes)
    try:
        sources = tuple(_sources(several(raw, "sources"), path.parent))
        exams = tuple(_exams(several(raw, "exams"), path.parent))
        return table(Recipe, raw | {"sources": sources, "exams": exams})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _sources(tables: Sequence[Any], folder: Path) -> Iterator[SourceRecipe]:
    for each in tables:
        if isinstance(each, Mapping) and "recipe" in each:
            yield from _taken_over(table(_Another, each), folder)
        else:
            yield table(SourceRecipe, each)


def _exams(tables: Sequence[Any], folder: Path) -> Iterator[ExamRecipe]:
    for each in tables:
        if isinstance(each, Mapping) and "recipe" in each:
            yield from read_recipe(folder / table(_OtherExams, each).recipe).exams
        else:
            yield table(ExamRecipe, each)


def _taken_over(another: _Another, folder: Path) -> Iterator[SourceRecipe]:
    """The sources of another recipe, all together of the weight that is wanted."""
    sources = read_recipe(folder / another.recipe).sources
    if unknown := set(another.without) - {source.name for source in sources}:
        raise ValueError(f"without: {another.recipe} has no source {sorted(unknown)[0]!r}")
    ends = {source: source.weight_end or source.weight for source in sources if source.name not in another.without}
    if not ends:
        raise ValueError(f"without: nothing is left of {another.recipe}")
    for source, weight in ends.items():
        yield replace(source, weight=weight * another.weight / sum(ends.values()), weight_end=None)
