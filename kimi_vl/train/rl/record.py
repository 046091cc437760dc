"""What a run of RL keeps beside its weights and its log, a line each, cut back to where the run goes on from.

RUN/asked.jsonl          step, kind, level, right, of
RUN/samples.jsonl        step, question, answer, wanted, right, reward, pictures
RUN/samples/STEP-N-M.png the pictures
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from kimi_vl.chat import Message, TextPart, picture_parts
from kimi_vl.train import parallel
from kimi_vl.train.rl.curriculum import Asked, Cell
from kimi_vl.train.watching.log import up_to


@dataclass(frozen=True)
class Given:
    """An answer, and what it was worth."""

    text: str
    right: bool
    reward: float


@dataclass(frozen=True, eq=False)
class Told:
    """A problem, and some of the answers to it."""

    messages: Sequence[Message]
    wanted: str
    given: Sequence[Given]


class Record:
    """Of a run that goes on after ``start`` steps. Every process remembers, the first writes."""

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._asked, self._samples = folder / "asked.jsonl", folder / "samples.jsonl"
        if not parallel.rank():
            up_to(self._asked, start)
            up_to(self._samples, start)
        parallel.wait()
        self.asked = [
            Asked(Cell(line["kind"], line["level"]), line["right"], line["of"])
            for line in map(json.loads, self._asked.read_text(encoding="utf-8").splitlines())
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        parallel.wait()

    def add(self, step: int, asked: Sequence[Asked], told: Sequence[Told]) -> None:
        self.asked += asked
        if parallel.rank():
            return
        lines = (
            {"step": step, "kind": one.cell.name, "level": one.cell.level, "right": one.right, "of": one.of}
            for one in asked
        )
        _append(self._asked, lines)
        _append(self._samples, (line for number, one in enumerate(told) for line in self._lines(step, number, one)))

    def _lines(self, step: int, number: int, told: Told) -> Iterator[dict[str, object]]:
        texts = [part.text for message in told.messages for part in message.parts if isinstance(part, TextPart)]
        pictures = self._pictures(f"{step}-{number}", told.messages)
        for given in told.given:
            yield {
                "step": step,
                "question": " ".join(texts),
                "answer": given.text,
                "wanted": told.wanted,
                "right": given.right,
                "reward": given.reward,
                "pictures": pictures,
            }

    def _pictures(self, name: str, messages: Sequence[Message]) -> list[str]:
        folder = self._samples.with_suffix("")
        folder.mkdir(exist_ok=True)
        names = []
        for place, part in enumerate(picture_parts(messages)):
            if isinstance(part.source, Image.Image):
                path = folder / f"{name}-{place}.png"
                part.source.save(path)
                names.append(f"{folder.name}/{path.name}")
        return names


def _append(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(line)}\n" for line in lines))
