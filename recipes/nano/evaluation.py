"""Which names the cross-style test asks for, and the rule that picked them.

Comes in: the albums. Goes out: `EVAL_NAMES` (fixed: results stay about the same 200 names).
"""

from collections import Counter
from random import Random

from recipes.nano.captions import is_thing
from recipes.nano.pictures import HELDOUT_STYLE, TRAINING_STYLES
from recipes.nano.raster import album


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


EVAL_NAMES: tuple[str, ...] = _names("""
alien monster, anger symbol, articulated lorry, artist palette, baby bottle, backpack, balloon, banana,
basketball, battery, bear, bed, beer mug, bellhop bell, bento box, bicycle, bikini, birthday cake, blossom,
blowfish, boar, bookmark tabs, bread, briefcase, bug, cactus, calendar, camel, camping, candy, carousel horse,
cat, chart increasing, cherries, chestnut, chicken, chocolate bar, church, circus tent, clipboard, cloud,
collision, cookie, cooking, cow, credit card, custard, cyclone, dagger, dango, dashing away, derelict house,
desert, dizzy, dog, dolphin, doughnut, dove, dragon, dress, dvd, eggplant, elephant, euro banknote, evergreen
tree, ewe, fallen leaf, file folder, fire, fish, fishing pole, fog, french fries, fried shrimp, frog, fuel pump,
ghost, glasses, goat, goblin, grapes, green apple, guitar, hamburger, hammer, hatching chick, headphone, herb,
hibiscus, high voltage, honey pot, honeybee, hot springs, ice cream, incoming envelope, joystick, keyboard, kiss
mark, kitchen knife, koala, label, lady beetle, lemon, leopard, light bulb, lipstick, locomotive, lollipop,
loudspeaker, melon, metro, microphone, microscope, moai, mobile phone, monkey, monorail, motor boat, mount fuji,
mouse, necktie, new moon, notebook, octopus, oden, office building, optical disk, orange book, ox, panda, party
popper, passenger ship, paw prints, peach, pear, penguin, pig nose, pine decoration, pineapple, pizza, poodle,
poultry leg, printer, purse, radio, railway track, rainbow, rat, reminder ribbon, rice ball, rocket, rose,
rosette, round pushpin, rugby football, sake, satellite antenna, scroll, seedling, shortcake, skull, snake,
snowflake, spade suit, spaghetti, sparkler, sparkles, sparkling heart, spider, spiral shell, sports medal,
spouting whale, steaming bowl, straight ruler, strawberry, sunflower, sushi, sweat droplets, tangerine, taxi,
telescope, television, ticket, tiger, tokyo tower, tomato, train, tram car, tropical drink, tulip, umbrella,
video camera, videocassette, violin, volcano, watermelon, white flower, wine glass, wolf, wrapped gift
""")

# How many names each group gives. Symbols and flags are left out: they would test reading, or geography.
FIRST_QUOTA: dict[str, int] = {
    "animals-nature": 26,
    "food-drink": 24,
    "objects": 20,
    "travel-places": 16,
    "activities": 8,
    "smileys-emotion": 6,
}
# After the first hundred, which stay as they were.
QUOTA: dict[str, int] = {
    "animals-nature": 50,
    "food-drink": 45,
    "objects": 45,
    "travel-places": 34,
    "activities": 15,
    "smileys-emotion": 11,
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
    for quota in (FIRST_QUOTA, QUOTA):
        for name in names:
            words = {word.removesuffix("s") for word in name.split()}
            taken = sum(group_of[other] == group_of[name] for other in chosen)
            if not words & used and taken < quota.get(group_of[name], 0):
                chosen.append(name)
                used |= words
    return tuple(sorted(chosen))
