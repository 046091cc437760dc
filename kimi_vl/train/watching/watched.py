"""What stands in a run's folder, read from beside it while it works, and what is wrong with it.

In: ``log.jsonl``, ``schedule.json``, ``samples.jsonl``. Out: :class:`Stage`, and alarms in words. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean, variance
from typing import Any, TypeVar

from kimi_vl.train.watching.curves import Curve

_LOG = "log.jsonl"
RIGHT = "right: "  # stands before the name of an exam

# What a line tells of how the step went, not of what was learned. What is neither here nor below is a loss.
WORDS = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "busiest": "busiest expert",
    "idlest": "idlest expert",
    "skipped": "skipped steps",
    "samples_per_second": "samples a second",
    "tokens_per_second": "tokens a second",
    "patches_per_second": "patches a second",
    "gigabytes": "memory in GB",
}
# Of answers that a policy learns from, as it gave them in a step.
POLICY = {
    "reward": "reward",
    "right": "share of right answers",
    "length": "tokens of an answer",
    "alike": "share of problems whose answers all were worth the same",
    "formless": "share without a thought in its marks",
    "cut": "share that did not end",
    "kl": "divergence within a step",
    "entropy": "entropy of a token",
    "gap": "gap between engine and trainer",
}
_CLOCKS = ("step", "seconds", "seconds_left")
_DEAD = 50  # logged steps without work, after which an expert is called dead
# Experts that are all used alike make a balance loss of 1, and any others that are chosen by their scores more; the
# correction bias may hold it a little lower.
_FLOOR, _SOME = 0.9, 10
_CUT, _ALIKE = 0.2, 0.9  # shares of answers, and of problems, above which a policy has little to learn from
_LISTED = 20  # numbers of steps in a sentence

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One line of the log. ``figures`` is all of it that is no clock, by name."""

    step: int
    seconds: float  # since the run began, or went on
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """A question and what was answered at a step. Without ``wanted`` nobody knows what is right.

    Answers that were judged by a rule say whether they were ``right``, and what that was worth.
    """

    step: int
    question: str
    answer: str
    wanted: str | None
    pictures: tuple[str, ...]
    right: bool | None = None
    reward: float | None = None

    @property
    def wrong(self) -> bool:
        if self.right is not None:
            return not self.right
        return self.wanted is not None and self.answer.strip() != self.wanted.strip()


@dataclass(frozen=True)
class Stage:
    folder: Path
    lines: Sequence[Line]
    planned: int | None  # steps
    samples_per_step: int | None
    shown: Sequence[Shown]

    @property
    def losses(self) -> list[str]:
        """In the order in which they first came."""
        return [name for name in self._names if name not in WORDS and name not in POLICY and not name.startswith(RIGHT)]

    @property
    def policy(self) -> list[str]:
        """What a run that learns from its own answers tells of them."""
        return [name for name in POLICY if name in self._names]

    @property
    def exams(self) -> list[str]:
        """The shares of right answers, in the order in which they first came."""
        return [name for name in self._names if name.startswith(RIGHT)]

    @property
    def _names(self) -> dict[str, None]:
        return dict.fromkeys(name for line in self.lines for name in line.figures)

    def curve(self, name: str) -> Curve:
        points = [(line.step, line.figures[name]) for line in self.lines if name in line.figures]
        return Curve(name, points, exact=name == "lr")


def runs_in(folder: Path) -> list[Path]:
    """The folder, if it is a run's; else the runs in it, in the order of their last lines."""
    if (folder / _LOG).is_file():
        return [folder]
    logs = sorted(folder.glob(f"*/{_LOG}"), key=lambda log: (log.stat().st_mtime, log))
    if not logs:
        raise ValueError(f"{folder} has no {_LOG}, nor has a folder in it: give the folder that a training run writes")
    return [log.parent for log in logs]


