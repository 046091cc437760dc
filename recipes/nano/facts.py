"""What lies in a picture -> what can be asked about it, and what is true.

Comes in: `Seen` records. Goes out: `Asked`, one question in all its wordings with its answer. Knows nothing of pixels,
styles or fonts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from recipes.nano.questions import (
    ABSENT,
    AS_MANY,
    CANNOT_TELL,
    COLOUR,
    COLOURS,
    COUNT,
    END,
    EQUAL,
    EXISTS,
    FEWER,
    IN_ORDER,
    IS_SIDE,
    LARGER,
    LARGEST,
    MORE,
    NUMBERS,
    PAIR_LARGER,
    SHAPE,
    SHAPES,
    SIDE,
    SIDES,
    TOTAL,
    TRUE,
    WHERE,
    Asked,
    article,
    ask,
    plural,
)


@dataclass(frozen=True)
class Seen:
    """A thing in a picture: its name, its colour if it is a shape, its row and column, and how large it is.

    ``place`` is its middle, in shares of the picture's width and height.
    """

    name: str
    colour: str
    row: int
    column: int
    side: float
    place: tuple[float, float] = (0.5, 0.5)

    @property
    def called(self) -> str:
        """The name, of a shape with the colour."""
        return f"{self.colour} {self.name}".strip()


@dataclass(frozen=True)
class Kind:
    """Things of one name, one colour, or both; "" stands for any."""

    name: str = ""
    colour: str = ""

    @property
    def one(self) -> str:
        """What one of them is called."""
        return f"{self.colour} {self.name or 'shape'}".strip()

    @property
    def many(self) -> str:
        """What several of them are called."""
        return plural(self.one)

    def among(self, seen: Sequence[Seen]) -> list[Seen]:
        """Those of the things that are of this kind."""
        return [s for s in seen if self.name in ("", s.name) and self.colour in ("", s.colour)]


Asker = Callable[[Random, Sequence[Seen], Kind], Asked | None]
"""Takes what is in the picture, and a kind of thing that is not; gives None where its question makes no sense."""


def kind_of(random: Random, thing: Seen) -> Kind:
    """A kind that the thing is of."""
    if not thing.colour:
        return Kind(thing.name)
    return random.choice((Kind(thing.name), Kind(thing.name, thing.colour), Kind("", thing.colour)))


def count(kind: Kind, seen: Sequence[Seen]) -> Asked:
    """How many there are of one kind."""
    return ask(COUNT, str(len(kind.among(seen))), things=kind.many)


def how_many(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """How many of some kind, up to ten."""
    kind = absent if random.random() < ABSENT else kind_of(random, random.choice(seen))
    return count(kind, seen) if len(kind.among(seen)) <= 10 else None


def total(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """How many things, up to ten."""
    return ask(TOTAL, str(len(seen))) if len(seen) <= 10 else None


def exists(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Is there one: of a kind that is, of one that is not, or of the name of one and the colour of another?"""
    kind = absent if random.random() < 0.35 else kind_of(random, random.choice(seen))
    if kind.name and kind.colour and random.random() < 0.5:
        kind = Kind(kind.name, random.choice(seen).colour)
    return ask(EXISTS, "yes" if kind.among(seen) else "no", a_thing=article(kind.one))


def _two_kinds(random: Random, seen: Sequence[Seen]) -> tuple[Kind, Kind] | None:
    """Two kinds that no thing is both of."""
    first, second = kind_of(random, random.choice(seen)), kind_of(random, random.choice(seen))
    return None if any(s in second.among(seen) for s in first.among(seen)) else (first, second)


