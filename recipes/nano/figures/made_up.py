"""A generator -> words of the books, and `View`s of made-up numbers under such words.

Numbers that mean nothing must be read: no chart of them can be answered from what one knows.
"""

from collections.abc import Sequence
from random import Random

from recipes.nano.figures.views import MONTHS, View, tidy
from recipes.nano.fonts import Split
from recipes.nano.text import book


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that every paragraph holds: they would be half of all names.
_COMMON = _words("""
that this with from have will been were when which then than they their there these those what your into only other
some such also each more most must does same used uses using where
""")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Name, unit and the largest value; without a name, a word of the books.
_MEASURES: Sequence[tuple[str, str, float]] = (
    ("Sales", "thousand", 100),
    ("Sales", "dollars", 1000),
    ("Visitors", "", 500),
    ("Price", "dollars", 100),
    ("Price", "euros", 10),
    ("Score", "", 100),
    ("Score", "", 10),
    ("Share", "%", 60),
    ("Temperature", "°C", 35),
    ("Rainfall", "mm", 200),
    ("Weight", "kg", 90),
    ("Height", "cm", 200),
    ("Time", "minutes", 60),
    ("Time", "s", 5),
    ("Speed", "km/h", 130),
    ("Distance", "km", 800),
    ("Energy", "kWh", 400),
    ("Orders", "", 80),
    ("Votes", "", 2000),
    ("Downloads", "million", 20),
    ("", "", 20),
    ("", "", 100),
    ("", "", 1000),
)


def made_up_view(random: Random) -> View:
    """Numbers that mean nothing, under names that stand in the training books."""
    timed = random.random() < 0.45
    count = random.randint(3, 8)
    words = some_words(random, "train", count + 5)
    if timed:
        axis, pool = _times(random)
        count = min(count, len(pool))
        start = random.randrange(len(pool) - count + 1)
        categories = pool[start : start + count]
        others = pool[:start] + pool[start + count :]
    else:
        axis = a_word(random, "train").capitalize()
        pool = words[: count + 2]
        categories, others = pool[:count], pool[count:]
    lines = random.choices((1, 2, 3), (55, 25, 20))[0]
    series = words[-lines:]
    measure, unit, top = random.choice(_MEASURES)
    measure = measure or a_word(random, "train").capitalize()
    top *= random.uniform(0.2, 1.0)
    values = [_walk(random, top, count) if timed else _scatter(random, top, count) for _ in series]
    pair = not timed and lines == 2 and random.random() < 0.3
    view = View(
        title=random.choice((f"{measure} by {axis.lower()}", measure, f"{measure} of {a_word(random, 'train')}")),
        measure=measure,
        unit=unit,
        axis=axis,
        categories=tuple(categories),
        series=tuple(series),
        values=tuple(map(tuple, values)),
        timed=timed,
        parts=not timed and unit != "%",
        pair=pair,
        others=tuple(others),
        source="made up",
    )
    return tidy(random, view)


def a_word(random: Random, split: Split) -> str:
    """A plain word of 4 to 10 letters from the books of a split, in lower case."""
    paragraphs = book(split)
    while True:
        word = random.choice(paragraphs[random.randrange(len(paragraphs))].split()).strip(".,;:()\"'“”!?").lower()
        if 4 <= len(word) <= 10 and word.isascii() and word.isalpha() and word not in _COMMON:
            return word


def some_words(random: Random, split: Split, count: int) -> list[str]:
    """Different words, all capitalised or all not."""
    capital = random.random() < 0.75
    found: dict[str, None] = {}
    while len(found) < count:
        word = a_word(random, split)
        found[word.capitalize() if capital else word] = None
    return list(found)


def _times(random: Random) -> tuple[str, list[str]]:
    match random.randrange(6):
        case 0:
            return "Month", list(MONTHS)
        case 1:
            return "Day", list(DAYS)
        case 2:
            year = random.randint(1990, 2023)
            return "Quarter", [f"Q{quarter} {year + n}" for n in range(3) for quarter in range(1, 5)]
        case 3:
            step = random.choice((2, 5, 10))
            first = random.randint(1800 // step, 1990 // step) * step
            return "Year", [str(first + step * n) for n in range(12)]
        case _:
            first = random.randint(1900, 2015)
            return "Year", [str(first + n) for n in range(12)]


def _walk(random: Random, top: float, count: int) -> list[float]:
    """Numbers that go up or down by and by."""
    now, drift = random.uniform(0.2, 0.8) * top, random.uniform(-0.12, 0.12) * top
    found = []
    for _ in range(count):
        found.append(now)
        now = min(top, max(0.05 * top, now + drift + random.uniform(-0.15, 0.15) * top))
    return found


def _scatter(random: Random, top: float, count: int) -> list[float]:
    low = random.choice((0.05, 0.2, 0.4))
    return [random.uniform(low, 1.0) * top for _ in range(count)]
