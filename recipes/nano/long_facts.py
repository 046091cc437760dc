"""Made-up facts, each told in one sentence that nothing else gives away: what is looked for in a long document.

Comes in: a generator and a split. Goes out: `Fact`. Of what facts are about, one in ten is held out by a hash; what is
said of it (numbers, days, made-up words) cannot be known beforehand in any split. Needs no data.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from recipes.nano.fonts import Split
from recipes.nano.questions import CANNOT_TELL, COLOURS, Asked, article, ask, phrases

ON_PAGE: Final = phrases("""On which page is {what}? | Which page tells {what}? | What page do I have to read for
    {what}? | Give me the number of the page with {what}. | Where is {what}: on which page?""")

_THINGS: Final = phrases("""house | boat | box | door | garage | suitcase | cupboard | safe | tent | bicycle | car |
    van | tower | cabin | drawer | barn | shed | chest | truck | locker | office | gate | bag | basket""")
_FIRST_NAMES: Final = phrases("""Ada | Albert | Alice | Anna | Bruno | Carla | Clara | David | Diana | Edgar | Elena |
    Emil | Emma | Felix | Flora | Frank | George | Grace | Hanna | Hugo | Irene | Ivan | Jakob | Julia | Karl | Laura
    | Leo | Lucas | Maria | Martin | Nina | Nora | Olga | Oscar | Paul | Petra | Robert | Rosa | Simon | Sofia |
    Thomas | Vera | Victor | Wanda""")
_LAST_NAMES: Final = phrases("""Adler | Baker | Berg | Brown | Carter | Cole | Dahl | Diaz | Ellis | Fischer | Ford |
    Garcia | Gray | Hill | Holm | Hunt | Jones | Keller | King | Kovac | Lang | Lee | Lopez | Marsh | Meyer | Moore |
    Novak | Olsen | Park | Penn | Reed | Rossi | Sato | Stone | Vogel | Wells | West | Wolf | Wood | Young""")
_TOWNS: Final = phrases("""Paris | Oslo | Rome | Madrid | Vienna | Prague | Dublin | Lisbon | Athens | Berlin | London
    | Cairo | Tokyo | Delhi | Lima | Toronto | Boston | Sydney | Moscow | Geneva""")
_PETS: Final = phrases("""cat | dog | parrot | rabbit | horse | goat | snake | turtle | mouse | pig | duck | sheep |
    hamster | donkey | fish | owl""")
_DAYS: Final = phrases("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday")
KEPT: Final = phrases("keys | coins | books | bottles | pencils | stones | cups | ropes")


@dataclass(frozen=True)
class Fact:
    """A sentence, what one may ask about it, and the answer, which is a part of the sentence."""

    kind: str
    subject: str
    value: str
    sentence: str
    asks: tuple[str, ...]
    what: str

    @property
    def asked(self) -> Asked:
        return Asked(self.asks, self.value)

    @property
    def asked_in_vain(self) -> Asked:
        """For a text that does not have the sentence."""
        return Asked(self.asks, CANNOT_TELL)

    def asked_for_page(self, page: str) -> Asked:
        """On which page it is: ``page`` is its number, or that one cannot tell."""
        return ask(ON_PAGE, page, what=self.what)


@dataclass(frozen=True)
class Kind:
    """How a kind of fact is told and asked. ``guess`` is as good as any other answer that does not look."""

    tells: tuple[str, ...]
    asks: tuple[str, ...]
    what: str
    about: Callable[[Split], tuple[str, ...]]
    value: Callable[[Random], str]
    guess: str


def _is_held(text: str) -> bool:
    """One in ten, by a hash that does not change with the library."""
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def _of(split: Split, every: Sequence[str]) -> tuple[str, ...]:
    return tuple(subject for subject in every if _is_held(subject) == (split == "heldout"))


@cache
def things(split: Split) -> tuple[str, ...]:
    """As in "the blue house"."""
    return _of(split, [f"the {colour} {thing}" for colour in COLOURS for thing in _THINGS])


@cache
def people(split: Split) -> tuple[str, ...]:
    """As in "Ada Brown"."""
    return _of(split, [f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES])


def _one_of(values: Sequence[str]) -> Callable[[Random], str]:
    return lambda random: random.choice(values)


def _made_up_word(random: Random) -> str:
    return "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(3))


KINDS: Final = {
    "code": Kind(
        phrases("""The code of {subject} is {value}. | {Subject} has the code {value}. | Remember that the code of
            {subject} is {value}. | {value} is the code of {subject}. | To open {subject}, enter {value}."""),
        phrases("""What is the code of {subject}? | Which code does {subject} have? | Tell me the code of {subject}. |
            What code opens {subject}?"""),
        "the code of {subject}",
        things,
        lambda random: str(random.randint(1000, 9999)),
        "1234",
    ),
    "password": Kind(
        phrases("""The password of {subject} is "{value}". | {Subject} opens with the word "{value}". | Say "{value}"
            in front of {subject}, it is the password. | "{value}" is the password of {subject}."""),
        phrases("""What is the password of {subject}? | Which password does {subject} have? | Which word opens
            {subject}? | Tell me the password of {subject}."""),
        "the password of {subject}",
        things,
        _made_up_word,
        "banana",
    ),
    "price": Kind(
        phrases("""{Subject} costs {value} euros. | The price of {subject} is {value} euros. | One pays {value} euros
            for {subject}. | For {value} euros you get {subject}."""),
        phrases("""How many euros does {subject} cost? | What is the price of {subject} in euros? | How much is
            {subject} in euros? | How many euros does one pay for {subject}?"""),
        "the price of {subject}",
        things,
        lambda random: str(random.randint(11, 999)),
        "100",
    ),
    "number": Kind(
        phrases("""There are {value} {kept} in {subject}. | {Subject} holds {value} {kept}. | In {subject} one finds
            {value} {kept}. | {value} {kept} lie in {subject}."""),
        phrases("""How many {kept} are in {subject}? | How many {kept} does {subject} hold? | What is the number of
            {kept} in {subject}?"""),
        "the number of {kept} in {subject}",
        things,
        lambda random: str(random.randint(11, 99)),
        "50",
    ),
    "colour": Kind(
        phrases("""The favourite colour of {subject} is {value}. | {Subject} likes {value} more than any other colour.
            | Of all colours {subject} prefers {value}. | {Subject} thinks that {value} is the best colour."""),
        phrases("""What is the favourite colour of {subject}? | Which colour does {subject} like most? | Name the
            favourite colour of {subject}."""),
        "the favourite colour of {subject}",
        people,
        _one_of(list(COLOURS)),
        "red",
    ),
    "town": Kind(
        phrases("""{Subject} lives in {value}. | The home of {subject} is in {value}. | You can visit {subject} in
            {value}. | {Subject} moved to {value} and stayed there."""),
        phrases(
            """Where does {subject} live? | In which town does {subject} live? | What is the home town of {subject}?"""
        ),
        "the home town of {subject}",
        people,
        _one_of(_TOWNS),
        "Paris",
    ),
    "pet": Kind(
        phrases("""The pet of {subject} is {a_value}. | {Subject} has {a_value} at home. | {Subject} keeps {a_value}
            as a pet. | At home {subject} feeds {a_value}."""),
        phrases("""Which animal is the pet of {subject}? | Which pet does {subject} have? | What animal does {subject}
            keep?"""),
        "the pet of {subject}",
        people,
        _one_of(_PETS),
        "cat",
    ),
    "day": Kind(
        phrases("""{Subject} arrives on {value}. | On {value} {subject} will arrive. | The arrival of {subject} is on
            {value}. | We expect {subject} on {value}."""),
        phrases("""On which day does {subject} arrive? | When does {subject} arrive? | Which is the day of arrival of
            {subject}?"""),
        "the day of arrival of {subject}",
        people,
        _one_of(_DAYS),
        "Monday",
    ),
}


def fact(random: Random, kind: str, subject: str, value: str) -> Fact:
    """A fact in any wording."""
    made = KINDS[kind]
    words = {"subject": subject, "value": value, "a_value": article(value), "kept": random.choice(KEPT)}
    words["Subject"] = subject[:1].upper() + subject[1:]
    asks = tuple(wording.format(**words) for wording in made.asks)
    return Fact(kind, subject, value, random.choice(made.tells).format(**words), asks, made.what.format(**words))


def some_facts(random: Random, split: Split, count: int, *, kind: str | None = None) -> list[Fact]:
    """Facts of one kind or of any, about as many subjects, no two with the same value.

    Raises: ``ValueError`` if the kind has not so many values.
    """
    found: dict[str, Fact] = {}
    tries = 0
    while len(found) < count:
        tries += 1
        if tries > 100 * count:
            raise ValueError(f"there are not {count} different facts of kind {kind}")
        chosen = kind or random.choice(list(KINDS))
        subject, value = random.choice(KINDS[chosen].about(split)), KINDS[chosen].value(random)
        if all(subject != one.subject and value != one.value for one in found.values()):
            found[subject] = fact(random, chosen, subject, value)
    return list(found.values())


def another(random: Random, split: Split, facts: Sequence[Fact], kind: str) -> Fact:
    """A fact of a kind about somebody or something of which none of ``facts`` tells."""
    while True:
        (found,) = some_facts(random, split, 1, kind=kind)
        if all(found.subject != one.subject for one in facts):
            return found


def every_wording() -> list[str]:
    """All that is told and asked, and all that it is about."""
    said = [wording for kind in KINDS.values() for wording in (*kind.tells, *kind.asks, kind.what)]
    return [*said, *ON_PAGE, *_THINGS, *_FIRST_NAMES, *_LAST_NAMES, *_TOWNS, *_PETS, *_DAYS, *KEPT]
