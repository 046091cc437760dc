"""What learning by reward adds to nano-thinking, over seeds, with its signal cut, and by other means at equal compute.

    python benchmarks/reasoning.py --until 2026-11-29T12:00   runs and measures what is missing, until then
    python benchmarks/reasoning.py --table                    what there is

Every variant is `recipes/nano/reasoning/rl.toml` but for a few values, in a folder of its own under
.runs/nano_thinking/variants; it starts from .runs/nano_thinking/own, and is measured on all held-out problems. One that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev

from kimi_vl.eval.intervals import mcnemar, wilson
from recipes.nano.reasoning.measure import Marked, read

ROOT = Path(".runs/nano_thinking")
START = ROOT / "own"
RECIPE = "recipes/nano/reasoning/rl.toml"
SEEDS = (1, 2, 3)
VARIANTS: dict[str, tuple[str, ...]] = {
    **{f"seed {seed}": (f"seed={seed}",) for seed in SEEDS},
    **{f"without the length reward, seed {seed}": (f"seed={seed}", "length=0") for seed in SEEDS},
    **{f"rewards by chance, seed {seed}": (f"seed={seed}", "length=0", "reward='chance'") for seed in SEEDS},
    "GRPO": ("objective='grpo'",),
    "all levels from the start, alike": ("opening=0", "prioritised=false"),
}


def folder_of(name: str) -> Path:
    return ROOT / "variants" / name.replace(",", "").replace(" ", "-")


def answers_of(folder: Path) -> Path:
    return folder / "answers.jsonl"


def work(until: datetime) -> None:
    """The steps of the first variant that is not whole, then its measure, and so on."""
    for name, wishes in VARIANTS.items():
        folder = folder_of(name)
        if not (folder / "model").exists():
            command = [sys.executable, "-m", "kimi_vl.cli", "train", "run", RECIPE]
            for wish in (f"run={folder}", f"start={START}", *wishes):
                command += ["--set", wish]
            _ran(name, command, until)
        if not answers_of(folder).exists():
            _ran(f"{name}: measure", _measuring(folder / "model", answers_of(folder)), until)
    if not answers_of(START).exists():
        _ran("start: measure", _measuring(START / "model", answers_of(START)), until)


def _measuring(model: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "recipes.nano.reasoning.measure", str(model), "--thinking", "--out", str(out)]


def _ran(name: str, command: Sequence[str], until: datetime) -> None:
    """Raises: ``SystemExit`` when the time is over; what was trained by then is kept."""
    left = (until - datetime.now()).total_seconds()
    print(f"{datetime.now():%H:%M} {name}", flush=True)
    process = subprocess.Popen(command)
    try:
        process.wait(max(0.0, left))
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise SystemExit(f"{datetime.now():%H:%M} {name}: the time is over") from None
    if process.returncode:
        raise SystemExit(process.returncode)


def rows() -> Iterator[str]:
    found = {name: read(answers_of(folder_of(name))) for name in VARIANTS if answers_of(folder_of(name)).exists()}
    if not answers_of(START).exists():
        raise ValueError(f"{START} has not been measured yet")
    start = read(answers_of(START))
    yield f"{'':44} {'right':>6} {'95 %':>16} {'to start':>9} {'p':>8} {'tokens':>7}"
    for name, marked in {"start: long chains of thought": start, **found}.items():
        right = [one.right for one in marked]
        low, high = wilson(sum(right), len(right))
        gained = sum(b.right and not a.right for a, b in zip(start, marked, strict=True))
        lost = sum(a.right and not b.right for a, b in zip(start, marked, strict=True))
        yield (
            f"{name:44} {fmean(right):6.1%} {f'{low:.1%} to {high:.1%}':>16} {(gained - lost) / len(right):+9.1%} "
            f"{mcnemar(gained, lost):8.2g} {fmean(one.tokens for one in marked):7.1f}"
        )
    for kind in ("", "without the length reward, ", "rewards by chance, "):
        names = [name for seed in SEEDS if (name := f"{kind}seed {seed}") in found]
        if len(names) > 1:
            yield over_seeds(kind.rstrip(", ") or "learning by reward", [found[name] for name in names])


def over_seeds(name: str, runs: Sequence[Sequence[Marked]]) -> str:
    shares = [fmean(one.right for one in run) for run in runs]
    tokens = fmean(one.tokens for run in runs for one in run)
    return f"{name}: {fmean(shares):.1%} ± {stdev(shares):.1%} over {len(runs)} seeds, {tokens:.1f} tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--until", type=datetime.fromisoformat, help="when to stop, by this machine's clock")
    what.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.until is not None:
        work(args.until)
    print("\n".join(rows()))


if __name__ == "__main__":
    main()
