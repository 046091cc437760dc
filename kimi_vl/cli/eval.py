"""``kimi-vl eval``: ``TASK…`` asks benchmarks, ``list`` names them, ``diff`` compares runs, ``report`` is a page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kimi_vl import __version__
from kimi_vl.cli import options
from kimi_vl.cli.progress import calm_downloads, waiting
from kimi_vl.cli.thought import Thinking

if TYPE_CHECKING:
    from kimi_vl.eval.asking import Asker
    from kimi_vl.eval.figures import Difference, Summary
    from kimi_vl.eval.record import Record, Settings

_EVERY = 5.0  # seconds
_KEY = "KIMI_VL_API_KEY"
_AnyVersion = Annotated[
    bool, typer.Option("--any-version", help="Take data whose files are not those that were published.")
]


class TasksFirst(TyperGroup):
    """Where the first word is no command, all of them go to ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # the type of a context is the library's own
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def run(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK…", help="By name, or as module:NAME.", show_default=False)
    ],
    model: options.Model = "nano",
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="URL", help="Ask there instead, as http://host:8000/v1; --model is its name there."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar=_KEY, help="Of the endpoint.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="In the official format; from the hub if not given."),
    ] = None,
    any_version: _AnyVersion = False,
    way: Annotated[
        str | None, typer.Option("--way", help="official, or another harness by name.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Ask so many, drawn by lot.", show_default=False)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the lots, and of answers that are drawn.")] = 0,
    temperature: options.Temperature = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="As the task has it, if not given.", show_default=False)
    ] = None,
    thinks: options.Thinks = None,
    thinking_budget: options.ThinkingBudget = None,
    together: Annotated[int, typer.Option("--together", min=1, help="Questions at a time.")] = 8,
    threads: options.Threads = None,
    folder: Annotated[
        Path, typer.Option("--run", metavar="FOLDER", help="Keeps all answers; the same command goes on there.")
    ] = Path("eval-runs"),
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Ask benchmarks of a model, and mark the answers."""
    from kimi_vl.eval import naming
    from kimi_vl.eval.figures import summary
    from kimi_vl.eval.record import Settings
    from kimi_vl.eval.run import choose, evaluate, evaluate_peers, folder_name

    thinking = _thinking(model, endpoint, thinks, thinking_budget)
    calm_downloads()
    found = [naming.task_of(name) for name in tasks]
    folders = [naming.data_of(task, data, offline=offline, any_version=any_version) for task in found]
    chosen = [choose(task, where, way=way, limit=limit, seed=seed) for task, where in zip(found, folders, strict=True)]
    asker: Asker | None = None
    summaries = []
    for name, one in zip(tasks, chosen, strict=True):
        settings = Settings(
            task=name,
            way=one.way_name,
            model=model,
            endpoint=endpoint,
            count=len(one.items),
            of=one.of,
            seed=seed,
            temperature=temperature,
            max_new_tokens=one.way.max_new_tokens if max_new_tokens is None else max_new_tokens,
            data=one.data,
            versions={"kimi-vl": __version__},
            thinking=thinking.thinks if thinking.holds else None,
            thinking_budget=thinking.budget,
        )
        if asker is None:
            asker = (
                _endpoint(endpoint, model, api_key, together, temperature, seed, thinking)
                if endpoint
                else _local(model, together, temperature, seed, threads, offline, thinking)
            )
        place = folder / folder_name(one, model)
        records = evaluate(one, asker, place, settings, tell=_teller(one.task.name))
        peers = evaluate_peers(one, folder, settings, tell=_teller(f"{one.task.name}, its peers"))
        for absent in one.task.peers.keys() - peers.keys():
            print(f"{one.task.name}: {absent} is not installed here, and is left out", file=sys.stderr)
        summaries.append((settings, summary(one, records, peers), place))
    if as_json:
        print(json.dumps([{"settings": asdict(s), "summary": asdict(m)} for s, m, _ in summaries], indent=1))
        return
    for settings, told, place in summaries:
        print(_table(settings, told))
        print(f"kept in {place}")


def _thinking(model: str, endpoint: str | None, wished: bool | None, budget: int | None) -> Thinking:
    """Of what is behind an endpoint only what is wished for is known."""
    if endpoint and wished is None:
        wished = budget is not None
    return Thinking(model if not endpoint else "", wished, budget, shown=False)


def _local(
    model: str,
    together: int,
    temperature: float,
    seed: int,
    threads: int | None,
    offline: bool,
    thinking: Thinking,
) -> Asker:
    from kimi_vl.engine.engine import Engine, EngineOptions
    from kimi_vl.engine.prepared import in_four_bits
    from kimi_vl.eval.asking import Local
    from kimi_vl.hub import CONFIG_FILES, PROCESSOR_FILES, WEIGHT_FILES, resolve
    from kimi_vl.processor import KimiVLProcessor

    with waiting(f"opening {model}"):
        where = resolve(model, (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES), offline=offline)
        # Alike to the last bit whatever is asked beside it.
        wishes = EngineOptions(most_running=together, deterministic=True)
        engine = Engine.from_pretrained(in_four_bits(where), threads=threads, options=wishes)
        processor = KimiVLProcessor.from_pretrained(where)
        rules = thinking.rules(processor.tokenizer, where) if thinking.holds else None
        return Local(engine, processor, temperature=temperature, seed=seed, rules=rules)


def _endpoint(
    url: str, model: str, key: str | None, together: int, temperature: float, seed: int, thinking: Thinking
) -> Asker:
    from kimi_vl.eval.asking import Endpoint

    return Endpoint(
        url,
        model,
        key=key,
        together=together,
        temperature=temperature,
        seed=seed,
        thinking_budget=thinking.budget if thinking.thinks else None,
    )


def _teller(name: str) -> Callable[[int, int, float], None]:
    """Tells on stderr how far it is, now and then."""
    began = last = time.monotonic()
    first: int | None = None

    def tell(done: int, count: int, score: float) -> None:
        nonlocal last, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - last < _EVERY and done < count:
            return
        last = now
        left = (now - began) / (done - first) * (count - done)
        print(f"{name}: {done} of {count}, {score:.1%} so far, {left / 60:.0f} minutes left", file=sys.stderr)

    return tell


def _table(settings: Settings, told: Summary) -> str:
    name = settings.model if settings.endpoint is None else f"{settings.model} at {settings.endpoint}"
    sampled = "" if settings.count == settings.of else f" of {settings.of}, seed {settings.seed}"
    lines = [
        f"{settings.task}, the {settings.way} way, {name}: {settings.count} items{sampled}; temperature "
        f"{settings.temperature:g}, at most {settings.max_new_tokens} tokens, "
        f"{'' if settings.thinking is None else f'{settings.thought}, '}{told.seconds:.2f} s to an answer",
        f"{'':30} {'score':>7} {'95 %':>15} {'no faults':>9} {'items':>6}",
    ]
    for one in (told.total, *told.more, *told.peers, *told.groups):
        between = f"{one.low:.1%} to {one.high:.1%}"
        lines.append(f"{one.name[:30]:30} {one.value:7.1%} {between:>15} {one.fixed:9.1%} {one.count:6}")
    counted = {"not read": told.unread, "drawn by lot": told.by_lot, "refused": told.refused, "cut": told.cut}
    lines.append(", ".join(f"{number} {what}" for what, number in counted.items()))
    return "\n".join(lines)


def show_list(
    module: Annotated[
        str | None, typer.Argument(metavar="MODULE", help="One's own, such as recipes.nano.tasks.", show_default=False)
    ] = None,
) -> None:
    """Name all benchmarks, or those of a module, and the ways in which each is asked."""
    from kimi_vl.eval import naming

    for name in naming.names() if module is None else naming.names_in(module):
        task = naming.task_of(name)
        print(f"{name:24} {', '.join(task.ways)}\n{'':24} {task.about}")


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A task's folder of a run.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another's.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Compare two runs of a task item by item."""
    from kimi_vl.eval.figures import difference

    found = difference(_records(before), _records(after))
    if as_json:
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    print(_difference(found))


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A task's folder of a run.", show_default=False)],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")] = Path("report.html"),
    before: Annotated[
        Path | None, typer.Option("--before", metavar="RUN", help="Another to set it against.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="In the official format; from the hub if not given."),
    ] = None,
    any_version: _AnyVersion = False,
    offline: options.Offline = False,
) -> None:
    """Write a page with every item of a run: pictures, answers and verdicts."""
    from kimi_vl.eval import naming
    from kimi_vl.eval.record import settings_of
    from kimi_vl.eval.report import write_report
    from kimi_vl.eval.run import choose, peers_kept

    records = _records(folder)
    settings = settings_of(folder)
    assert settings is not None
    task = naming.task_of(settings.task)
    limit = settings.count if settings.count < settings.of else None
    where = naming.data_of(task, data, offline=offline, any_version=any_version)
    chosen = choose(task, where, way=settings.way, limit=limit, seed=settings.seed)
    peers = peers_kept(chosen, folder.resolve().parents[1])
    write_report(chosen, settings, records, target, peers=peers, before=() if before is None else _records(before))
    print(f"wrote {target}")


def _records(folder: Path) -> Sequence[Record]:
    from kimi_vl.eval.record import records_of, settings_of

    if settings_of(folder) is None:
        raise ValueError(f"{folder} is no run of a task: it has no settings.json")
    return records_of(folder)


def _difference(found: Difference) -> str:
    lines = [
        f"{found.items} items of both: {found.before:.1%} and {found.after:.1%}; {len(found.gained)} better, "
        f"{len(found.lost)} worse; by chance as far apart with p = {found.chance:.3g}",
    ]
    if found.only_before or found.only_after:
        lines.append(f"only in the first {found.only_before}, only in the second {found.only_after}")
    for what, changes in (("better", found.gained), ("worse", found.lost)):
        for one in changes:
            lines.append(f"{what} {one.id}: {one.before.read!r} -> {one.after.read!r}")
    return "\n".join(lines)
