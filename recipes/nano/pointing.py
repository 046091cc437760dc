"""(seed, index, split) -> a small picture of things, words or icons: where is this, and what is there?

Comes in: scenes, paragraphs, sheets of icons. Goes out: `Conversation`, with points as screens have them
(screens/sources.py). To find what is named and to say where it lies are the same there as here, and a screen costs as
much as twenty of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

from PIL import Image

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.icon_sheets import sheet
from recipes.nano.paragraphs import words_drawn
from recipes.nano.questions import ABSENT, worded
from recipes.nano.scenes import mixed_scene
from recipes.nano.screens.sources import point
from recipes.nano.screens.wordings import IT, NOT_THERE, POINT, WHAT_IS_AT

MOST_TURNS = 12
REVERSED = 0.25  # of the questions give the point, and ask what is there
WORD = 'the word "{name}"'
ICON = IT["icon"]


def things_sample(seed: int, index: int, split: Split) -> Conversation:
    """Emoji or shapes anywhere in a picture."""
    random = Random(f"pointing at things/{seed}/{split}/{index}")
    scene = mixed_scene(random, split)
    there = _once([(s.called, s.place) for s in scene.seen])
    return _asked(random, split, scene.image, there, "the {name}", scene.absent.one)


def icons_sample(seed: int, index: int, split: Split) -> Conversation:
    """Icons of one style."""
    random = Random(f"pointing at icons/{seed}/{split}/{index}")
    shown = sheet(random, split)
    return _asked(random, split, shown.image, dict(shown.icons), ICON, shown.absent, said="{name} icon")


def words_sample(seed: int, index: int, split: Split) -> Conversation:
    """A paragraph, and words that stand there once."""
    random = Random(f"pointing at words/{seed}/{split}/{index}")
    while True:
        image, words = words_drawn(random, split)
        there = {name: place for name, place in _once(words).items() if name.isalpha() and len(name) > 1}
        # As in paragraphs.py: no word of ours, but one of theirs turned round.
        absent = random.choice(words)[0][::-1].lower()
        if there and absent.isalpha() and absent not in {name.lower() for name, _ in words}:
            return _asked(random, split, image, there, WORD, absent)


def _once(named: list[tuple[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Those whose name no other has, whatever its capitals."""
    names = Counter(name.lower() for name, _ in named)
    return {name: place for name, place in named if names[name.lower()] == 1}


def _asked(
    random: Random,
    split: Split,
    image: Image.Image,
    there: Mapping[str, tuple[float, float]],
    it: str,
    absent: str,
    said: str = "{name}",
) -> Conversation:
    turns = []
    names = random.sample(sorted(there), min(len(there), random.randint(2, MOST_TURNS)))
    for name in names:
        x, y = there[name]
        if random.random() < REVERSED:
            turns.append(
                Turn(worded(random, WHAT_IS_AT, split).format(x=f"{x:.3f}", y=f"{y:.3f}"), said.format(name=name))
            )
        else:
            turns.append(Turn(worded(random, POINT, split).format(it=it.format(name=name)), point(x, y)))
    if not turns or random.random() < ABSENT * len(turns):
        turn = Turn(worded(random, POINT, split).format(it=it.format(name=absent)), NOT_THERE)
        turns.insert(random.randint(0, len(turns)), turn)
    return Conversation((image,), tuple(turns))
