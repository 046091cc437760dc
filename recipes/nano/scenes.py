"""(seed, index, split) -> a small picture of emoji, clip art or shapes, questions about it, and the answers.

Comes in: the albums that fetch.py drew. Goes out: `SceneSample` (one question) or `Conversation` (several about one
picture); sides are multiples of 28, since a picture costs its area. "train" draws on nine emoji styles and nine
tenths of the clip-art names; "heldout" on the tenth style and the remaining names, and asks the first wording of
each question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

from recipes.nano import facts, questions
from recipes.nano.compose import (
    WHITE,
    Card,
    Cell,
    Scene,
    Shape,
    Thing,
    apart,
    cells,
    coarsest,
    compose,
    deck,
    drawings,
    is_plain,
    laid,
    some_cards,
    some_shapes,
)
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.evaluation import EVAL_NAMES as EVAL_NAMES
from recipes.nano.facts import Asker, Kind
from recipes.nano.fonts import Split
from recipes.nano.pictures import HELDOUT_STYLE
from recipes.nano.questions import ABSENT, Asked, article, ask, worded
from recipes.nano.raster import album

# By area.
COUNTING_SIZES = ((84, 56), (84, 84), (112, 84), (112, 112), (140, 112), (168, 112), (168, 140), (196, 140), (224, 168))
# Things that are counted fill squares of these sides: a shape is told at 14 pixels, a drawing needs more.
LEAST_CELL, LARGEST_CELL = {Shape: 20, Card: 27}, 44


# An answer has two or three tokens where its picture has forty or more.
MOST_TURNS = 8


@dataclass(frozen=True)
class SceneSample:
    """A picture (RGB), what is asked, and the whole answer."""

    image: Image.Image
    question: str
    answer: str


# One picture, one question ------------------------------------------------------------------------------


def emoji_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One emoji, and its name (in training now and then its group)."""
    random = Random(f"emoji/{seed}/{split}/{index}")
    card, image = _emoji(random, split)
    if split == "train" and random.random() < 0.1 and card.group in questions.GROUPS:
        return SceneSample(image, random.choice(questions.GROUP), questions.GROUPS[card.group])
    return SceneSample(image, worded(random, questions.NAME, split), card.name)


def clipart_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One clip art and its name."""
    random = Random(f"clipart/{seed}/{split}/{index}")
    card = random.choice(drawings(split))
    image = alone(random, card, random.choices((84, 112), (60, 40))[0], smallest=0.8)
    return SceneSample(image, worded(random, questions.CLIPART, split), card.name)


def shape_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One coloured shape: what is it?"""
    random = Random(f"shape/{seed}/{split}/{index}")
    thing = some_shapes(random, 1)[0]
    image = in_row(random, split, [thing], random.choice((56, 84))).image
    return SceneSample(image, worded(random, questions.NAME, split), thing.called)


def counting_sample(seed: int, index: int, split: Split) -> SceneSample:
    """1 to 10 of a thing, often among others: how many?"""
    random = Random(f"counting/{seed}/{split}/{index}")
    scene = counting_scene(random, split)
    main, draw = scene.seen[0], random.random()
    whole, name = Kind(main.name, main.colour), Kind(main.name)
    if draw < ABSENT:
        asked = facts.count(scene.absent, scene.seen)
    elif draw < ABSENT + 0.1 and len(scene.seen) <= 10:
        asked = ask(questions.TOTAL, str(len(scene.seen)))
    else:
        alike = len(name.among(scene.seen)) > len(whole.among(scene.seen))
        asked = facts.count(whole if alike or random.random() < 0.5 else name, scene.seen)
    return _sample(random, split, scene, asked)


def colour_sample(seed: int, index: int, split: Split) -> SceneSample:
    """One or two coloured shapes: which colour has the square, or which shape is red?"""
    random = Random(f"colour/{seed}/{split}/{index}")
    shapes = some_shapes(random, random.choice((1, 2, 2)))
    scene = in_row(random, split, shapes, random.choice((56, 84)) if len(shapes) == 1 else 56)
    thing, absent = shapes[0], Kind()
    if split == "train" and random.random() < ABSENT:
        absent = scene.absent
    if absent.name or (not absent.colour and random.random() < 0.65):
        answer = questions.CANNOT_TELL if absent.name else thing.colour
        asked = ask(questions.COLOUR, answer, thing=absent.name or thing.name)
    else:
        answer = questions.CANNOT_TELL if absent.colour else thing.name
        asked = ask(questions.SHAPE, answer, colour=absent.colour or thing.colour)
    return _sample(random, split, scene, asked)