def read_stage(folder: Path) -> Stage:
    lines = list(_objects(folder / _LOG, _line))
    for number, (before, after) in enumerate(pairwise(lines), 2):
        if after.step <= before.step:
            raise ValueError(f"{folder / _LOG}, line {number}: step {after.step} comes after step {before.step}")
    planned, samples, schedule = None, None, folder / "schedule.json"
    if schedule.exists():
        try:
            read = json.loads(schedule.read_text(encoding="utf-8"))
            planned, samples = int(read["steps"]), int(read["batch_size"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{schedule} does not tell how many steps, of how many samples, are planned") from None
    shown = list(_objects(folder / "samples.jsonl", _shown)) if (folder / "samples.jsonl").exists() else []
    return Stage(folder, lines, planned, samples, shown)


def _objects(path: Path, read: Callable[[Any], T]) -> Iterator[T]:
    """What ``read`` makes of each line. The last one may be half written, and is left out then."""
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            yield read(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            if number < len(lines):
                raise ValueError(f"{path}, line {number} cannot be read: {line[:80]!r}") from None


def _line(told: Any) -> Line:
    figures = {str(name): float(value) for name, value in told.items() if name not in _CLOCKS}
    return Line(int(told["step"]), float(told["seconds"]), figures)


def _shown(told: Any) -> Shown:
    wanted, pictures = told.get("wanted"), told.get("pictures", [])
    if not isinstance(pictures, list):
        raise TypeError("pictures are a list")
    return Shown(
        int(told["step"]),
        str(told["question"]),
        str(told["answer"]),
        None if wanted is None else str(wanted),
        tuple(map(str, pictures)),
        None if told.get("right") is None else bool(told["right"]),
        None if told.get("reward") is None else float(told["reward"]),
    )


def seconds_of(lines: Sequence[Line]) -> float:
    """How long all of it took: the clock begins anew each time that a run goes on."""
    ends = [before.seconds for before, after in pairwise(lines) if after.seconds < before.seconds]
    return sum(ends) + (lines[-1].seconds if lines else 0.0)


def seconds_left(stage: Stage) -> float | None:
    """At the speed of the last ten lines since the clock began."""
    if stage.planned is None or len(stage.lines) < 2:
        return None
    first = last = stage.lines[-1]
    for line in reversed(stage.lines[-11:-1]):
        if line.seconds >= first.seconds:
            break
        first = line
    if first is last:
        return None
    return max(0, stage.planned - last.step) * (last.seconds - first.seconds) / (last.step - first.step)


def alarms(stage: Stage) -> list[str]:
    """What is wrong with a run, a sentence each."""
    found = []
    for dead, group in groupby((line for line in stage.lines if "idlest" in line.figures), _is_idle):
        steps = [line.step for line in group]
        if dead and len(steps) >= _DEAD:
            found.append(f"An expert is dead: in {len(steps)} logged steps, {steps[0]} to {steps[-1]}, it got nothing.")
    if (floor := [value for _, value in stage.curve("balance").points][-_SOME:]) and fmean(floor) < _FLOOR:
        found.append(f"The loss balance is {fmean(floor):.2f}: below 1 the router has found a way round it.")
    if skipped := {line.step: line.figures["skipped"] for line in stage.lines if line.figures.get("skipped")}:
        count = f"{sum(skipped.values()):.0f} left out because of the gradient (spikes)"
        found.append(f"Steps skipped: {count}, told at {_listed(list(skipped))}.")
    found += _of_policy(stage)
    for name in stage.losses:
        points = stage.curve(name).points
        if broken := [step for step, value in points if not math.isfinite(value)]:
            where = (
                f"{len(broken)} logged steps, {broken[0]} to {broken[-1]}" if len(broken) > 1 else f"step {broken[0]}"
            )
            found.append(f"The loss {name} is not finite at {where}.")
        elif (rise := rising([value for _, value in points])) is not None:
            found.append(f"The loss {name} rises: by {rise:.1%} within the last third.")
    return found


def _of_policy(stage: Stage) -> list[str]:
    """Of a run that learns from its own answers."""
    found = []
    cut, alike, norms = (
        [value for _, value in stage.curve(name).points][-_SOME:] for name in ("cut", "alike", "grad_norm")
    )
    if cut and fmean(cut) > _CUT:
        found.append(
            f"Of the last answers {fmean(cut):.0%} did not end: allow more max_new_tokens, or hold the policy nearer "
            f"to where it was (tau, kl)."
        )
    if alike and fmean(alike) > _ALIKE:
        found.append(
            f"Of the last problems {fmean(alike):.0%} had answers that all were worth the same, which teach nothing: "
            f"pose harder or easier ones."
        )
    if alike and len(norms) == _SOME and not any(norms):
        found.append(f"The gradient has been 0 for {_SOME} logged steps: nothing is learned.")
    return found


def _is_idle(line: Line) -> bool:
    return line.figures["idlest"] == 0


def _listed(steps: Sequence[int]) -> str:
    more = f" and {len(steps) - _LISTED} more" if len(steps) > _LISTED else ""
    return f"{'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps[:_LISTED]))}{more}"


def rising(values: Sequence[float]) -> float | None:
    """By how much the last sixth of ``values`` lies above the sixth before it, if that is more than 2 percent and
    three times what chance would do."""
    half = len(values) // 6
    if half < 5:
        return None
    before, after = values[-2 * half : -half], values[-half:]
    rise = fmean(after) - fmean(before)
    chance = math.sqrt((variance(before) + variance(after)) / half)
    share = rise / max(abs(fmean(before)), 1e-12)
    return share if share > 0.02 and rise > 3 * chance else None
