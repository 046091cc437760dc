"""(seed, index, split) -> pictures of screens: where is this, what is there, what does it say.

Comes in: the screens that capture.py stored. Goes out: `Conversation`; a point is `click(x=0.512, y=0.043)`, in
shares of the picture's width and height. Held-out samples show held-out manuals and pages with another style of icons,
set in held-out fonts, as they are. Questions with words for answers are in screen_questions.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image

from recipes.nano import questions
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.screens import wordings
from recipes.nano.screens.questions import screen_question_sample as screen_question_sample
from recipes.nano.screens.shots import Box, Element, Line, Screen, screens
from recipes.nano.screens.targets import absent_name, as_stored, reference, seen_with_targets, some, targets
from recipes.nano.screens.view import touching, union, varied, with_margin
from recipes.nano.screens.wordings import NOT_THERE as NOT_THERE

LONGEST = 360  # characters of an answer, about 120 tokens
LARGEST = 448 * 280  # pixels of a piece of a screen
WIDEST_PIECE = 640
ABSENT = 1 / 8
MOST_TURNS = 14  # about a screen, whose picture costs as much as forty questions
HELDOUT_GROUPS = {(640, 400): "heldout", (1280, 800): "heldout-large"}
_POINT = re.compile(r"click\(x=(\d\.\d{3}), y=(\d\.\d{3})\)")


@dataclass(frozen=True)
class Target:
    """A held-out question for a point, and the box (in shares of the picture) that it must lie in."""

    image: Image.Image
    question: str
    box: Box
    kind: str  # "text" or "icon"


def point(x: float, y: float) -> str:
    """A point as an answer."""
    return f"click(x={x:.3f}, y={y:.3f})"


def parsed_point(answer: str) -> tuple[float, float] | None:
    """The point of an answer, or None when it is none."""
    match = _POINT.fullmatch(answer)
    return (float(match[1]), float(match[2])) if match else None


def grounding_sample(seed: int, index: int, split: Split, *, pieces: bool = False) -> Conversation:
    """A screen or a piece of one, and up to `MOST_TURNS` elements to point at; one in eight is not there."""
    random = Random(f"grounding{'/piece' * pieces}/{seed}/{split}/{index}")
    view, found = seen_with_targets(random, split, pieces=pieces)
    turns = []
    for element in some(random, found, random.randint(2, MOST_TURNS)):
        wording = _wording(random, wordings.POINT, split)
        it, answer = reference(element), point(*_middle(element.box, view.image.size))
        if random.random() < ABSENT and (name := absent_name(random, view, element.role, split)):
            it, answer = wordings.IT[element.role].format(name=name), NOT_THERE
        turns.append(Turn(wording.format(it=it), answer))
    return Conversation((view.image,), tuple(turns))


def element_sample(seed: int, index: int, split: Split, *, pieces: bool = False) -> Conversation:
    """A screen or a piece of one, and up to `MOST_TURNS` points of it: what is there?"""
    random = Random(f"element{'/piece' * pieces}/{seed}/{split}/{index}")
    view, found = seen_with_targets(random, split, pieces=pieces)
    turns = []
    for element in some(random, found, random.randint(2, MOST_TURNS)):
        x, y = _middle(element.box, view.image.size)
        if split == "train":
            x += random.uniform(-0.3, 0.3) * (element.box[2] - element.box[0]) / view.image.width
            y += random.uniform(-0.3, 0.3) * (element.box[3] - element.box[1]) / view.image.height
        question = _wording(random, wordings.WHAT_IS_AT, split).format(x=f"{x:.3f}", y=f"{y:.3f}")
        turns.append(Turn(question, f"{element.name} icon" if element.role == "icon" else element.name))
    return Conversation((view.image,), tuple(turns))


def line_sample(seed: int, index: int, split: Split) -> Conversation:
    """One line as a browser shows it, and its text."""
    random = Random(f"screen-line/{seed}/{split}/{index}")
    return _lines_asked(random, split, 1)


def paragraph_sample(seed: int, index: int, split: Split) -> Conversation:
    """1 to 8 consecutive lines of one block, and their text."""
    random = Random(f"paragraph/{seed}/{split}/{index}")
    return _lines_asked(random, split, 1 if random.random() < 0.3 else random.randint(2, 8))


def _lines_asked(random: Random, split: Split, count: int) -> Conversation:
    screen, lines = _consecutive(random, split, count)
    image = _piece(random, screen, lines, split)
    return Conversation((image,), (Turn(_wording(random, questions.READ, split), _text(lines)),))


def screen_reading_sample(seed: int, index: int, split: Split) -> Conversation:
    """A piece of a screen with several lines, and all of them from top to bottom and left to right."""
    random = Random(f"screen-reading/{seed}/{split}/{index}")
    shelf = screens(split)
    for _ in range(1000):
        screen = random.choice(shelf)
        lines = _grown(random, screen)
        if len(lines) >= 2:
            image = _piece(random, screen, lines, split)
            answer = _text(in_reading_order(lines))
            return Conversation((image,), (Turn(_wording(random, wordings.READ_SCREEN, split), answer),))
    raise RuntimeError(f"the {split} screens have hardly any text: make them anew")


def heldout_lines(count: int) -> list[tuple[Image.Image, str]]:
    """Crops of one line each from the held-out screens, with a few pixels around, and what they say."""
    random = Random("held-out lines")
    found = [(s, line) for s in screens("heldout") for line in s.lines if len(line.text) >= 4 and _apart(s, [line])]
    chosen = random.sample(found, count)
    return [(_cut(random, screen, [line], 6), line.text) for screen, line in chosen]


def heldout_targets(size: tuple[int, int], count: int) -> list[Target]:
    """Points to find on the held-out screens of one size (640 x 400 or 1280 x 800): half of them texts, half icons."""
    random = Random(f"held-out targets/{size}")
    by_kind: dict[str, list[tuple[Screen, Element]]] = {"text": [], "icon": []}
    for screen in screens(HELDOUT_GROUPS[size]):
        for element in targets(as_stored(screen)):
            by_kind["icon" if element.role == "icon" else "text"].append((screen, element))
    made = []
    for kind, share in (("text", count - count // 2), ("icon", count // 2)):
        for screen, element in random.sample(by_kind[kind], share):
            x0, y0, x1, y1 = element.box
            box = (x0 / size[0], y0 / size[1], x1 / size[0], y1 / size[1])
            made.append(Target(screen.picture(), wordings.POINT[0].format(it=reference(element)), box, kind))
    return made


def in_reading_order(lines: Sequence[Line]) -> list[Line]:
    """Rows from top to bottom, and in a row from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        middle = (line.box[1] + line.box[3]) / 2
        if rows and middle < rows[-1][0].box[3] - 0.25 * (rows[-1][0].box[3] - rows[-1][0].box[1]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _wording(random: Random, wordings: Sequence[str], split: Split) -> str:
    return random.choice(wordings) if split == "train" else wordings[0]


def _middle(box: Box, size: tuple[int, int]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]


def _text(lines: Sequence[Line]) -> str:
    return "\n".join(line.text for line in lines)


def _piece(random: Random, screen: Screen, lines: Sequence[Line], split: Split) -> Image.Image:
    if split == "heldout":
        return _cut(random, screen, lines, 6)
    return varied(random, screen.picture(), _window(random, screen, lines, 10))[0]


def _cut(random: Random, screen: Screen, lines: Sequence[Line], most: int) -> Image.Image:
    left, top, right, bottom = _window(random, screen, lines, most)
    return screen.picture().crop((round(left), round(top), round(right), round(bottom)))


def _window(random: Random, screen: Screen, lines: Sequence[Line], most: int) -> Box:
    others = [line.box for line in screen.lines if line not in lines]
    return with_margin(random, union(line.box for line in lines), others, screen.size, most)


def _apart(screen: Screen, lines: Sequence[Line]) -> bool:
    """Whether nothing else is written in the box of some lines."""
    box = union(line.box for line in lines)
    return not any(touching(line.box, box) for line in screen.lines if line not in lines)


def _consecutive(random: Random, split: Split, count: int) -> tuple[Screen, Sequence[Line]]:
    """Lines of one block, fewer than were wanted when too many screens have no such block."""
    shelf = screens(split)
    for attempt in range(1000):
        screen = random.choice(shelf)
        count = max(1, count - (attempt % 20 == 19))
        runs = [run for run in _runs(screen.group, screen.number) if len(run) >= count]
        for _ in range(3 if runs else 0):
            run = random.choice(runs)
            start = random.randrange(len(run) - count + 1)
            lines = run[start : start + count]
            if len(_text(lines)) <= LONGEST and _apart(screen, lines):
                return screen, lines
    raise RuntimeError(f"the {split} screens have hardly any text: make them anew")


@cache
def _runs(group: str, number: int) -> tuple[tuple[Line, ...], ...]:
    """The lines of each block, in stretches that can be read wholly."""
    runs: list[list[Line]] = []
    last: Line | None = None
    for line in sorted(screens(group)[number].lines, key=lambda line: line.block):
        follows = last is not None and last.block == line.block and line.box[1] >= (last.box[1] + last.box[3]) / 2
        if line.text and follows and last is not None and last.text:
            runs[-1].append(line)
        elif line.text:
            runs.append([line])
        last = line
    return tuple(map(tuple, runs))


def _grown(random: Random, screen: Screen) -> list[Line]:
    """Lines around some line of a screen, with all that their common box touches, as many as may be."""
    readable = [line for line in screen.lines if line.text]
    if not readable:
        return []
    lines: list[Line] = []
    nearest = random.choice(readable)
    wanted = random.uniform(0.2, 1.0) * LARGEST
    while (more := _closed(screen, [*lines, nearest])) is not None:
        box = union(line.box for line in more)
        large = (box[2] - box[0]) * (box[3] - box[1]) > wanted or box[2] - box[0] > WIDEST_PIECE
        if large or len(_text(more)) > LONGEST:
            break
        lines = more
        left = [line for line in screen.lines if line not in lines]
        if not left:
            break
        nearest = min(left, key=lambda line: _distance(line.box, box))
    return lines


def _closed(screen: Screen, lines: Sequence[Line]) -> list[Line] | None:
    """Some lines and all that touch their common box; None when one of these cannot be read."""
    found = list(lines)
    while True:
        box = union(line.box for line in found)
        inside = [line for line in screen.lines if touching(line.box, box)]
        if not all(line.text for line in inside):
            return None
        if len(inside) == len(found):
            return inside
        found = inside


def _distance(one: Box, other: Box) -> float:
    beside = max(one[0] - other[2], other[0] - one[2], 0.0)
    above = max(one[1] - other[3], other[1] - one[3], 0.0)
    return beside + above