def side_sample(seed: int, index: int, split: Split) -> SceneSample:
    """Two emoji side by side or one above the other: which is left of the dog, or where is the dog?"""
    random = Random(f"side/{seed}/{split}/{index}")
    scene = in_row(random, split, some_cards(random, split, 2), random.choice((56, 84)))
    askers: tuple[Asker, ...] = (facts.beside, facts.where)
    asked = None
    while asked is None:
        asked = _asked(random, scene, askers)
    return _sample(random, split, scene, asked)


def comparing_sample(seed: int, index: int, split: Split) -> SceneSample:
    """Which are more, which is larger, is it true?"""
    random = Random(f"comparing/{seed}/{split}/{index}")
    asked = None
    while asked is None:
        scene, askers = _comparing(random, split)
        asked = _asked(random, scene, askers)
    return _sample(random, split, scene, asked)


# One picture, several questions -------------------------------------------------------------------------


def emoji_conversation(seed: int, index: int, split: Split) -> Conversation:
    """One emoji: its name, and now and then whether it is such a thing, its group, or words that go with it."""
    random = Random(f"emoji talk/{seed}/{split}/{index}")
    card, image = _emoji(random, split)
    turns = [Turn(worded(random, questions.NAME, split), card.name)]
    if random.random() < 0.2:
        same = is_plain(card) and random.random() < 0.5
        other = card if same else random.choice(deck(split).things)
        if same or apart(card, other):
            asked = ask(questions.IS_IT, "yes" if same else "no", a_thing=article(other.name))
            # Before the name or after it.
            turns.insert(random.randrange(2), asked.turn(random, split))
    if random.random() < 0.2 and card.group in questions.GROUPS:
        turns.append(Turn(worded(random, questions.GROUP, split), questions.GROUPS[card.group]))
    if random.random() < 0.2 and card.tags:
        turns.append(Turn(worded(random, questions.TAGS, split), ", ".join(card.tags[:4])))
    return Conversation((image,), tuple(turns))


def counting_conversation(seed: int, index: int, split: Split) -> Conversation:
    """As `counting_sample`: each kind, all together, and what is not there."""
    random = Random(f"counting talk/{seed}/{split}/{index}")
    askers = (facts.how_many, facts.how_many, facts.how_many, facts.total, facts.exists)
    return _conversation(random, split, counting_scene(random, split), askers)


def listing_conversation(seed: int, index: int, split: Split) -> Conversation:
    """A mixed scene: all that is there, row by row."""
    random = Random(f"listing talk/{seed}/{split}/{index}")
    scene = mixed_scene(random, split)
    return Conversation((scene.image,), (facts.row_by_row(scene.seen).turn(random, split),))


def colour_conversation(seed: int, index: int, split: Split) -> Conversation:
    """One to four shapes: the colour of each and the shape in each colour."""
    random = Random(f"colour talk/{seed}/{split}/{index}")
    scene = in_row(random, split, some_shapes(random, random.randint(1, 4)), 56)
    askers = (facts.colour_of, facts.colour_of, facts.shape_in, facts.exists, facts.how_many)
    return _conversation(random, split, scene, askers)


def comparing_conversation(seed: int, index: int, split: Split) -> Conversation:
    """As `comparing_sample`."""
    random = Random(f"comparing talk/{seed}/{split}/{index}")
    scene, askers = _comparing(random, split)
    return _conversation(random, split, scene, (*askers, *askers, facts.how_many, facts.exists))