def more(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Of two kinds, which are there more of, or fewer? One of them may not be there at all."""
    if (kinds := _two_kinds(random, seen)) is None:
        return None
    first, second = kinds if random.random() > ABSENT else (kinds[0], absent)
    ahead = len(first.among(seen)) - len(second.among(seen))
    wordings = MORE
    if random.random() < 0.3:
        wordings, ahead = FEWER, -ahead
    answer = EQUAL if ahead == 0 else first.many if ahead > 0 else second.many
    return ask(wordings, answer, first=first.many, second=second.many)


def as_many(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Are there as many of one kind as of another (which may not be there at all)?"""
    if (kinds := _two_kinds(random, seen)) is None:
        return None
    first, second = kinds if random.random() > ABSENT else (kinds[0], absent)
    same = len(first.among(seen)) == len(second.among(seen))
    return ask(AS_MANY, "yes" if same else "no", first=first.many, second=second.many)


# By how much a thing must be larger than another before we ask.
_CLEARLY: Final = 1.3


def largest(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Which is the largest, or the smallest?"""
    if len({s.called for s in seen}) < len(seen) or len(seen) < 2:
        return None
    word = random.choice(("largest", "smallest"))
    first, second, *_ = sorted(seen, key=lambda s: s.side, reverse=word == "largest")
    if max(first.side, second.side) < _CLEARLY * min(first.side, second.side):
        return None
    return ask(LARGEST, first.called, most=word)


def larger(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Of two named things, which is larger? Of one that is not there, nobody can tell."""
    if len({s.called for s in seen}) < len(seen) or len(seen) < 2:
        return None
    first, second = random.sample(list(seen), 2)
    word = random.choice(("larger", "smaller"))
    if random.random() < ABSENT:
        return ask(LARGER, CANNOT_TELL, more=word, first=first.called, second=absent.one)
    small, large = sorted((first, second), key=lambda s: s.side)
    if large.side < _CLEARLY * small.side:
        return None
    answer = large if word == "larger" else small
    return ask(LARGER, answer.called, more=word, first=first.called, second=second.called)


def pair_larger(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Of two of a name beside each other: is the left one larger?"""
    name = random.choice(seen).name
    pair = sorted((s for s in seen if s.name == name), key=lambda s: (s.row, s.column))
    if len(pair) != 2 or max(s.side for s in pair) < _CLEARLY * min(s.side for s in pair):
        return None
    here, there = pair
    if here.row != there.row and here.column != there.column:
        return None
    words = ("left", "right") if here.row == there.row else ("upper", "lower")
    if random.random() < 0.5:
        here, there, words = there, here, words[::-1]
    word = random.choice(("larger", "smaller"))
    answer = "yes" if (here.side > there.side) == (word == "larger") else "no"
    return ask(PAIR_LARGER, answer, here=words[0], there=words[1], thing=name, things=plural(name), more=word)


# Colours and places of things that differ in name and colour ---------------------------------------------


def colour_of(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Which colour has the square?"""
    if absent.name and random.random() < 3 * ABSENT:
        return ask(COLOUR, CANNOT_TELL, thing=absent.name)
    thing = random.choice(seen)
    return ask(COLOUR, thing.colour, thing=thing.name)


def shape_in(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Which shape is red?"""
    if absent.colour and random.random() < 3 * ABSENT:
        return ask(SHAPE, CANNOT_TELL, colour=absent.colour)
    thing = random.choice(seen)
    return ask(SHAPE, thing.name, colour=thing.colour)


def _beyond(thing: Seen, side: str, other: Seen) -> bool:
    """Does the thing lie on a side of the other, whatever else lies between?"""
    return {
        "left of": thing.column < other.column,
        "right of": thing.column > other.column,
        "above": thing.row < other.row,
        "below": thing.row > other.row,
    }[side]


def _level(thing: Seen, other: Seen) -> bool:
    return thing.row == other.row or thing.column == other.column


def _some_side(random: Random, seen: Sequence[Seen]) -> str:
    """A side that makes sense here: nothing is above in a picture of one row."""
    wide, high = len({s.column for s in seen}) > 1, len({s.row for s in seen}) > 1
    return random.choice([*(SIDES[:2] if wide else ()), *(SIDES[2:] if high else ())])


def beside(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """What is left of the dog, where just one thing is?"""
    side, thing = _some_side(random, seen), random.choice(seen)
    if random.random() < ABSENT:
        return ask(SIDE, CANNOT_TELL, side=side, thing=absent.one)
    found = [s for s in seen if _level(s, thing) and _beyond(s, side, thing)]
    return ask(SIDE, found[0].called, side=side, thing=thing.called) if len(found) == 1 else None


def where(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Is the dog left or right of the cat?"""
    first, second = random.sample(list(seen), 2)
    if not _level(first, second):
        return None
    near, far = ("left", "right") if first.row == second.row else ("above", "below")
    if random.random() < ABSENT:
        answer, said = CANNOT_TELL, absent.one
    else:
        answer, said = near if _beyond(first, SIDES[0 if near == "left" else 2], second) else far, second.called
    return ask(WHERE, answer, first=first.called, second=said, near=near, far="right of" if far == "right" else far)


def is_beside(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Is the dog left of the cat?"""
    side = _some_side(random, seen)
    first, second = random.sample(list(seen), 2)
    if random.random() < ABSENT:
        return ask(IS_SIDE, "no", first=absent.one, second=second.called, side=side)
    if not _level(first, second):
        return None
    return ask(
        IS_SIDE, "yes" if _beyond(first, side, second) else "no", first=first.called, second=second.called, side=side
    )


def at_end(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """What is on the left, in the middle, at the top left?"""
    columns, rows = max(s.column for s in seen) + 1, max(s.row for s in seen) + 1
    thing = random.choice(seen)
    across = {0: "left", columns - 1: "right"}.get(thing.column)
    down = {0: "top", rows - 1: "bottom"}.get(thing.row)
    if rows > 1 and columns > 1:
        end = f"at the {down} {across}" if down and across else None
    else:
        end = (f"on the {across}" if across else None) if rows == 1 else (f"at the {down}" if down else None)
        if len(seen) == 3 and thing is seen[1]:
            end = "in the middle"
    return ask(END, thing.called, end=end) if end else None


def in_order(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """All things of a row or a column."""
    in_row = len({s.row for s in seen}) == 1
    if not in_row and len({s.column for s in seen}) > 1:
        return None
    answer = ", ".join(s.called for s in sorted(seen, key=lambda s: (s.row, s.column)))
    return ask(IN_ORDER, answer, order="from left to right" if in_row else "from top to bottom")


def row_by_row(seen: Sequence[Seen]) -> Asked:
    """All things, a line for each row that has any."""
    in_order = sorted(seen, key=lambda s: (s.row, s.column))
    rows = [[s.called for s in in_order if s.row == row] for row in sorted({s.row for s in seen})]
    return ask(IN_ORDER, "\n".join(map(", ".join, rows)), order="row by row")


# Sentences about shapes, true or false, in the manner of NLVR --------------------------------------------


def statement(random: Random, seen: Sequence[Seen], absent: Kind) -> Asked | None:
    """Is a sentence true? As often as not."""
    wanted = random.random() < 0.5
    for _ in range(30):
        sentence, true = random.choice(_SENTENCES)(random, seen)
        if true == wanted:
            break
    return ask(TRUE, "yes" if true else "no", sentence=sentence)


def _mixed_kind(random: Random, seen: Sequence[Seen]) -> Kind:
    """A name of one thing and the colour of another, or either alone; now and then one that is nowhere."""
    name, colour = random.choice(seen).name, random.choice(seen).colour
    if random.random() < 0.15:
        name = random.choice(SHAPES)
    if random.random() < 0.15:
        colour = random.choice(list(COLOURS))
    return random.choice((Kind(name, colour), Kind(name, colour), Kind(name), Kind("", colour)))


def _of_place(random: Random, seen: Sequence[Seen]) -> tuple[str, bool]:
    first, second, side = _mixed_kind(random, seen), _mixed_kind(random, seen), _some_side(random, seen)
    true = any(_beyond(a, side, b) for a in first.among(seen) for b in second.among(seen))
    said = f"another {second.one}" if first == second else article(second.one)
    return f"there is {article(first.one)} {side} {said}", true


def _of_number(random: Random, seen: Sequence[Seen]) -> tuple[str, bool]:
    kind = _mixed_kind(random, seen)
    there = len(kind.among(seen))
    number = min(6, max(1, there + random.choice((-1, 0, 0, 1))))
    how, true = random.choice(
        (("exactly", there == number), ("at least", there >= number), ("at most", there <= number))
    )
    verb, things = ("is", kind.one) if number == 1 else ("are", kind.many)
    return f"there {verb} {how} {NUMBERS[number]} {things}", true


def _of_all(random: Random, seen: Sequence[Seen]) -> tuple[str, bool]:
    kind, other = Kind(random.choice(seen).name), random.choice(seen)
    found = kind.among(seen)
    if len(found) < 2:
        return _of_number(random, seen)
    return f"all {kind.many} are {other.colour}", all(s.colour == other.colour for s in found)


def _of_size(random: Random, seen: Sequence[Seen]) -> tuple[str, bool]:
    word = random.choice(("largest", "smallest"))
    first, second, *_ = sorted(seen, key=lambda s: s.side, reverse=word == "largest")
    if max(first.side, second.side) < _CLEARLY * min(first.side, second.side):
        return _of_number(random, seen)
    other = random.choice(seen)
    if random.random() < 0.5:
        return f"the {word} shape is {other.colour}", first.colour == other.colour
    return f"the {word} shape is {article(other.name)}", first.name == other.name


def _of_none(random: Random, seen: Sequence[Seen]) -> tuple[str, bool]:
    kind = _mixed_kind(random, seen)
    return f"there is no {kind.one}", not kind.among(seen)


_SENTENCES: Final = (_of_place, _of_place, _of_place, _of_number, _of_number, _of_all, _of_size, _of_none)
