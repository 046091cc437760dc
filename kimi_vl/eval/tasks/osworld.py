"""OSWorld: 369 tasks at a desktop's screen, 30 of which cannot be done; what an agent did is marked, and nothing asked.

There is no desktop here: whoever has one gives functions that set it up, look at it and compare what is found, by the
names that the tasks call them. Officially a run without a result is left out; here it has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kimi_vl.eval.files import beside, checked_count, checked_unique, found, read_json, with_columns
from kimi_vl.eval.task import Marked, Verdict

_COUNT = 369
_COLUMNS = ("id", "snapshot", "instruction", "related_apps", "evaluator")
_INFEASIBLE = "infeasible"
_FAIL = "FAIL"
_CONJUNCTIONS = ("and", "or")


@dataclass(frozen=True)
class Call:
    """Of a function by its name. What it is given is its own business, as the tasks have it."""

    name: str
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """A metric of what is found, and of what is expected if that is found, too."""

    metric: str
    result: Call
    expected: Call | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """``checks`` is empty for a task that cannot be done. ``id`` begins with the domain, as one id is in two."""

    id: str
    domain: str
    instruction: str
    snapshot: str
    apps: tuple[str, ...]
    setup: tuple[Call, ...]
    before_checks: tuple[Call, ...]
    checks: tuple[Check, ...]
    conjunction: Literal["and", "or"]

    @property
    def feasible(self) -> bool:
        return bool(self.checks)


@dataclass(frozen=True)
class Tools:
    """Functions by the names that tasks give them.

    A getter is given its whole configuration, a metric what was found, perhaps what was expected, and its options, and
    a step its parameters by their names.
    """

    getters: Mapping[str, Callable[[Mapping[str, Any]], Any]]
    metrics: Mapping[str, Callable[..., float]]
    steps: Mapping[str, Callable[..., object]]


# ---- tasks ----


def load(folder: Path) -> list[Problem]:
    """From the official ``evaluation_examples``. Raises: ``ValueError`` for what is not of that format."""
    index = found(folder, "test_all.json", "evaluation_examples/test_all.json")
    domains = read_json(index)
    if not isinstance(domains, dict) or not all(isinstance(ids, list) for ids in domains.values()):
        raise ValueError(f"{index} must have a list of ids for each domain")
    problems = [
        _problem(domain, str(one), beside(index.parent, f"examples/{domain}/{one}.json", str(index), "task"))
        for domain, ids in domains.items()
        for one in ids
    ]
    checked_count(problems, _COUNT, str(index))
    checked_unique([problem.id for problem in problems], str(index))
    return problems


def _problem(domain: str, name: str, path: Path) -> Problem:
    row = with_columns(read_json(path), _COLUMNS, str(path))
    if row["id"] != name:
        raise ValueError(f"{path} is the task {row['id']!r}: the file of each is called by its id")
    evaluator = with_columns(row["evaluator"], ("func",), f"{path}, evaluator")
    conjunction = evaluator.get("conj", "and")
    if conjunction not in _CONJUNCTIONS:
        raise ValueError(f"{path}: conj is {' or '.join(_CONJUNCTIONS)}, not {conjunction!r}")
    return Problem(
        id=f"{domain}/{name}",
        domain=domain,
        instruction=row["instruction"],
        snapshot=row["snapshot"],
        apps=tuple(row["related_apps"]),
        setup=_steps(row.get("config", []), f"{path}, config"),
        before_checks=_steps(evaluator.get("postconfig", []), f"{path}, postconfig"),
        checks=() if evaluator["func"] == _INFEASIBLE else _checks(evaluator, f"{path}, evaluator"),
        conjunction=conjunction,
    )


def _steps(rows: Any, where: str) -> tuple[Call, ...]:
    steps = (with_columns(row, ("type", "parameters"), where) for row in rows)
    return tuple(Call(step["type"], step["parameters"]) for step in steps)


def _checks(evaluator: Mapping[str, Any], where: str) -> tuple[Check, ...]:
    func = evaluator["func"]
    if not func:
        raise ValueError(f"{where}: func names no metric")
    columns = [_column(evaluator, name, func, where) for name in ("func", "result", "expected", "options")]
    return tuple(
        Check(str(metric), _getter(result, where), _getter(expected, where) if expected else None, options or {})
        for metric, result, expected, options in zip(*columns, strict=True)
    )


def _column(evaluator: Mapping[str, Any], name: str, func: Any, where: str) -> list[Any]:
    """One entry for each metric; nothing at all, and nothing in a list, are alike."""
    if not isinstance(func, list):
        if isinstance(evaluator.get(name), list):
            raise ValueError(f"{where}: {name} is a list, and func is none")
        return [evaluator.get(name)]
    column = evaluator.get(name) or [None] * len(func)
    if not isinstance(column, list) or len(column) != len(func):
        raise ValueError(f"{where}: {name} must be a list of {len(func)}, as func is")
    return column


def _getter(row: Any, where: str) -> Call:
    row = with_columns(row, ("type",), where)
    return Call(row["type"], row)


# ---- marks ----


def score(problem: Problem, actions: Sequence[str], tools: Tools) -> float:
    """What a desktop is worth, as the agent left it with these actions: from 0 to 1.

    Whatever a function raises is nothing found. Raises: ``ValueError`` if a function is not there by its name.
    """
    _check_names(problem, tools)
    gave_up = bool(actions) and actions[-1] == _FAIL
    if not problem.feasible:
        return float(gave_up)
    if gave_up:
        return 0.0
    try:
        for step in problem.before_checks:
            tools.steps[step.name](**step.given)
    except Exception:  # of the caller's functions, which fail in any way
        return 0.0
    return _all(problem.checks, tools) if problem.conjunction == "and" else _any(problem.checks, tools)


def _all(checks: Sequence[Check], tools: Tools) -> float:
    """Their mean, but nothing from the first on that is nothing."""
    found = []
    for check in checks:
        if (value := _value(check, tools)) == 0.0:
            return 0.0
        found.append(value)
    return sum(found) / len(found)


def _any(checks: Sequence[Check], tools: Tools) -> float:
    """The best. Behind one that is whole, no other is looked at."""
    best = 0.0
    for check in checks:
        if (value := _value(check, tools)) == 1.0:
            return 1.0
        best = max(best, value)
    return best


def _value(check: Check, tools: Tools) -> float:
    try:
        result = tools.getters[check.result.name](check.result.given)
        expected = None if check.expected is None else tools.getters[check.expected.name](check.expected.given)
        compared = (result,) if expected is None else (result, expected)
        return float(tools.metrics[check.metric](*compared, **check.options))
    except Exception:  # of the caller's functions, such as a file that is not there
        return 0.0


def _check_names(problem: Problem, tools: Tools) -> None:
    getters = [call.name for check in problem.checks for call in (check.result, check.expected) if call is not None]
    wanted: list[tuple[str, Sequence[str], Mapping[str, object]]] = [
        ("metric", [check.metric for check in problem.checks], tools.metrics),
        ("getter", getters, tools.getters),
        ("step", [step.name for step in problem.before_checks], tools.steps),
    ]
    for kind, names, known in wanted:
        if missing := [name for name in names if name not in known]:
            raise ValueError(
                f"task {problem.id} needs the {kind} {missing[0]!r}, and there is none: give it by that name"
            )


# ---- results ----


def marked(problems: Sequence[Problem], results: Path) -> list[Marked[Problem]]:
    """All tasks, by the ``DOMAIN/ID/result.txt`` of a run; those that have none count as failed.

    Raises: ``ValueError`` for a result that is no number from 0 to 1.
    """
    return [Marked(problem, _result(results / problem.id / "result.txt")) for problem in problems]


def _result(path: Path) -> Verdict:
    if not path.is_file():
        return Verdict(0.0, None)
    text = path.read_text(encoding="utf-8").strip()
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{path}: a result is a number from 0 to 1, not {text[:40]!r}: mark the task again")
    return Verdict(value, text)


def groups(problem: Problem) -> Sequence[str]:
    """Success is quoted of what can be done, too: an agent that always gives up has 8 % of the whole."""
    return (problem.domain, "feasible" if problem.feasible else _INFEASIBLE)
