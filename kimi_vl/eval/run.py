"""One task, asked one way of one model: items → questions → answers → verdicts, each kept before the next is asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Generic

from kimi_vl.chat import Message, PicturePart
from kimi_vl.eval import record
from kimi_vl.eval.asking import Answered, Asker, ByItem, Question, Refused, encoded
from kimi_vl.eval.record import Record, Settings
from kimi_vl.eval.scoring.thought import said
from kimi_vl.eval.task import I, Marked, Peer, Task, Verdict, Way

Tell = Callable[[int, int, float], object]
Peers = Mapping[str, Sequence[Record]]


@dataclass(frozen=True)
class Chosen(Generic[I]):
    """Some items of a task, by their numbers in it. ``data`` is the SHA-256 of what they say, wherever they lie."""

    task: Task[I]
    way_name: str
    items: dict[int, I]
    of: int
    data: str

    @property
    def way(self) -> Way[I]:
        return self.task.ways[self.way_name]


def choose(task: Task[I], folder: Path, *, way: str | None, limit: int | None, seed: int) -> Chosen[I]:
    """All items, or as many of them drawn by lot, the same for the same seed; of what belongs together, all.

    Raises: ``ValueError`` for data that is not this benchmark's, and for ways that the task does not know.
    """
    name = way or next(iter(task.ways))
    if name not in task.ways:
        raise ValueError(f"{task.name} is not asked the way {name!r}; known are {', '.join(task.ways)}")
    if limit is not None and limit < 1:
        raise ValueError(f"the limit must be at least 1, not {limit}")
    folder = folder.resolve()
    items = task.load(folder)
    drawn = dict(enumerate(items))
    if limit is not None and limit < len(items):
        drawn = _drawn(task, items, limit, Random(f"{seed}/{task.name}"))
    return Chosen(task, name, drawn, len(items), _sum(drawn.values(), folder))


def _drawn(task: Task[I], items: Sequence[I], limit: int, lots: Random) -> dict[int, I]:
    """Whole clusters, until there are enough items."""
    clusters: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        clusters[task.together(item)].append(number)
    names = list(clusters)
    lots.shuffle(names)
    numbers: list[int] = []
    for name in names:
        if len(numbers) >= limit:
            break
        numbers += clusters[name]
    return {number: items[number] for number in sorted(numbers)}


def _sum(items: Iterable[I], folder: Path) -> str:
    """Files by their names within the folder, for their own sums are in the records."""
    told = [repr(item).replace(str(folder), "") for item in items]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def evaluate(
    chosen: Chosen[I], asker: Asker, folder: Path, settings: Settings, *, tell: Tell | None = None
) -> list[Record]:
    """Asks what is not in the folder yet, and gives back the records of all items in order.

    ``tell`` hears how many are done, of how many, and their mean score so far.

    Raises: ``ValueError`` if the folder is of another run, or the endpoint cannot be used.
    """
    done = {one.number: one for one in record.begin(folder, settings)}
    asked: dict[int, tuple[Message, ...]] = {}
    refused: list[Refused] = []

    def questions() -> Iterator[Question]:
        for number, item in chosen.items.items():
            if number in done:
                continue
            try:
                asked[number] = chosen.way.ask(item)
            except (OSError, ValueError) as error:
                asked[number] = ()
                refused.append(Refused(number, str(error)))
                continue
            yield Question(number, asked[number], settings.max_new_tokens, chosen.way.begun)

    def keep(answer: Answered | Refused) -> None:
        one = _record(chosen, answer, asked.pop(answer.number), settings.seed)
        record.append(stream, one)
        done[answer.number] = one
        if tell is not None:
            tell(len(done), len(chosen.items), sum(each.score for each in done.values()) / len(done))

    with record.appending(folder) as stream:
        for answer in asker.ask(questions()):
            keep(answer)
            while refused:
                keep(refused.pop())
        while refused:
            keep(refused.pop())
    record.put_in_order(folder, list(done.values()))
    return [done[number] for number in sorted(done)]


def evaluate_peers(chosen: Chosen[I], root: Path, settings: Settings, *, tell: Tell | None = None) -> Peers:
    """The same of the task's peers, as far as they are installed, each in a folder of its own."""
    found = {}
    for name, peer in chosen.task.peers.items():
        if (version := peer.version()) is None:
            continue

        def answer(number: int, peer: Peer[I] = peer) -> str:
            return peer.answer(chosen.items[number])

        versions = settings.versions | ({name: version} if version else {})
        theirs = replace(settings, model=name, endpoint=None, temperature=0.0, versions=versions)
        found[name] = evaluate(chosen, ByItem(answer), root / folder_name(chosen, name), theirs, tell=tell)
    return found


def peers_kept(chosen: Chosen[I], root: Path) -> Peers:
    """What :func:`evaluate_peers` left there of these items."""
    kept = {name: record.records_of(root / folder_name(chosen, name)) for name in chosen.task.peers}
    return {name: records for name, records in kept.items() if {one.number for one in records} == set(chosen.items)}


def folder_name(chosen: Chosen[I], model: str) -> Path:
    """Where a run's folder has what a model or a peer said."""
    name = re.sub(r"[^\w.-]+", "-", Path(model).name)
    return Path(name or "model", f"{chosen.task.name}.{chosen.way_name}")


def _record(chosen: Chosen[I], answer: Answered | Refused, messages: Sequence[Message], seed: int) -> Record:
    item = chosen.items[answer.number]
    prompt, pictures = _sums(messages)
    if isinstance(answer, Refused):
        verdict, answer_raw = Verdict(0.0, None), ""
        told: dict[str, Any] = {"finish": "refused", "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
    else:
        answer_raw = answer.text
        lots = Random(f"{seed}/{chosen.task.name}/{item.id}")
        verdict = chosen.way.mark(item, said(answer.text), lots)
        told = {name: value for name, value in asdict(answer).items() if name not in ("number", "text")}
    return Record(
        number=answer.number,
        id=item.id,
        prompt=prompt,
        pictures=pictures,
        raw=answer_raw,
        read=verdict.read,
        score=verdict.score,
        fixed=verdict.without_faults,
        by_lot=verdict.by_lot,
        refused=answer.why if isinstance(answer, Refused) else None,
        **told,
    )


def _sums(messages: Sequence[Message]) -> tuple[str, tuple[str, ...]]:
    """Of the words, with a mark where each picture stands, and of each picture's file."""
    pictures: list[str] = []
    words: list[Any] = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, PicturePart):
                try:
                    pictures.append(hashlib.sha256(encoded(part.source)).hexdigest())
                except OSError:
                    pictures.append("")
                words.append([message.role, None])
            else:
                words.append([message.role, asdict(part)])
    return hashlib.sha256(json.dumps(words).encode()).hexdigest(), tuple(pictures)


def marked(chosen: Chosen[I], records: Sequence[Record]) -> list[Marked[I]]:
    """What totals are made of, from what a folder keeps."""
    return [Marked(chosen.items[one.number], Verdict(one.score, one.read, one.by_lot, one.fixed)) for one in records]
