"""(seed, index, split) -> two to four small pictures in one conversation, and questions that tell them by number.

Comes in: things, scenes and lines of text. Goes out: `Conversation`. Three forms: pictures of anything, two pictures
that are alike or differ in one respect, and pictures of different numbers of one thing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from PIL import Image

from recipes.nano.compose import Card, Shape, Thing, compose, deck, some_cards, some_shapes
from recipes.nano.conversation import Conversation
from recipes.nano.fonts import Split
from recipes.nano.lines import line_sample
from recipes.nano.questions import ABSENT, CANNOT_TELL, COLOURS, NUMBERS, Asked, article, ask, plural
from recipes.nano.scenes import alone, in_row, scattered

ORDINALS: Final = ("first", "second", "third", "fourth")
LONGEST_LINE = 18  # characters
CELL = 56

SHOWS = (
    "What does the {nth} picture show?",
    "What is in the {nth} picture?",
    "What do you see in picture {n}?",
    "Describe the {nth} picture.",
    "And the {nth} picture?",
    "Name what the {nth} picture shows.",
)
WHICH = (
    "Which picture shows {what}?",
    "In which picture do you see {what}?",
    "Which of the pictures shows {what}?",
    "Where is {what}: in which picture?",
    "Find the picture of {what}.",
    "Which one is the picture of {what}?",
)
DOES = (
    "Does the {nth} picture show {what}?",
    "Is {what} in the {nth} picture?",
    "Do you see {what} in picture {n}?",
    "Is the {nth} picture one of {what}?",
)
READ = (
    "Read the text in the {nth} picture.",
    "What does the text in the {nth} picture say?",
    "What is written in picture {n}?",
    "Transcribe the {nth} picture.",
)
WITH_TEXT = ("Which picture shows text?", "In which picture is something written?", "Which picture can one read?")
PICTURES = (
    "How many pictures are there?",
    "How many pictures do you see?",
    "How many pictures did I send?",
    "Count the pictures.",
)
SAME = (
    "Are both pictures the same thing?",
    "Do the two pictures show the same thing?",
    "Is it the same thing in both pictures?",
    "Do both pictures show the same?",
)
DIFFERS = (
    "What differs between the two pictures?",
    "What is different in the second picture?",
    "How do the two pictures differ?",
    "What has changed from the first picture to the second?",
    "Find the difference between the pictures.",
)
MOST = (
    "In which picture are the {most} {things}?",
    "Which picture shows the {most} {things}?",
    "Where do you see the {most} {things}?",
    "Which picture has the {most} {things}?",
)
COUNT = (
    "How many {things} are in the {nth} picture?",
    "How many {things} does the {nth} picture show?",
    "Count the {things} in picture {n}.",
)
TOGETHER = ("How many {things} are there in all pictures together?", "How many {things} do all pictures show in all?")


@dataclass(frozen=True)
class Panel:
    """One of the pictures: what it shows, how one asks for it, and its text if it is a line of text."""

    image: Image.Image
    shows: str
    what: str
    text: str = ""


def several_sample(seed: int, index: int, split: Split) -> Conversation:
    """Two to four pictures and two to four questions."""
    random = Random(f"several/{seed}/{split}/{index}")
    return random.choices((_mixed, _pair, _numbers), (50, 25, 25))[0](random, split)


def _conversation(
    random: Random, split: Split, images: Sequence[Image.Image], askers: Sequence[Callable[[Random], Asked | None]]
) -> Conversation:
    wanted, tries = random.randint(2, 4), 0
    found: dict[str, Asked] = {}
    while len(found) < wanted and (tries < 12 * wanted or not found):
        tries += 1
        asked = random.choice(askers)(random)
        if asked is not None:
            found.setdefault(asked.wordings[0], asked)
    return Conversation(tuple(images), tuple(asked.turn(random, split) for asked in found.values()))


def _ordinal(number: int) -> str:
    return f"The {ORDINALS[number]}."


def _pictures(count: int) -> Asked:
    return ask(PICTURES, str(count))


# Pictures of anything -----------------------------------------------------------------------------------


def _mixed(random: Random, split: Split) -> Conversation:
    count = random.choices((2, 3, 4), (40, 35, 25))[0]
    *cards, absent = some_cards(random, split, count + 1)
    shapes = some_shapes(random, count)
    panels = [_panel(random, split, card, shape) for card, shape in zip(cards, shapes, strict=True)]

    def shows(random: Random) -> Asked:
        n = random.randrange(count)
        return ask(SHOWS, panels[n].shows, nth=ORDINALS[n], n=str(n + 1))

    def which(random: Random) -> Asked:
        if random.random() < ABSENT:
            return ask(WHICH, CANNOT_TELL, what=article(absent.name))
        n = random.randrange(count)
        return with_text(random) or shows(random) if panels[n].text else ask(WHICH, _ordinal(n), what=panels[n].what)

    def does(random: Random) -> Asked | None:
        n, other = random.randrange(count), random.choice(panels)
        if random.random() < 0.5:
            other = panels[n]
        answer = "yes" if other is panels[n] else "no"
        return None if other.text else ask(DOES, answer, what=other.what, nth=ORDINALS[n], n=str(n + 1))

    def read(random: Random) -> Asked | None:
        n = random.randrange(count)
        if panels[n].text:
            return ask(READ, panels[n].text, nth=ORDINALS[n], n=str(n + 1))
        return ask(READ, CANNOT_TELL, nth=ORDINALS[n], n=str(n + 1)) if random.random() < ABSENT else None

    def with_text(random: Random) -> Asked | None:
        found = [n for n, panel in enumerate(panels) if panel.text]
        return ask(WITH_TEXT, _ordinal(found[0])) if len(found) == 1 else None

    askers = (shows, shows, shows, which, which, which, does, read, read, with_text)
    return _conversation(random, split, [p.image for p in panels], (*askers, lambda random: _pictures(count)))


def _panel(random: Random, split: Split, card: Card, shape: Shape) -> Panel:
    kind = random.choices(("emoji", "shape", "number", "text"), (45, 18, 17, 20))[0]
    if kind == "text":
        line = line_sample(random.getrandbits(31), 0, split, longest=LONGEST_LINE)
        return Panel(line.image, f'the text "{line.text}"', "", line.text)
    if kind == "emoji":
        image = alone(random, card, random.choice((56, 56, 84)), smallest=0.75)
        return Panel(image, card.name, article(card.name))
    if kind == "shape":
        return Panel(in_row(random, split, [shape], CELL).image, shape.called, article(shape.called))
    thing: Thing = card if random.random() < 0.6 else shape
    number = random.randint(2, 6)
    said = f"{NUMBERS[number]} {plural(thing.called)}"
    return Panel(scattered(random, split, [thing] * number).image, said, said)


# Two pictures -------------------------------------------------------------------------------------------


def _pair(random: Random, split: Split) -> Conversation:
    if random.random() < 0.5:
        return _same_thing(random, split)
    shape, other = some_shapes(random, 2)
    number = random.randint(1, 3)
    differs = random.choice(("colour", "shape", "number", ""))
    changed = Shape(
        other.name if differs == "shape" else shape.name, other.colour if differs == "colour" else shape.colour
    )
    numbers = (number, random.choice([n for n in (1, 2, 3, 4) if n != number]) if differs == "number" else number)
    # Both on the same paper: nothing else is to differ.
    paper = random.getrandbits(63)
    images = []
    for one, number in zip((shape, changed), numbers, strict=True):
        placed = [(one.drawn(random, random.uniform(38, 48)), (CELL * (i + 0.5), CELL / 2)) for i in range(number)]
        avoid = (COLOURS[shape.colour], COLOURS[changed.colour])
        images.append(compose(Random(paper), placed, (CELL * number, CELL), avoid=avoid))

    def count(random: Random) -> Asked:
        n = random.randrange(2)
        things = plural((shape, changed)[n].name)
        return ask(COUNT, str(numbers[n]), things=things, nth=ORDINALS[n], n=str(n + 1))

    def shows(random: Random) -> Asked:
        n = random.randrange(2)
        said = (shape, changed)[n].called
        said = said if numbers[n] == 1 else f"{NUMBERS[numbers[n]]} {plural(said)}"
        return ask(SHOWS, said, nth=ORDINALS[n], n=str(n + 1))

    def difference(random: Random) -> Asked:
        return ask(DIFFERS, f"The {differs}." if differs else "Nothing.")

    return _conversation(random, split, images, (difference, difference, difference, count, shows, shows))


def _same_thing(random: Random, split: Split) -> Conversation:
    """Two drawings of one thing, in training often in two styles, or of two things."""
    first, other = some_cards(random, split, 2)
    same = random.random() < 0.5
    second = random.choice(_by_name(split)[first.name]) if same else other
    images = [alone(random, card, random.choice((56, 56, 84)), smallest=0.75) for card in (first, second)]

    def alike(random: Random) -> Asked:
        return ask(SAME, "yes" if same else "no")

    def shows(random: Random) -> Asked:
        n = random.randrange(2)
        return ask(SHOWS, (first, second)[n].name, nth=ORDINALS[n], n=str(n + 1))

    return _conversation(random, split, images, (alike, alike, shows, lambda random: _pictures(2)))


@cache
def _by_name(split: Split) -> dict[str, list[Card]]:
    found: dict[str, list[Card]] = {}
    for card in deck(split).things:
        found.setdefault(card.name, []).append(card)
    return found


# Numbers ------------------------------------------------------------------------------------------------


def _numbers(random: Random, split: Split) -> Conversation:
    thing: Thing = some_cards(random, split, 1)[0] if random.random() < 0.5 else some_shapes(random, 1)[0]
    numbers = random.sample(range(1, 8), random.choices((2, 3, 4), (40, 40, 20))[0])
    images = [scattered(random, split, [thing] * number).image for number in numbers]
    things = plural(thing.name)

    def most(random: Random) -> Asked:
        word = random.choice(("most", "most", "fewest"))
        extreme = max(numbers) if word == "most" else min(numbers)
        return ask(MOST, _ordinal(numbers.index(extreme)), most=word, things=things)

    def count(random: Random) -> Asked:
        n = random.randrange(len(numbers))
        return ask(COUNT, str(numbers[n]), things=things, nth=ORDINALS[n], n=str(n + 1))

    def together(random: Random) -> Asked | None:
        return ask(TOGETHER, str(sum(numbers)), things=things) if sum(numbers) <= 10 else None

    askers = (most, most, most, count, count, together, lambda random: _pictures(len(numbers)))
    return _conversation(random, split, images, askers)


def every_wording() -> list[str]:
    """For the tokenizer."""
    asked = (*SHOWS, *WHICH, *DOES, *READ, *WITH_TEXT, *PICTURES, *SAME, *DIFFERS, *MOST, *COUNT, *TOGETHER)
    return [*asked, *map(_ordinal, range(4)), "The colour.", "The shape.", "The number.", "Nothing."]
