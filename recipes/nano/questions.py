"""The wordings of all questions about scenes, and the grammar of their words, shared by the sources and the tokenizer.

A held-out evaluation asks the first of each list, the plainest. Knows nothing of pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from recipes.nano.conversation import Turn
from recipes.nano.fonts import Split


def phrases(text: str) -> tuple[str, ...]:
    """What stands between upright strokes."""
    return tuple(" ".join(text.split()).split(" | "))


READ: Final = phrases("""Read the text. | What does the text say? | What is written here? | Transcribe the line. |
    Write down the text in the picture.""")
NAME: Final = phrases("""What is this? | Name the emoji. | What does the picture show? | What do you see? |
    Name the object in the picture. | Describe the picture.""")
IS_IT: Final = phrases("""Is this {a_thing}? | Does the picture show {a_thing}? | Would you call this {a_thing}? |
    Is it {a_thing}?""")
GROUP: Final = phrases("""Which group does this belong to? | What kind of thing is this? | Which group is it in? |
    Under which heading would you file it?""")
TAGS: Final = phrases("""Give some keywords for it. | Which words go with it? | Tag the picture. |
    What would one search for to find it?""")
CLIPART: Final = phrases("""What is this a drawing of? | Give the picture a short caption. |
    What does the drawing show?""")
COUNT: Final = phrases("""How many {things} are there? | How many {things} do you see? | Count the {things}. |
    How many {things} are in the picture? | What is the number of {things}? | How many {things} can you find here?""")
TOTAL: Final = phrases("""How many things are there in all? | How many things do you see altogether? |
    Count everything in the picture. | What is the total number of things? | How many things are in the picture?""")
MORE: Final = phrases("""Are there more {first} or {second}? | Which are there more of, {first} or {second}? |
    Do you see more {first} or more {second}? | {First} or {second}: which are more?""")
FEWER: Final = phrases("""Are there fewer {first} or {second}? | Which are there fewer of, {first} or {second}? |
    {First} or {second}: which are fewer?""")
AS_MANY: Final = phrases("""Are there as many {first} as {second}? | Do you see as many {first} as {second}? |
    Is the number of {first} the same as the number of {second}? | Are {first} and {second} equally many?""")
EXISTS: Final = phrases("""Is there {a_thing}? | Do you see {a_thing}? | Is {a_thing} in the picture? |
    Can you find {a_thing} here? | Does the picture show {a_thing}? | Is {a_thing} to be seen?""")
TRUE: Final = phrases("""{Sentence}. Is this true? | {Sentence}. True? | Is it true that {sentence}? |
    Yes or no: {sentence}. | {Sentence}. Is that right? | Does this fit the picture? {Sentence}. | {Sentence}.""")
LARGEST: Final = phrases("""Which is the {most}? | What is the {most} thing? | Name the {most} thing.""")
LARGER: Final = phrases("""Which is {more}, the {first} or the {second}? |
    What is {more}: the {first} or the {second}? | The {first} or the {second}: which is {more}?""")
PAIR_LARGER: Final = phrases("""Is the {here} {thing} {more} than the {there} one? |
    Of the two {things}, is the {here} one the {more} one? | Compare the two {things}: is the {here} one {more}?""")
COLOUR: Final = phrases("""What colour is the {thing}? | Which colour does the {thing} have? |
    Name the colour of the {thing}. | Tell me the colour of the {thing}. | What is the colour of the {thing}? |
    In which colour is the {thing} drawn?""")
SHAPE: Final = phrases("""What shape is {colour}? | Which shape is {colour}? | Name the {colour} shape. |
    What is the {colour} thing? | Which of the shapes is {colour}? | What do you see in {colour}?""")
SIDE: Final = phrases("""What is {side} the {thing}? | Which thing is {side} the {thing}? |
    Name what is {side} the {thing}. | What do you see {side} the {thing}? | What lies {side} the {thing}? |
    Tell me what is {side} the {thing}.""")
WHERE: Final = phrases("""Is the {first} {near} or {far} the {second}? |
    Where is the {first}: {near} or {far} the {second}? | Does the {first} lie {near} or {far} the {second}? |
    The {first} and the {second}: is the first {near} or {far} the other?""")
IS_SIDE: Final = phrases("""Is the {first} {side} the {second}? | Does the {first} lie {side} the {second}? |
    Do you see the {first} {side} the {second}? | Is it right that the {first} is {side} the {second}?""")
END: Final = phrases("""What is {end}? | What do you see {end}? | Which thing is {end}? | Name the thing {end}.""")
IN_ORDER: Final = phrases("""Name the things {order}. | List everything {order}. | What do you see, {order}? |
    Go through the picture {order}.""")
CANNOT_TELL: Final = "I cannot tell."
EQUAL: Final = "equally many"

SIDES: Final = ("left of", "right of", "above", "below")
COLOURS: Final = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 215, 50),
    "green": (50, 165, 70),
    "blue": (45, 95, 215),
    "purple": (135, 60, 175),
    "pink": (245, 140, 185),
    "brown": (130, 80, 45),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
    "gray": (135, 135, 135),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "diamond", "hexagon", "heart", "cross", "ring", "arrow")
GROUPS: Final = {
    "smileys-emotion": "faces and feelings",
    "people-body": "people and body",
    "animals-nature": "animals and nature",
    "food-drink": "food and drink",
    "travel-places": "travel and places",
    "activities": "activities",
    "objects": "objects",
    "symbols": "symbols",
    "flags": "flags",
}
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_IRREGULAR: Final = dict(
    pair.split(":")
    for pair in phrases("""mouse:mice | sheep:sheep | fish:fish | goose:geese | ox:oxen | leaf:leaves | loaf:loaves |
    knife:knives | wolf:wolves | tooth:teeth | potato:potatoes | tomato:tomatoes | volcano:volcanoes | mango:mangoes |
    shelf:shelves | man:men | woman:women | snowman:snowmen | foot:feet | bison:bison | deer:deer | child:children |
    scarf:scarves | die:dice | moose:moose | jellyfish:jellyfish | blowfish:blowfish | mosquito:mosquitoes""")
)


def plural(name: str) -> str:
    """More than one of something named by a few words: the last word takes the ending."""
    *front, last = name.split(" ")
    if last in _IRREGULAR:
        return " ".join([*front, _IRREGULAR[last]])
    if name.endswith(("ss", "us", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("s"):
        return name
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def article(name: str) -> str:
    """The name with "a" or "an"; names that are plural already go without."""
    if name.endswith("s") and not name.endswith(("ss", "us")):
        return name
    vowel = name.startswith(("a", "e", "i", "o", "u", "hour")) and not name.startswith(("uni", "eu", "one", "uk", "us"))
    return f"{'an' if vowel else 'a'} {name}"


def listed(parts: Sequence[str]) -> str:
    """Words as in "a dog, a cat and a boat"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


