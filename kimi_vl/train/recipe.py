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
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from kimi_vl.train.optim.rates import SHAPES

_Table = TypeVar("_Table")


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


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a stage's run does.

    ``reading`` and ``placing`` are the weights of those losses beside that of the answers (learner.py).
    Pictures begin at the share ``resolution`` of their sides and are whole after the share ``growth`` of the steps.
    Weights whose names begin as one of ``still`` stay as they are, whatever the stage moves.
    """

    stage: str
    run: str
    steps: int
    batch_size: int
    peak: float
    sources: tuple[SourceRecipe, ...]
    start: str | None = None
    config: str | None = None
    processor: str = "nano"
    context: int = 8192
    seed: int = 0
    pieces: int = 1
    passes: int = 1
    reading: float = 0.0
    placing: float = 0.0
    still: list[str] = field(default_factory=list)  # such as model.vision_tower.
    resolution: float = 1.0
    growth: float = 0.5
    warmup: int = 50
    shape: str = "wsd"  # or cosine; see rates.py
    decay: float = 0.3
    floor: float = 0.0
    save_every: int = 200
    log_every: int = 1
    exams: tuple[ExamRecipe, ...] = ()
    show: int = 8  # samples whose answers are kept at every save
    recompute: str = "nothing"  # or cheap, or layers; see recompute.py
    context_parallel: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: give at least one [[sources]]")
        for name in ("steps", "batch_size", "context", "pieces", "passes", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.show < 0:
            raise ValueError(f"show must be at least 0, not {self.show}")
        for name, of in (("decay", "steps"), ("floor", "peak")):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the {of}, 0 to 1, not {getattr(self, name)}")
        if self.shape not in SHAPES:
            raise ValueError(f"shape is one of {', '.join(SHAPES)}, not {self.shape!r}")
        if not 0 < self.resolution <= 1:
            raise ValueError(f"resolution is a share of a picture's sides, above 0 to 1, not {self.resolution}")
        if not 0 < self.growth <= 1:
            raise ValueError(f"growth is a share of the steps, above 0 to 1, not {self.growth}")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources: two are called {max(names, key=names.count)!r}")


def read_recipe(path: Path, wishes: Sequence[str] = ()) -> Recipe:
    """The recipe of a file; ``wishes`` such as ``steps=10`` put other values in its place.

    Raises: ``ValueError`` naming the file and the key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no recipe {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for wish in wishes:
        key, equals, value = wish.partition("=")
        if not equals:
            raise ValueError(f"{wish!r} sets nothing: write it as key=value")
        raw[key.strip()] = _value(value.strip())
    try:
        sources = _tables(raw, "sources")
        exams = tuple(_exams(_tables(raw, "exams"), path.parent))
        return _table(Recipe, raw | {"sources": tuple(_sources(sources, path.parent)), "exams": exams})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _tables(raw: Mapping[str, Any], name: str) -> list[Any]:
    tables = raw.get(name, [])
    if not isinstance(tables, list):
        raise ValueError(f"{name} must be tables, each beginning with [[{name}]]")
    return tables


def _sources(tables: Sequence[Any], folder: Path) -> Iterator[SourceRecipe]:
    for table in tables:
        if isinstance(table, Mapping) and "recipe" in table:
            yield from _taken_over(_table(_Another, table), folder)
        else:
            yield _table(SourceRecipe, table)


def _exams(tables: Sequence[Any], folder: Path) -> Iterator[ExamRecipe]:
    for table in tables:
        if isinstance(table, Mapping) and "recipe" in table:
            yield from read_recipe(folder / _table(_OtherExams, table).recipe).exams
        else:
            yield _table(ExamRecipe, table)


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


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _table(kind: type[_Table], raw: Mapping[str, Any]) -> _Table:
    """Strictly: every key is known, none is missing, each value has its type."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{raw!r} is no table")
    hints = get_type_hints(kind)
    if unknown := sorted(raw.keys() - hints.keys()):
        raise ValueError(f"there is no key {unknown[0]!r}; known are {', '.join(hints)}")
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in raw]:
        raise ValueError(f"{missing[0]} is missing")
    return kind(**{name: _typed(name, value, hints[name]) for name, value in raw.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is list:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError(f"{name} must be a list of strings, not {value!r}")
        return value
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if name not in ("sources", "exams") and (not isinstance(value, tuple(kinds)) or isinstance(value, bool)):
        raise ValueError(f"{name} must be {kinds[0].__name__}, not {value!r}")
    return value