def side_conversation(seed: int, index: int, split: Split) -> Conversation:
    """Two to four things in a row, a column or a square: what is where?"""
    random = Random(f"side talk/{seed}/{split}/{index}")
    count = random.choices((2, 3, 4), (40, 35, 25))[0]
    drawn = random.random() < 0.75
    things: Sequence[Thing] = some_cards(random, split, count) if drawn else some_shapes(random, count)
    scene = in_row(random, split, things, 84 if count == 2 and random.random() < 0.3 else 56)
    places = (facts.beside, facts.where, facts.is_beside, facts.at_end)
    return _conversation(random, split, scene, (*places, *places, facts.in_order, facts.exists))


# What the pictures hold ---------------------------------------------------------------------------------


def counting_scene(random: Random, split: Split) -> Scene:
    """1 to 10 of one thing (seen first) among up to 6 of one or two others."""
    count, others = random.randint(1, 10), random.randint(1, 6) if random.random() < 0.5 else 0
    drawn = random.random() < 0.6
    kinds: Sequence[Thing] = some_cards(random, split, 3) if drawn else _kin(random, some_shapes(random, 3))
    rest = kinds[1 : random.randint(2, 3)]
    return scattered(random, split, [kinds[0]] * count + [random.choice(rest) for _ in range(others)])


def mixed_scene(random: Random, split: Split) -> Scene:
    """Up to ten things of up to four kinds (of shapes up to seven), now and then all different."""
    drawn = random.random() < 0.6
    most = random.randint(2, 4 if drawn else 7)
    kinds: Sequence[Thing] = some_cards(random, split, most) if drawn else _kin(random, some_shapes(random, most))
    more = random.choices(kinds, k=random.randint(0, 10 - most)) if random.random() < 0.6 else []
    return scattered(random, split, random.sample([*kinds, *more], most + len(more)))


