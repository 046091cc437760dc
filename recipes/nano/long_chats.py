"""(seed, index, split) -> a long chat about one thing after the other, which comes back to how it began.

Comes in: talk, pictures of things, and made-up facts. Goes out: the parts of one conversation, of at most so many
tokens together. Facts and a picture come first, then anything; the last questions are about what came first.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from kimi_vl.chat import DEFAULT_SYSTEM_PROMPT, Message, TextPart
from recipes.nano import chats, scenes, several
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.long_facts import Fact, another
from recipes.nano.long_text import TRAINED, facts_for
from recipes.nano.questions import ABSENT, Asked, ask, phrases
from recipes.nano.samples import messages_of, tokens_of

MOST_FACTS, MOST_RECALLED = 4, 4
# Tokens that the last questions and answers have at most.
FOR_RECALL: Final = 180

TELL: Final = phrases("""Remember this: {sentence} | {sentence} Please remember it. | Keep in mind: {sentence} | Here
    is something to remember: {sentence}""")
REMEMBERED: Final = "I will remember it."
AGAIN: Final = phrases("""Back to the first picture: {question} | Look at the first picture again. {question} | I have
    one more question about the first picture. {question}""")
FIRST: Final = phrases("""What was the first thing that I said? | What did I say first? | With which words did I
    begin? | Repeat my first message.""")
PICTURES: Final = phrases("""How many pictures did I show you? | How many pictures have you seen? | Count the pictures
    that I sent you.""")
NO_PICTURE: Final = "I see no picture."

_Draw = Callable[[int, int, Split], Conversation]
# One picture each, which is told from the others as the first.
_ALONE: Final[tuple[_Draw, ...]] = (
    scenes.emoji_conversation,
    scenes.counting_conversation,
    scenes.comparing_conversation,
    scenes.colour_conversation,
    scenes.side_conversation,
)


def chat_drawn(seed: int, index: int, split: Split, *, window: int) -> tuple[Conversation, ...]:
    """A chat of up to ``TRAINED`` to ``window`` tokens, all lengths equally often."""
    random = Random(f"long chat/{window}/{seed}/{split}/{index}")
    length = random.randint(TRAINED, window)
    shown, kept = _picture(random, split) if random.random() < 0.7 else (None, None)
    facts = facts_for(random, split, random.randint(0 if shown else 1, MOST_FACTS))
    opening = [_told(random, split, fact) for fact in facts] + ([shown] if shown else [])
    random.shuffle(opening)
    parts = [*opening, *_anything(random, split, length - FOR_RECALL - sum(map(_tokens, opening)), bool(shown))]
    recalled = _recalled(random, split, parts, facts, kept)
    return (*parts, Conversation((), tuple(one.turn(random, split) for one in recalled)))


def _picture(random: Random, split: Split) -> tuple[Conversation, Turn]:
    """A picture with questions, and one of them, which half the time is kept for the end."""
    shown = random.choice(_ALONE)(random.getrandbits(31), 0, split)
    *others, last = random.sample(shown.turns, len(shown.turns))
    turns = tuple(others) if others and random.random() < 0.5 else shown.turns
    return Conversation(shown.pictures, turns), last


def _told(random: Random, split: Split, fact: Fact) -> Conversation:
    return Conversation((), (ask(TELL, REMEMBERED, sentence=fact.sentence).turn(random, split),))


def _anything(random: Random, split: Split, room: int, pictured: bool) -> list[Conversation]:
    """Talk and pictures of at most ``room`` tokens. Nobody says that there is no picture where there is one."""
    parts: list[Conversation] = []
    while True:
        draw = random.choice((*_ALONE, several.several_sample)) if random.random() < 0.3 else chats.chat_sample
        part = draw(random.getrandbits(31), 0, split)
        pictured = pictured or bool(part.pictures)
        if pictured and any(turn.answer == NO_PICTURE for turn in part.turns):
            continue
        room -= _tokens(part)
        if room < 0:
            return parts
        parts.append(part)


def _recalled(
    random: Random, split: Split, parts: list[Conversation], facts: list[Fact], kept: Turn | None
) -> list[Asked]:
    """The last questions; the first of them is about a fact or the first picture."""
    pictures = sum(len(part.pictures) for part in parts)
    found: dict[str, Asked] = {}
    for number in range(random.randint(1, MOST_RECALLED)):
        kinds = [*(["fact"] * 4 if facts else ()), *(["picture"] * 2 if kept else ())]
        match random.choice([*kinds, *(["first", "pictures"] if number else ())]):
            case "fact":
                fact = random.choice(facts)
                absent = random.random() < ABSENT
                one = another(random, split, facts, fact.kind).asked_in_vain if absent else fact.asked
            case "picture":
                assert kept is not None
                one = ask(AGAIN, kept.answer, question=kept.question)
            case "first":
                one = ask(FIRST, parts[0].turns[0].question)
            case _:
                one = ask(PICTURES, str(pictures))
        found.setdefault(one.wordings[0], one)
    return list(found.values())


def _tokens(part: Conversation) -> int:
    """What it adds to a conversation."""
    sizes = [picture.size for picture in part.pictures]
    system = tokens_of([Message("system", (TextPart(DEFAULT_SYSTEM_PROMPT),))], ())
    return tokens_of(messages_of([part]), sizes) - system


def every_wording() -> list[str]:
    """All that this says itself."""
    return [*TELL, REMEMBERED, *AGAIN, *FIRST, *PICTURES]
