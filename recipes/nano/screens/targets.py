"""What on a view can be asked for without a doubt, and what is surely not there.

Comes in: `View`, and the stored screens for names that other screens have. Goes out: elements and names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from random import Random

from recipes.nano.fonts import Split
from recipes.nano.screens.shots import Element, Line, Screen, screens
from recipes.nano.screens.view import View, piece, whole
from recipes.nano.screens.wordings import IT

SMALLEST, LONGEST_NAME = 7, 40  # pixels, characters


def targets(view: View) -> list[Element]:
    """The elements that are wholly visible and whose name nothing else on the screen has."""
    return _unique(view.lines, view.elements)


def _unique(lines: Sequence[Line], elements: Sequence[Element]) -> list[Element]:
    names = Counter(element.name.lower() for element in elements)
    texts = Counter(line.text.lower() for line in lines)
    return [
        element
        for element in elements
        if element.clear and names[element.name.lower()] == 1 and texts[element.name.lower()] <= 1 and usable(element)
    ]


def usable(element: Element) -> bool:
    """Whether an element is of a size that can be hit and has a name that can be quoted."""
    left, top, right, bottom = element.box
    name = element.name
    return (
        element.role in IT
        and min(right - left, bottom - top) >= SMALLEST
        and 2 <= len(name) <= LONGEST_NAME
        and '"' not in name
        and any(c.isalpha() for c in name)
    )


def seen_with_targets(random: Random, split: Split, *, pieces: bool = False) -> tuple[View, list[Element]]:
    """A view of some screen of a split and at least two targets on it, or of a piece of it and at least one."""
    for _ in range(1000):
        screen = random.choice(_rich(split))
        if pieces:
            view = piece(random, screen, random.choice(_unique(screen.lines, screen.elements)).box)
        else:
            view = whole(random, screen, split)
        if len(found := targets(view)) >= 2 - pieces:
            return view, found
    raise RuntimeError(f"no {split} screen has two things to point at: make the screens anew")


@cache
def _rich(split: Split) -> tuple[Screen, ...]:
    """The screens with targets: pictures of the others would be made in vain."""
    return tuple(screen for screen in screens(split) if len(_unique(screen.lines, screen.elements)) >= 2)


def some(random: Random, found: list[Element], count: int) -> list[Element]:
    """Different elements, of rare kinds as often as of frequent ones."""
    left = list(found)
    chosen: list[Element] = []
    while left and len(chosen) < count:
        role = random.choice(sorted({element.role for element in left}))
        element = random.choice([element for element in left if element.role == role])
        left.remove(element)
        chosen.append(element)
    return chosen


def absent_name(random: Random, view: View, role: str, split: Split) -> str | None:
    """The name of an element of other screens that nothing on this one is called or says."""
    there = "\n".join([element.name for element in view.elements] + [line.text for line in view.lines]).lower()
    words = {word for element in view.elements if element.role == "icon" for word in element.name.lower().split()}
    names = _names(split, role)
    for name in random.sample(names, min(20, len(names))):
        if name.lower() not in there and not (role == "icon" and words & set(name.lower().split())):
            return name
    return None


@cache
def _names(split: Split, role: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for screen in screens(split):
        found |= {e.name: None for e in screen.elements if e.role == role and e.clear and usable(e)}
    return tuple(found)


def reference(element: Element) -> str:
    """How an element is called in a question."""
    return IT[element.role].format(name=element.name)


def as_stored(screen: Screen) -> View:
    """A screen, shown as it is."""
    return View(screen.picture(), screen.lines, screen.elements)