# One question in so many is about what is not there.
ABSENT: Final = 1 / 12


def worded(random: Random, wordings: Sequence[str], split: Split) -> str:
    """Any wording in training, the first one held out."""
    return random.choice(wordings) if split == "train" else wordings[0]


@dataclass(frozen=True)
class Asked:
    """One question in all its wordings, and the answer."""

    wordings: tuple[str, ...]
    answer: str

    def turn(self, random: Random, split: Split) -> Turn:
        """The question in one wording."""
        return Turn(worded(random, self.wordings, split), self.answer)


def ask(wordings: Sequence[str], answer: str, **words: str) -> Asked:
    """The wordings with their words filled in; {Sentence} is {sentence} with a capital, and so on."""
    words |= {word.capitalize(): text[:1].upper() + text[1:] for word, text in words.items()}
    return Asked(tuple(wording.format(**words) for wording in wordings), answer)


def every_wording() -> list[str]:
    """All questions, colours, shapes, sides and groups, for the tokenizer."""
    asked = [*READ, *NAME, *IS_IT, *GROUP, *TAGS, *CLIPART, *COUNT, *TOTAL, *MORE, *FEWER, *AS_MANY, *EXISTS, *TRUE]
    asked += [*LARGEST, *LARGER, *PAIR_LARGER, *COLOUR, *SHAPE, *SIDE, *WHERE, *IS_SIDE, *END, *IN_ORDER]
    said = [
        *COLOURS,
        *SHAPES,
        *map(plural, SHAPES),
        *SIDES,
        *NUMBERS,
        *GROUPS.values(),
        "left",
        "right",
        "yes",
        "no",
        CANNOT_TELL,
        EQUAL,
    ]
    return [*asked, *said, *map(str, range(13))]
