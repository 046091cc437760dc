"""What was measured, joined over rounds, and the table that sets one beside the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kimi_vl.engine.quiet import QUIET


@dataclass(frozen=True)
class Figure:
    """As ``kimi-vl bench`` has it; ``others`` is what share of the cores other processes used during each value."""

    name: str
    at: str
    unit: str
    values: list[float]
    others: list[float]

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.at


def joined(rounds: Iterable[Figure]) -> dict[tuple[str, str], Figure]:
    """All values of the same figure together, in the order in which figures first came."""
    found: dict[tuple[str, str], Figure] = {}
    for figure in rounds:
        before = found.get(figure.key)
        values = [*(before.values if before else []), *figure.values]
        others = [*(before.others if before else []), *figure.others]
        found[figure.key] = Figure(figure.name, figure.at, figure.unit, values, others)
    return found


def table(contenders: Mapping[str, Sequence[Figure]]) -> str:
    """Medians with the least and most; the first contender's are set in relation to each other's."""
    found = {name: joined(figures) for name, figures in contenders.items()}
    keys = list(dict.fromkeys(key for figures in found.values() for key in figures))
    first, *others = found
    lines = [f"| figure | {' | '.join(found)} | {' | '.join(f'{first} / {other}' for other in others)} |"]
    lines.append("| --- " * (1 + len(found) + len(others)) + "|")
    for key in keys:
        cells = [_cell(figures.get(key)) for figures in found.values()]
        ratios = [_ratio(found[first].get(key), found[other].get(key)) for other in others]
        lines.append(f"| {' '.join(key).strip()} | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines)


def as_json(contenders: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    return {
        name: [{**asdict(f), "median": statistics.median(f.values)} for f in joined(figures).values()]
        for name, figures in contenders.items()
    }


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    scale, unit = (1e-9, "GB") if figure.unit == "bytes" else (1.0, figure.unit)
    values = [value * scale for value in figure.values]
    spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    disturbed = f" others {max(figure.others):.0%}" if max(figure.others, default=0.0) > QUIET else ""
    return f"{statistics.median(values):.2f} {unit}{spread}{disturbed}"


def _ratio(ours: Figure | None, theirs: Figure | None) -> str:
    if ours is None or theirs is None:
        return "–"
    return f"{statistics.median(ours.values) / statistics.median(theirs.values):.2f}"