def scattered(random: Random, split: Split, things: Sequence[Thing], share: tuple[float, float] = (0.7, 0.92)) -> Scene:
    """The things anywhere in a picture that has room for them."""
    least = LEAST_CELL[type(things[0])]
    sizes = [size for size in COUNTING_SIZES if coarsest(size, len(things), LARGEST_CELL) >= least]
    # The smaller of two draws: all sizes come, the cheap ones more often.
    size = sizes[min(random.randrange(len(sizes)), random.randrange(len(sizes)))]
    side = random.randint(least, coarsest(size, len(things), LARGEST_CELL))
    places = random.sample(cells(size, size[0] // side, size[1] // side), len(things))
    return _scene(random, split, things, places, size, share, LARGEST_CELL)


def _comparing(random: Random, split: Split) -> tuple[Scene, Sequence[Asker]]:
    """Two kinds to count, a few things of different sizes, or many shapes to make statements about."""
    kind = random.choices(("numbers", "sizes", "statements"), (35, 30, 35))[0]
    kinds: Sequence[Thing] = some_cards(random, split, 3) if random.random() < 0.5 else some_shapes(random, 3)
    if kind == "numbers":
        first, second = random.randint(1, 6), random.randint(1, 6)
        if random.random() < 0.3:
            second = first
        if isinstance(kinds[0], Shape):
            kinds = _kin(random, [shape for shape in kinds if isinstance(shape, Shape)])
        things = [kinds[0]] * first + [kinds[1]] * second
        return scattered(random, split, things), (facts.more, facts.more, facts.as_many)
    if kind == "sizes":
        things = [kinds[0], kinds[0] if random.random() < 0.5 else kinds[1], *kinds[2 : random.randint(2, 3)]]
        askers = (facts.largest, facts.larger, facts.pair_larger, facts.pair_larger)
        return in_row(random, split, things, 56, share=(0.4, 0.95)), askers
    names = random.sample(questions.SHAPES, random.randint(2, 3))
    colours = random.sample(list(questions.COLOURS), random.randint(2, 3))
    shapes = [Shape(random.choice(names), random.choice(colours)) for _ in range(random.randint(3, 8))]
    return scattered(random, split, shapes, (0.5, 0.95)), (facts.statement,)


def _kin(random: Random, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes, of which the second now and then has the name or the colour of the first."""
    first, second, *rest = shapes
    draw = random.random()
    name = first.name if draw < 0.3 else second.name
    colour = first.colour if 0.3 <= draw < 0.55 else second.colour
    return [first, Shape(name, colour), *rest]


def in_row(
    random: Random, split: Split, things: Sequence[Thing], cell: int, *, share: tuple[float, float] = (0.6, 0.95)
) -> Scene:
    """Things from left to right, from top to bottom, or four in a square."""
    count = len(things)
    columns = 2 if count == 4 and random.random() < 0.6 else random.choice((1, count))
    rows = count // columns
    size = (columns * cell, rows * cell)
    return _scene(random, split, things, cells(size, columns, rows), size, share, cell)


def _scene(
    random: Random,
    split: Split,
    things: Sequence[Thing],
    places: Sequence[Cell],
    size: tuple[int, int],
    share: tuple[float, float],
    largest: float,
) -> Scene:
    image, seen = laid(random, things, places, size, share=share, largest=largest)
    return Scene(image, seen, _absent(random, split, things))


def _absent(random: Random, split: Split, things: Sequence[Thing]) -> Kind:
    """A kind of thing that is not among these, and that nobody could take for one of them."""
    cards = [thing for thing in things if isinstance(thing, Card)]
    while cards:
        other = random.choice(deck(split).things)
        if all(other.group != card.group and apart(other, card) for card in cards):
            return Kind(other.name)
    name = random.choice([name for name in questions.SHAPES if name not in {thing.name for thing in things}])
    colour = random.choice([c for c in questions.COLOURS if c not in {thing.colour for thing in things}])
    return random.choice((Kind(name), Kind("", colour)))


def alone(random: Random, card: Card, side: int, *, smallest: float) -> Image.Image:
    """One thing that fills at least a part of a square."""
    large = random.uniform(smallest, 1.0) * side
    slack = (side - large) / 2
    place = (side / 2 + random.uniform(-slack, slack), side / 2 + random.uniform(-slack, slack))
    return compose(random, [(card.drawn(random, large), place)], (side, side))


def _emoji(random: Random, split: Split) -> tuple[Card, Image.Image]:
    # A random picture, not a random name: what many styles draw is what one meets often.
    card = random.choice(deck(split).flags if random.random() < 0.04 else deck(split).cards)
    return card, alone(random, card, random.choices((56, 84, 112), (35, 45, 20))[0], smallest=0.65)


def _asked(random: Random, scene: Scene, askers: Sequence[Asker]) -> Asked | None:
    """The first question that makes sense here."""
    tries = (random.choice(askers)(random, scene.seen, scene.absent) for _ in range(20))
    return next((asked for asked in tries if asked is not None), None)


def _sample(random: Random, split: Split, scene: Scene, asked: Asked) -> SceneSample:
    turn = asked.turn(random, split)
    return SceneSample(scene.image, turn.question, turn.answer)


def _conversation(random: Random, split: Split, scene: Scene, askers: Sequence[Asker]) -> Conversation:
    """Different questions, up to `MOST_TURNS`, or as many as the picture gives."""
    wanted, tries = random.randint(2, 5 if split == "heldout" else MOST_TURNS), 0
    found: dict[str, Asked] = {}
    while len(found) < wanted and (tries < 12 * wanted or not found):
        tries += 1
        asked = random.choice(askers)(random, scene.seen, scene.absent)
        if asked is not None:
            found.setdefault(asked.wordings[0], asked)
    return Conversation((scene.image,), tuple(asked.turn(random, split) for asked in found.values()))


# The names by which these went before.
_deck, _drawings = deck, drawings


# Names --------------------------------------------------------------------------------------------------


def every_name() -> list[str]:
    """All that a training picture of one thing can be called."""
    shapes = [f"{colour} {shape}" for colour in questions.COLOURS for shape in questions.SHAPES]
    held = deck("train")
    return sorted({card.name for card in (*held.cards, *held.flags, *drawings("train"))} | set(shapes))


def heldout_emoji(name: str, side: int = 84) -> Image.Image:
    """The held-out style's drawing of a name, plainly on white."""
    pages = album(HELDOUT_STYLE)
    if name not in pages.names:
        raise ValueError(f"the held-out style has no {name!r}")
    drawing = pages.picture(pages.names.index(name)).resize((side, side), Image.Resampling.LANCZOS)
    image = Image.new("RGB", (side, side), WHITE)
    image.paste(drawing, (0, 0), drawing)
    return image
