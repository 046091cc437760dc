"""NLVR: people's sentences about three boxes of shapes, true or false. (random, split, level) -> `Problem`.

Comes in: the corpus's folder (`nlvr` of its repository, lil-lab/nlvr, CC BY 4.0) as `.data/nlvr`, or where NLVR_DATA
says. Its dev and hidden sentences are for training, its test sentences are held out. Levels are by how many shapes
there are, a fifth of the sentences each.

Source: A Corpus of Natural Language for Visual Reasoning (Suhr et al., ACL 2017).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from random import Random

from PIL import Image

from kimi_vl.train.rewards import Choice
from recipes.nano.fonts import Split
from recipes.nano.reasoning.problem import LEVELS, Problem
from recipes.nano.reasoning.shapes import ASKED, FALSE, TRUE
from recipes.nano.reasoning.wording import worded
from recipes.nano.reasoning.worked import Thought

FOLDER = Path(os.environ.get("NLVR_DATA", ".data/nlvr"))
PARTS: dict[Split, tuple[str, ...]] = {"train": ("dev", "hidden"), "heldout": ("test",)}
_COLOURS = {"#0099ff": "blue", "Black": "black", "Yellow": "yellow"}
_SIZES = {10: "small", 20: "medium", 30: "large"}
_SIDE = 100
_NEAR = 2  # pixels from the edge that a shape touches
_TOWER = (40, 20, "square")  # where its blocks stand, and what they are
_ORDERS = list(permutations(range(3)))  # of the boxes, as pictures are numbered


@dataclass(frozen=True)
class Shape:
    colour: str
    form: str
    left: int
    top: int
    size: int

    def __str__(self) -> str:
        touches = min(self.left, self.top) <= _NEAR or max(self.left, self.top) + self.size >= _SIDE - _NEAR
        return f"{_SIZES.get(self.size, 'medium')} {self.colour} {self.form}{' at the edge' * touches}"


@dataclass(frozen=True)
class Sentence:
    text: str
    label: str
    boxes: tuple[tuple[Shape, ...], ...]
    pictures: tuple[Path, ...]  # of each order of the boxes

    @property
    def shapes(self) -> int:
        return sum(map(len, self.boxes))


def _told(box: Sequence[Shape]) -> str:
    """From the top; of a tower only its colours, else every shape."""
    shapes = sorted(box, key=lambda shape: (shape.top, shape.left))
    if {(shape.left, shape.size, shape.form) for shape in shapes} == {_TOWER}:
        return f"tower of {len(shapes)}, {', '.join(shape.colour for shape in shapes)}"
    return ", ".join(map(str, shapes))


def is_there() -> bool:
    return all((FOLDER / part / f"{part}.json").is_file() for parts in PARTS.values() for part in parts)


@cache
def sentences(split: Split) -> list[Sentence]:
    """Those with fewer shapes first. Raises: ``ValueError`` naming what is missing."""
    found = [sentence for part in PARTS[split] for sentence in _read(FOLDER / part / f"{part}.json")]
    return sorted(found, key=lambda sentence: sentence.shapes)


def _read(path: Path) -> Iterator[Sentence]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: put the folder nlvr of the repository lil-lab/nlvr at {FOLDER}")
    part = path.stem
    pictures = {picture.name: picture for picture in (path.parent / "images").glob("*/*.png")}
    for line in path.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        names = [f"{part}-{told['identifier']}-{number}.png" for number in range(len(_ORDERS))]
        if missing := [name for name in names if name not in pictures]:
            raise ValueError(f"{path.parent / 'images'} has no {missing[0]}: take all of it")
        boxes = tuple(tuple(map(_shape, box)) for box in told["structured_rep"])
        text = told["sentence"].strip()
        text = text[:1].upper() + text[1:] + "." * (not text.endswith("."))
        yield Sentence(text, told["label"].lower(), boxes, tuple(pictures[name] for name in names))


def _shape(told: dict[str, str | int]) -> Shape:
    colour, form = _COLOURS[str(told["color"])], str(told["type"])
    return Shape(colour, form, *(int(told[name]) for name in ("x_loc", "y_loc", "size")))


def nlvr_problem(random: Random, split: Split, level: int, *, slips: float = 0.0) -> Problem:
    """No step of these can be worked out, so that none slips."""
    known = sentences(split)
    sentence = random.choice(known[len(known) * (level - 1) // LEVELS : len(known) * level // LEVELS])
    return problem_of(random, split, level, sentence, random.randrange(len(_ORDERS)))


def problem_of(random: Random, split: Split, level: int, sentence: Sentence, order: int) -> Problem:
    thought = Thought(random)
    for number, box in enumerate(_ORDERS[order], start=1):
        thought.say(f"Box {number}: {_told(sentence.boxes[box])}.")
    answer = TRUE if sentence.label == "true" else FALSE
    thought.say(f"So it is {answer}.")
    with Image.open(sentence.pictures[order]) as picture:
        shown = picture.convert("RGB")
    question = worded(random, ASKED, split).format(said=sentence.text)
    return Problem(shown, question, str(thought), answer, Choice(answer), "nlvr", level)


def heldout() -> Iterator[Problem]:
    """Every sentence of the test part once, the boxes in one of their orders."""
    known = sentences("heldout")
    for number, sentence in enumerate(known):
        random = Random(f"nlvr/{number}")
        yield problem_of(random, "heldout", number * LEVELS // len(known) + 1, sentence, random.randrange(len(_ORDERS)))
