"""(seed, index, split) -> a long text with made-up facts among its sentences, and questions about them at its end.

Comes in: the books that fetch.py laid down, and made-up facts. Goes out: `Conversation` without pictures, of at most
so many tokens. Other facts of the same kind stand in the same text, so that the one that is asked for must be found by
what it is about.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, chain, cycle, islice
from random import Random
from typing import Final

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.long_facts import Fact, another, some_facts
from recipes.nano.questions import ABSENT
from recipes.nano.samples import messages_of, tokenizer, tokens_of
from recipes.nano.text import book

TRAINED: Final = 1024
"""Tokens that the stages before learn from: 95 % of the samples of the joint stage have no more."""

MOST_FACTS = 7
# The glosses of WordNet end the training book, one sentence about nothing of the one before.
_FIRST_GLOSS = "that which is perceived or known or inferred to have its own distinct existence"
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


@cache
def prose(split: Split) -> tuple[str, ...]:
    """The paragraphs of the book that follow from each other."""
    paragraphs = book(split)
    ends = (place for place, paragraph in enumerate(paragraphs) if paragraph.startswith(_FIRST_GLOSS))
    return paragraphs[: next(ends, len(paragraphs))]


def text_drawn(seed: int, index: int, split: Split, *, window: int) -> Conversation:
    """Up to seven questions at the end of a text; the whole has ``TRAINED`` to ``window`` tokens, all equally often."""
    random = Random(f"long text/{window}/{seed}/{split}/{index}")
    length = random.randint(TRAINED, window)
    facts = facts_for(random, split, random.randint(1, MOST_FACTS))
    turns = turns_about(random, split, facts)
    return text_asked(random, split, [(random.random(), fact) for fact in facts], turns, length)


def facts_for(random: Random, split: Split, count: int) -> list[Fact]:
    """Half the time all of one kind."""
    kind = some_facts(random, split, 1)[0].kind if random.random() < 0.5 else None
    return some_facts(random, split, count, kind=kind)


def turns_about(random: Random, split: Split, facts: Sequence[Fact]) -> list[Turn]:
    """Questions about some of the facts, and now and then about one that is none of them."""
    chosen = random.sample(facts, random.randint(1, len(facts)))
    asked = {}
    for fact in chosen:
        absent = random.random() < ABSENT
        one = another(random, split, facts, fact.kind).asked_in_vain if absent else fact.asked
        asked[one.wordings[0]] = one
    return [one.turn(random, split) for one in asked.values()]


def text_asked(
    random: Random, split: Split, told: Sequence[tuple[float, Fact]], turns: Sequence[Turn], length: int
) -> Conversation:
    """A text in which each fact is told at its depth, 0 the beginning and 1 the end, and the turns after it."""
    first, *others = turns
    bare = Conversation((), (Turn(f"\n\n{first.question}", first.answer), *others))
    # A sentence that is put into a paragraph may cost a token or two more than by itself.
    facts = sum(_tokens(fact.sentence) + 2 for _, fact in told)
    paragraphs = _consecutive(random, split, length - tokens_of(messages_of([bare]), ()) - facts)
    ends = list(accumulate(map(_tokens, paragraphs)))
    put: dict[int, list[str]] = {}
    for depth, fact in told:
        place = min(bisect(ends, depth * ends[-1]), len(ends) - 1)
        put.setdefault(place, []).append(fact.sentence)
    pieces = [piece for place, text in enumerate(paragraphs) for piece in _with(random, text, put.get(place, ()))]
    text = "\n".join(pieces)
    return Conversation((), (Turn(f"{text}\n\n{first.question}", first.answer), *others))


def sentences(paragraph: str) -> list[str]:
    return _SENTENCE_END.split(paragraph)


def from_anywhere(random: Random, split: Split) -> Iterator[str]:
    """The prose from some place on, and from its beginning after its end."""
    paragraphs = prose(split)
    place = random.randrange(len(paragraphs))
    return chain(islice(paragraphs, place, None), cycle(paragraphs))


def _consecutive(random: Random, split: Split, room: int) -> list[str]:
    """Paragraphs of ``room`` tokens; the last is cut."""
    found: list[str] = []
    for paragraph in from_anywhere(random, split):
        cost = _tokens(paragraph)
        while cost > room and " " in paragraph:
            paragraph = paragraph.rsplit(" ", 1)[0]
            cost = _tokens(paragraph)
        if cost <= room:
            found.append(paragraph)
        room -= cost
        if room < 1:
            break
    return found


def _with(random: Random, paragraph: str, told: Sequence[str]) -> Sequence[str]:
    """The paragraph with what is told put between its sentences, or as paragraphs beside it."""
    pieces = [paragraph]
    for sentence in told:
        if random.random() < 0.3:
            pieces.insert(random.randint(0, len(pieces)), sentence)
        else:
            number = random.randrange(len(pieces))
            parts = sentences(pieces[number])
            parts.insert(random.randint(0, len(parts)), sentence)
            pieces[number] = " ".join(parts)
    return pieces


def _tokens(paragraph: str) -> int:
    """With the end of its last line."""
    return len(tokenizer().encode(f"{paragraph}\n"))
