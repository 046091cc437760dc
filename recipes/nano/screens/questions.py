"""(seed, index, split) -> a screen and questions about it with short answers.

Comes in: the screens that capture.py stored. Goes out: `Conversation`. One question in eight is about something that
is not on the screen: its answer is `CANNOT_TELL`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.questions import CANNOT_TELL
from recipes.nano.screens import wordings
from recipes.nano.screens.shots import Element, Screen, screens
from recipes.nano.screens.targets import absent_name, targets
from recipes.nano.screens.view import View, whole

ABSENT = 1 / 8
LONGEST = 48  # characters of an answer
SIDES = ("left of", "right of")
MOST_COUNTED = 12
# What is asked about one element of a role.
_OF_ONE = {
    "field": wordings.HOLDS,
    "checkbox": wordings.CHECKED,
    "switch": wordings.SWITCHED,
    "link": wordings.FOLLOWS,
    "item": wordings.KEYS,
    "button": wordings.BESIDE,
}


@dataclass(frozen=True)
class _Question:
    """What is asked, before a wording is chosen: two of these are the same question in whatever words."""

    wordings: tuple[str, ...]
    answer: str
    name: str = ""
    side: str = ""
    things: str = ""

    def turn(self, random: Random, split: Split) -> Turn:
        wording = random.choice(self.wordings) if split == "train" else self.wordings[0]
        return Turn(wording.format(name=self.name, side=self.side, things=self.things), self.answer)


_Ask = Callable[[Random, View], _Question | None]


def screen_question_sample(seed: int, index: int, split: Split) -> Conversation:
    """A screen and 2 to 6 different questions."""
    random = Random(f"screen-question/{seed}/{split}/{index}")
    for _ in range(1000):
        view = whole(random, random.choice(_varied(split)), split)
        found = _questions(random, view)
        if len(found) >= 2:
            found = [(random.random() < ABSENT and _of_absent(random, view, split)) or question for question in found]
            return Conversation((view.image,), tuple(question.turn(random, split) for question in found))
    raise RuntimeError(f"no {split} screen has two things to ask for: make the screens anew")


@cache
def _varied(split: Split) -> tuple[Screen, ...]:
    """The screens with two kinds of elements: of the others, pictures would mostly be made in vain."""
    return tuple(screen for screen in screens(split) if len({element.role for element in screen.elements}) > 1)


def _questions(random: Random, view: View) -> list[_Question]:
    wanted = random.randint(2, 6)
    kinds = random.sample(_KINDS, len(_KINDS))
    found: dict[_Question, None] = {}
    # Every kind once, then once more for the answers of which a screen has several.
    for ask in (*kinds, *kinds):
        question = ask(random, view)
        if question is not None and len(question.answer) <= LONGEST:
            found[question] = None
        if len(found) == wanted:
            break
    return list(found)


def _of_absent(random: Random, view: View, split: Split) -> _Question | None:
    """A question that the screen does not answer."""
    for role in random.sample(list(_OF_ONE), len(_OF_ONE)):
        if name := absent_name(random, view, role, split):
            return _Question(_OF_ONE[role], CANNOT_TELL, name=name, side=random.choice(SIDES))
    return None


def _beside(random: Random, view: View) -> _Question | None:
    """The button next to a button of the same row."""
    unique = {id(element) for element in targets(view)}
    buttons = [element for element in view.elements if element.role == "button"]
    pairs = []
    for first in buttons:
        row = [b for b in buttons if b is not first and b.box[0] >= first.box[2] and _same_row(first, b)]
        second = min(row, key=lambda button: button.box[0], default=None)
        if second is not None and id(first) in unique and id(second) in unique:
            pairs.append((first, second))
    if not pairs:
        return None
    first, second = random.choice(pairs)
    side, one, other = random.choice(((SIDES[0], second, first), (SIDES[1], first, second)))
    return _Question(wordings.BESIDE, other.name, name=one.name, side=side)


def _same_row(one: Element, other: Element) -> bool:
    shared = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return shared > 0.5 * (one.box[3] - one.box[1])


def _heading(random: Random, view: View) -> _Question | None:
    """The only heading."""
    headings = [element for element in view.elements if element.role == "heading"]
    if len(headings) != 1 or not headings[0].clear:
        return None
    return _Question(wordings.HEADING, headings[0].name)


def _about(role: str, answer: Callable[[Element], str]) -> _Ask:
    """A kind of question about one named element of a role; none where the answer is ""."""

    def ask(random: Random, view: View) -> _Question | None:
        found = [element for element in targets(view) if element.role == role and answer(element)]
        if not found:
            return None
        element = random.choice(found)
        return _Question(_OF_ONE[role], answer(element), name=element.name)

    return ask


def _chosen(role: str, wordings: tuple[str, ...]) -> _Ask:
    """A kind of question for the one element of a role that is on."""

    def ask(random: Random, view: View) -> _Question | None:
        found = [element for element in view.elements if element.role == role]
        chosen = [element for element in found if element.on]
        if len(chosen) != 1 or not all(element.clear for element in found):
            return None
        return _Question(wordings, chosen[0].name)

    return ask


def _follows(random: Random, view: View) -> _Question | None:
    """The next link of the document."""
    unique = {id(element) for element in targets(view)}
    links: Sequence[Element] = [element for element in view.elements if element.role == "link"]
    pairs = [
        (one, other)
        for one, other in pairwise(links)
        if id(one) in unique and other.clear and len(other.name) > 1 and other.box[1] >= one.box[1] - 2
    ]
    if not pairs:
        return None
    one, other = random.choice(pairs)
    return _Question(wordings.FOLLOWS, other.name, name=one.name)


def _count(random: Random, view: View) -> _Question | None:
    """How many there are of some kind of element, none of which may be cut."""
    roles = sorted({element.role for element in view.elements} & set(wordings.COUNTED))
    if not roles:
        return None
    role = random.choice(roles)
    found = [element for element in view.elements if element.role == role]
    if len(found) > MOST_COUNTED or not all(element.clear for element in found):
        return None
    return _Question(wordings.HOW_MANY, str(len(found)), things=wordings.COUNTED[role])


def _yes_no(element: Element) -> str:
    return "yes" if element.on else "no"


_KINDS: tuple[_Ask, ...] = (
    _beside,
    _heading,
    _about("field", lambda element: element.value or wordings.EMPTY),
    _about("checkbox", _yes_no),
    _about("switch", _yes_no),
    _chosen("radio", wordings.CHOSEN),
    _chosen("tab", wordings.CHOSEN_TAB),
    _follows,
    _about("item", lambda element: element.value),
    _count,
)
