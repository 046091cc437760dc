"""What is asked about a picture. One list a kind, so that the tokenizer and the scenes share the wording."""

from typing import Final

# A held-out evaluation asks the first of each list, the plainest.
READ: Final = (
    "Read the text.",
    "What does the text say?",
    "What is written here?",
    "Transcribe the line.",
    "Write down the text in the picture.",
)
NAME: Final = (
    "What is this?",
    "Name the emoji.",
    "What does the picture show?",
    "What do you see?",
    "Name the object in the picture.",
    "Describe the picture.",
)
GROUP: Final = ("Which group does this belong to?", "What kind of thing is this?")
CLIPART: Final = (
    "What is this a drawing of?",
    "Give the picture a short caption.",
    "What does the drawing show?",
)
COUNT: Final = ("How many {things} are there?", "How many {things} do you see?", "Count the {things}.")
COLOUR: Final = ("What colour is the {thing}?", "Which colour does the {thing} have?")
SHAPE: Final = ("What shape is {colour}?", "Which shape is {colour}?")
SIDE: Final = ("What is {side} the {thing}?", "Which thing is {side} the {thing}?")
WHERE: Final = (
    "Is the {first} left or right of the {second}?",
    "Is the {first} above or below the {second}?",
)

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
SHAPES: Final = (
    "circle",
    "square",
    "triangle",
    "star",
    "diamond",
    "hexagon",
    "heart",
    "cross",
    "ring",
    "arrow",
)
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


_IRREGULAR: Final = {
    "mouse": "mice",
    "sheep": "sheep",
    "fish": "fish",
    "goose": "geese",
    "ox": "oxen",
    "leaf": "leaves",
    "loaf": "loaves",
    "knife": "knives",
    "wolf": "wolves",
    "tooth": "teeth",
    "potato": "potatoes",
    "tomato": "tomatoes",
}


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


def every_wording() -> list[str]:
    """All questions, colours, shapes, sides and groups, for the tokenizer."""
    asked = [*READ, *NAME, *GROUP, *CLIPART, *COUNT, *COLOUR, *SHAPE, *SIDE, *WHERE]
    said = [*COLOURS, *SHAPES, *map(plural, SHAPES), *SIDES, *GROUPS.values(), "left", "right", "yes", "no"]
    return [*asked, *said, *map(str, range(13))]
