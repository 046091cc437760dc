"""Watching a run: what stands in its folder becomes one HTML page that needs nothing else.

In: a run's folder (``log.jsonl`` and ``schedule.json`` of loop.py; ``samples.jsonl``, if somebody writes one), or a
folder of such. Out: a file with alarms in words, curves, the last figures and samples. No model is known here, and no
torch: a run is watched from beside it, while it works.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from kimi_vl.train.watching.curves import chart, readable
from kimi_vl.train.watching.watched import (
    POLICY,
    WORDS,
    Shown,
    Stage,
    alarms,
    read_stage,
    runs_in,
    seconds_left,
    seconds_of,
)

_ROWS = 10  # of the table
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}


def report(run: Path, target: Path) -> None:
    """Writes the page of a run, or of all runs that lie in a folder, to ``target``, which is replaced only by a whole
    one. Raises ``ValueError`` if there is no log, or a line of one cannot be read."""
    folders = runs_in(run)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"{target}: the page needs the name of a file in a folder that exists")
    stages = [read_stage(folder) for folder in folders]
    template = files("kimi_vl.train.watching").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": escape(run.resolve().name),
        "WRITTEN": f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        "ALARMS": _alarms(stages),
        "STAGES": "\n".join(map(_stage, stages)),
    }
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part)
    whole = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    whole.write_text(template, encoding="utf-8")
    whole.replace(target)


def _alarms(stages: Sequence[Stage]) -> str:
    told = [(stage.folder.resolve().name, alarm) for stage in stages for alarm in alarms(stage)]
    if not told:
        return '<p class="calm">Nothing alarming.</p>'
    items = "".join(f"<li><b>{escape(name)}</b> {escape(alarm)}</li>" for name, alarm in told)
    return f'<ul class="alarms" aria-label="Alarms">{items}</ul>'


def _stage(stage: Stage) -> str:
    curves = {name: stage.curve(name) for name in (*WORDS, *stage.losses, *stage.policy, *stage.exams)}
    charts = [chart(f"loss: {name}", [curves[name]], logarithmic=None) for name in stage.losses]
    charts += [chart(POLICY[name], [curves[name]], logarithmic=False) for name in stage.policy]
    charts += [chart(name, [curves[name]], logarithmic=False) for name in stage.exams]
    charts.append(chart("learning rate", [curves["lr"]], logarithmic=False))
    charts.append(chart("gradient norm", [curves["grad_norm"]], logarithmic=None))
    charts.append(chart("load of experts, 1 is even", [curves["busiest"], curves["idlest"]], logarithmic=False))
    charts.append(chart("samples a second", [curves["samples_per_second"]], logarithmic=False))
    return (
        f'<section class="stage"><h2>{escape(stage.folder.resolve().name)}</h2>{_facts(stage)}'
        f'<div class="charts">{"".join(charts)}</div>{_table(stage)}{_samples(stage)}</section>'
    )


def _facts(stage: Stage) -> str:
    done = stage.lines[-1].step if stage.lines else 0
    facts = {"steps": f"{done:,}" if stage.planned is None else f"{done:,} of {stage.planned:,}"}
    if stage.samples_per_step is not None:
        facts["samples a step"] = f"{stage.samples_per_step:,}"
    facts["time"] = in_words(seconds_of(stage.lines))
    if (left := seconds_left(stage)) is not None:
        facts["left"] = in_words(left) if left else "done"
    for name in ("samples_per_second", "gigabytes", *stage.losses, *stage.policy):
        if points := stage.curve(name).points:
            facts[(WORDS | POLICY).get(name, name)] = readable(points[-1][1])
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    bar = f'<progress max="{stage.planned}" value="{done}">{done}</progress>' if stage.planned else ""
    return f"{bar}<dl>{items}</dl>"


def in_words(seconds: float) -> str:
    """The two largest units of a time."""
    whole = round(seconds)
    for unit, small, size, per in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // per} {small}"
    return f"{whole} s"


def _table(stage: Stage) -> str:
    lines = stage.lines[-_ROWS:]
    names = [name for name in (*stage.losses, *stage.exams, *WORDS) if any(name in line.figures for line in lines)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("step", *(WORDS.get(n, n) for n in names)))
    rows = ""
    for line in lines:
        cells = (readable(line.figures[name]) if name in line.figures else "" for name in names)
        rows += f'<tr><th scope="row">{line.step:,}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    return f'<h3>Last figures</h3><div class="wide" tabindex="0"><table><tr>{head}</tr>{rows}</table></div>'


def _samples(stage: Stage) -> str:
    """One card a question, so that a picture is there once; all answers are in it, of which one step's is shown."""
    if not stage.shown:
        return ""
    steps = sorted({shown.step for shown in stage.shown})
    cards: dict[tuple[str, str | None, tuple[str, ...]], list[Shown]] = {}
    for shown in stage.shown:
        cards.setdefault((shown.question, shown.wanted, shown.pictures), []).append(shown)
    options = ""
    for step in steps:
        judged = [shown.wrong for shown in stage.shown if shown.step == step and shown.wanted is not None]
        right = f": {judged.count(False)} of {len(judged)} right" if judged else ""
        options += f'<option value="{step}"{" selected" * (step == steps[-1])}>step {step:,}{right}</option>'
    return (
        f'<h3><label>Samples at <select class="steps">{options}</select></label></h3>'
        f'<div class="samples">{"".join(_card(stage.folder, each, steps[-1]) for each in cards.values())}</div>'
    )


def _card(folder: Path, answers: Sequence[Shown], last: int) -> str:
    first, told = answers[0], ""
    for shown in answers:
        worth = "" if shown.reward is None else f'<i class="reward">{readable(shown.reward)}</i>'
        badge = '<b class="badge">wrong</b>' * shown.wrong + worth
        kind, hidden = ("wrong" if shown.wrong else "right"), " hidden" * (shown.step != last)
        told += f'<p class="answer {kind}" data-step="{shown.step}"{hidden}>{badge}{escape(shown.answer)}</p>'
    wanted = "" if first.wanted is None else f'<p class="wanted"><b>wanted</b> {escape(first.wanted)}</p>'
    hidden = " hidden" * all(shown.step != last for shown in answers)
    pictures = "".join(_picture(folder, name) for name in first.pictures)
    return f'<article{hidden}>{pictures}<p class="question">{escape(first.question)}</p>{told}{wanted}</article>'


def _picture(folder: Path, name: str) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{folder / 'samples.jsonl'}: the picture {name} does not lie in the run's folder")
    kind = _KINDS.get(path.suffix.lower())
    if kind is None or not path.is_file():
        return f'<p class="lost">{escape(name)} is not there, or not a picture.</p>'
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(name)}" src="data:image/{kind};base64,{data}">'
