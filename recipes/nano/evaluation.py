"""Which names the cross-style test asks for, and the rule that picked them.

Comes in: the albums. Goes out: `EVAL_NAMES` (fixed: results stay about the same 100 names).
"""

from collections import Counter
from random import Random

from recipes.nano.captions import is_thing
from recipes.nano.pictures import HELDOUT_STYLE, TRAINING_STYLES
from recipes.nano.raster import album


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


EVAL_NAMES: tuple[str, ...] = _names("""
anger symbol, artist palette, baby bottle, balloon, battery, bear, beer mug, bellhop bell, bento box,
bikini, blossom, boar, cactus, carousel horse, cat, chart increasing, cherries, chestnut, chocolate bar,
custard, dango, dashing away, derelict house, dove, dvd, eggplant, elephant, euro banknote, evergreen
tree, fish, frog, fuel pump, ghost, glasses, goat, grapes, hamburger, hatching chick, herb, honeybee,
incoming envelope, keyboard, kiss mark, kitchen knife, koala, lady beetle, lemon, leopard, light bulb,
locomotive, lollipop, loudspeaker, metro, microphone, microscope, mobile phone, monkey, mount fuji, mouse,
new moon, notebook, office building, passenger ship, paw prints, pear, pig nose, pine decoration, railway
track, reminder ribbon, rice ball, rocket, rose, rosette, rugby football, sake, satellite antenna, scroll,
shortcake, sparkler, sparkling heart, spouting whale, steaming bowl, straight ruler, strawberry, sushi,
sweat droplets, tangerine, taxi, telescope, television, ticket, tram car, tropical drink, tulip, umbrella,
video camera, volcano, watermelon, wolf, wrapped gift
""")

# How many names each group gives. Symbols and flags are left out: they would test reading, or geography.
QUOTA: dict[str, int] = {
    "animals-nature": 26,
    "food-drink": 24,
    "objects": 20,
    "travel-places": 16,
    "activities": 8,
    "smileys-emotion": 6,
}
STYLES_NEEDED = 7


def choose_eval_names() -> tuple[str, ...]:
    """Plain names that the held-out style and at least seven training styles draw; no word comes twice.

    That no word comes twice keeps "cat" from "cat face": the names differ in the thing, not in a detail.
    """
    drawn_by = Counter(name for style in TRAINING_STYLES for name in set(album(style).names))
    pages = album(HELDOUT_STYLE)
    group_of = dict(zip(pages.names, pages.groups, strict=True))
    names = sorted(name for name in group_of if drawn_by[name] >= STYLES_NEEDED and is_thing(name))
    Random("nano evaluation names").shuffle(names)
    chosen: list[str] = []
    used: set[str] = set()
    for name in names:
        words = {word.removesuffix("s") for word in name.split()}
        taken = sum(group_of[other] == group_of[name] for other in chosen)
        if not words & used and taken < QUOTA.get(group_of[name], 0):
            chosen.append(name)
            used |= words
    return tuple(sorted(chosen))
