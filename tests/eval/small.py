"""A benchmark small enough for tests: twelve of MathVision's kind, whose pictures are lines that nano can read."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from kimi_vl.chat import Message
from kimi_vl.eval.scoring import mathvision
from kimi_vl.eval.task import Peer, Task, Verdict, Way, user
from kimi_vl.eval.tasks.mathvision import MATHVISION, Problem, load

COUNT = 12


def write_small(folder: Path) -> Path:
    """In MathVision's own format: six questions with options, and six without."""
    (folder / "data").mkdir(parents=True)
    (folder / "images").mkdir()
    lines = []
    for number in range(COUNT):
        image = Image.new("RGB", (88, 24), "white")
        ImageDraw.Draw(image).text((6, 5), f"{7 * number + 3}", fill="black", font_size=14)
        name = f"images/{number}.png"
        image.save(folder / name)
        options = ["1", str(7 * number + 3), "2", "4", "5"] if number % 2 else []
        answer = "B" if options else str(7 * number + 3)
        lines.append(
            {
                "id": str(number),
                "question": f"Which number is this? Item {number}.\n<image1>",
                "options": options,
                "answer": answer,
                "level": 1 + number % 5,
                "subject": ("counting", "algebra")[number % 2],
                "image": name,
            }
        )
    (folder / "data" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _read(problem: Problem) -> tuple[Message, ...]:
    return (user(problem.picture, "Read the text."),)


def _same(problem: Problem, said: str, lots: Random) -> Verdict:
    read = mathvision.extracted(said)
    wanted = problem.value or problem.answer
    return Verdict(float(read == wanted), read or None)


SMALL: Task[Problem] = replace(
    MATHVISION,
    name="small",
    load=partial(load, count=COUNT),
    ways={"reading": Way(_read, _same, max_new_tokens=16), **MATHVISION.ways},
    source=None,
    published={},
    peers={**MATHVISION.peers, "a program": Peer(lambda problem: "", version=lambda: None)},
)
