"""What a run's marks come to: the total that is quoted, its groups, how sure they are, and what was not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kimi_vl.eval.intervals import bootstrap, mcnemar, paired, wilson
from kimi_vl.eval.record import Record
from kimi_vl.eval.run import Chosen, Peers, marked
from kimi_vl.eval.task import I, Marked, mean


@dataclass(frozen=True)
class Figure:
    """From 0 to 1, with the ends of its 95 % interval; ``fixed`` is without the faults of the official rule."""

    name: str
    value: float
    low: float
    high: float
    fixed: float
    count: int


@dataclass(frozen=True)
class Summary:
    """In ``unread`` answers the rule found nothing, and drew ``by_lot`` of them; ``cut`` ones met their limit."""

    total: Figure
    more: tuple[Figure, ...]
    groups: tuple[Figure, ...]
    peers: tuple[Figure, ...]
    unread: int
    by_lot: int
    refused: int
    cut: int
    seconds: float  # of an item, on average


def summary(chosen: Chosen[I], records: Sequence[Record], peers: Peers) -> Summary:
    all_marked = marked(chosen, records)
    way, together = chosen.way, chosen.task.together
    of_groups: dict[str, list[Marked[I]]] = defaultdict(list)
    for one in all_marked:
        for name in chosen.task.groups(one.item):
            of_groups[name].append(one)
    asked = [one for one in records if one.refused is None]
    return Summary(
        total=_figure("all", all_marked, way.total, together),
        more=tuple(_figure(name, all_marked, total, together) for name, total in way.more.items()),
        # What has all items is no group of them.
        groups=tuple(
            _figure(name, of_group, way.total, together)
            for name, of_group in sorted(of_groups.items())
            if len(of_group) < len(all_marked)
        ),
        peers=tuple(_figure(name, marked(chosen, theirs), way.total, together) for name, theirs in peers.items()),
        unread=sum(one.read is None for one in asked),
        by_lot=sum(one.by_lot for one in records),
        refused=len(records) - len(asked),
        cut=sum(one.finish == "length" for one in records),
        seconds=sum(one.seconds for one in asked) / len(asked) if asked else 0.0,
    )


def _figure(
    name: str,
    all_marked: Sequence[Marked[I]],
    total: Callable[[Sequence[Marked[I]]], float],
    together: Callable[[I], str],
) -> Figure:
    """Resampled by what belongs together, where the figure is more than a share of right answers."""
    scores = [one.verdict.score for one in all_marked]
    clusters: dict[str, list[Marked[I]]] = defaultdict(list)
    for one in all_marked:
        clusters[together(one.item)].append(one)
    if total is mean and set(scores) <= {0.0, 1.0} and len(clusters) == len(scores):
        low, high = wilson(round(sum(scores)), len(scores))
    else:
        low, high = bootstrap([*clusters.values()], lambda drawn: total([one for cluster in drawn for one in cluster]))
    fixed = [replace(one, verdict=replace(one.verdict, score=one.verdict.without_faults)) for one in all_marked]
    return Figure(name, total(all_marked), low, high, total(fixed), len(all_marked))


# ---- two runs of the same items ----


@dataclass(frozen=True)
class Change:
    """One item that the runs marked otherwise."""

    id: str
    before: Record
    after: Record


@dataclass(frozen=True)
class Difference:
    """``chance`` is how likely a difference as large is if neither run is better; of items that both have."""

    items: int
    before: float
    after: float
    gained: tuple[Change, ...]
    lost: tuple[Change, ...]
    chance: float
    only_before: int
    only_after: int


def difference(before: Sequence[Record], after: Sequence[Record]) -> Difference:
    """Raises: ``ValueError`` if the runs share no item, or asked the same item otherwise."""
    first, second = ({one.id: one for one in records} for records in (before, after))
    shared = [one for one in first if one in second]
    if not shared:
        raise ValueError("the two runs have no item in common: compare runs of one task")
    if other := [one for one in shared if first[one].pictures != second[one].pictures]:
        raise ValueError(f"item {other[0]} shows other pictures in the second run: compare runs of the same data")
    changes = [Change(one, first[one], second[one]) for one in shared]
    apart = [one.after.score - one.before.score for one in changes]
    gained = tuple(one for one, by in zip(changes, apart, strict=True) if by > 0)
    lost = tuple(one for one, by in zip(changes, apart, strict=True) if by < 0)
    whole = all(score in (0.0, 1.0) for one in changes for score in (one.before.score, one.after.score))
    return Difference(
        items=len(shared),
        before=sum(one.before.score for one in changes) / len(changes),
        after=sum(one.after.score for one in changes) / len(changes),
        gained=gained,
        lost=lost,
        chance=mcnemar(len(gained), len(lost)) if whole else paired(apart),
        only_before=len(first) - len(shared),
        only_after=len(second) - len(shared),
    )
