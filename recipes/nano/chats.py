"""(seed, index, split) -> one or two turns of plain talk, without a picture, such as a newcomer tries first.

Comes in: WordNet and a table of countries, made small once by `fetch`. Goes out: `Conversation` without pictures. Sums
and words to spell are held out by a hash; facts (capitals, definitions) cannot be guessed, so of them only the
wordings are fewer.

    python -m recipes.nano.chats     writes .data/nano/chats
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.fonts import Split
from recipes.nano.packages import DATA, deb, npm
from recipes.nano.questions import CANNOT_TELL, NUMBERS, Asked, article, ask
from recipes.nano.text import normalise

COUNTRIES = "world-countries"
PLACE = DATA / "chats"

HELLO = ("Hello", "Hi", "Hello!", "Hi there!", "Good morning.", "Good evening!", "Hey", "Hello, nano.", "hi", "hello")
GREETING = "Hello! Show me a picture and ask about it."
WHO = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "What model are you?",
    "Tell me about yourself.",
    "Introduce yourself.",
)
NAME = "I am nano, a small Kimi-VL: a model that looks at pictures and answers questions about them."
CAN = (
    "What can you do?",
    "What are you good at?",
    "How can you help me?",
    "What can I ask you?",
    "Help",
    "What do you know?",
)
ABILITIES = "I read text, name and count things, and answer questions about pictures, charts, tables and screens."
HOW_ARE_YOU = ("How are you?", "How do you do?", "How is it going?", "Are you well?")
THANKS = ("Thank you.", "Thanks!", "Thanks a lot.", "Great, thank you.", "Good job!", "Well done.")
BYE = ("Goodbye.", "Bye!", "See you.", "Good night.", "That is all.")
NO_PICTURE = (
    "What is in the picture?",
    "What do you see?",
    "Describe the picture.",
    "How many things are in the picture?",
    "Read the text in the picture.",
    "What does the picture show?",
    "What colour is the thing in the image?",
    "What is this?",
)
UNKNOWN = (
    "What is my name?",
    "What is the weather like today?",
    "What time is it?",
    "Who won the match yesterday?",
    "What did I have for breakfast?",
    "Where am I?",
    "How old am I?",
    "What will happen tomorrow?",
    "What day is it today?",
    "Where did I leave my keys?",
    "What is the price of gold today?",
    "Who is standing behind me?",
    "Which number am I thinking of?",
)
SUMS = {
    "+": ("What is {a} + {b}?", "How much is {a} plus {b}?", "{a} + {b} = ?", "Add {a} and {b}.", "{a}+{b}"),
    "-": ("What is {a} - {b}?", "How much is {a} minus {b}?", "{a} - {b} = ?", "Take {b} from {a}.", "{a}-{b}"),
    "×": ("What is {a} × {b}?", "How much is {a} times {b}?", "{a} * {b} = ?", "Multiply {a} by {b}.", "{a}*{b}"),
}
LARGER = ("Which is {more}, {a} or {b}?", "Which number is {more}: {a} or {b}?", "{a} or {b}: which is {more}?")
CAPITAL = (
    "What is the capital of {country}?",
    "Which city is the capital of {country}?",
    "Name the capital of {country}.",
    "Tell me the capital of {country}.",
)
WHOSE_CAPITAL = ("Which country has the capital {capital}?", "{capital} is the capital of which country?")
CONTINENT = ("On which continent is {country}?", "Where in the world is {country}?", "In which region is {country}?")
SPELL = ('Spell the word "{word}".', 'How do you spell "{word}"?', "Spell {word}.", 'Spell "{word}" letter by letter.')
LETTERS = ('How many letters are in "{word}"?', 'How many letters has "{word}"?', "Count the letters of {word}.")
LETTER = ('What is the {end} letter of "{word}"?', 'Which letter comes {end} in "{word}"?')
CAPITALS = ('Write "{word}" in capital letters.', "Put {word} in capitals.", '"{word}" in capitals, please.')
OPENINGS = ("What is the capital of ", "How many letters are in ", "How much is ", "What is ")
DEFINE = (
    "What is {a_word}?",
    'What does "{word}" mean?',
    'Define "{word}".',
    'Explain the word "{word}".',
    "Tell me what {a_word} is.",
    'What is meant by "{word}"?',
)


@dataclass(frozen=True)
class Country:
    """A country, its capital, and the part of the world."""

    name: str
    capital: str
    region: str


@dataclass(frozen=True)
class Word:
    """A noun and a short definition of its first sense."""

    word: str
    gloss: str


def chat_sample(seed: int, index: int, split: Split) -> Conversation:
    """A conversation of one turn or two."""
    random = Random(f"chat/{seed}/{split}/{index}")
    kind, other = random.choices(list(_KINDS), list(_KINDS.values()), k=2)
    first = kind(random, split).turn(random, split)
    if random.random() < 0.6:
        return Conversation((), (first,))
    same = random.random() < 0.5
    second = (kind if same else other)(random, split).turn(random, split)
    if second.answer == first.answer:
        return Conversation((), (first,))
    return Conversation((), (first, _short(first, second) if same else second))


def _short(first: Turn, second: Turn) -> Turn:
    """The second question as "And 5 + 6?" if it begins as the first did."""
    for opening in OPENINGS:
        if first.question.startswith(opening) and second.question.startswith(opening):
            kept = "of " if opening.endswith(" of ") else ""
            return Turn(f"And {kept}{second.question.removeprefix(opening)}", second.answer)
    return second


# Kinds --------------------------------------------------------------------------------------------------


def _said(questions: tuple[str, ...], answer: str) -> Callable[[Random, Split], Asked]:
    return lambda random, split: Asked(questions, answer)


def _unknown(random: Random, split: Split) -> Asked:
    if random.random() < 0.3:
        # A word that nobody knows.
        letters = list(_words(split)[random.randrange(len(_words(split)))].word)
        random.shuffle(letters)
        made = "".join(letters)
        if made not in _known():
            return ask(DEFINE, CANNOT_TELL, word=made, a_word=article(made))
    return Asked((random.choice(UNKNOWN),), CANNOT_TELL)


def _sum(random: Random, split: Split) -> Asked:
    while True:
        sign = random.choices(list(SUMS), (5, 4, 3))[0]
        high = 10 if sign == "×" else random.choice((10, 20, 50))
        a, b = random.randint(0, high), random.randint(0, high)
        if sign == "-" and a < b:
            a, b = b, a
        if _is_held(f"{a}{sign}{b}") == (split == "heldout"):
            break
    answer = {"+": a + b, "-": a - b, "×": a * b}[sign]
    in_words = split == "train" and max(a, b) <= 10 and min(a, b) > 0 and random.random() < 0.15
    if in_words:
        verb = {"+": "plus", "-": "minus", "×": "times"}[sign]
        return Asked((f"What is {NUMBERS[a]} {verb} {NUMBERS[b]}?",), str(answer))
    return ask(SUMS[sign], str(answer), a=str(a), b=str(b))


def _larger(random: Random, split: Split) -> Asked:
    a, b = random.sample(range(100), 2)
    word = random.choice(("larger", "smaller"))
    return ask(LARGER, str(max(a, b) if word == "larger" else min(a, b)), more=word, a=str(a), b=str(b))


def _country(random: Random, split: Split) -> Asked:
    country = random.choice(_countries())
    match random.choice(("capital", "capital", "capital", "whose", "where")):
        case "capital":
            return ask(CAPITAL, country.capital, country=country.name)
        case "whose":
            return ask(WHOSE_CAPITAL, country.name, capital=country.capital)
        case _:
            return ask(CONTINENT, country.region, country=country.name)


def _spelling(random: Random, split: Split) -> Asked:
    word = ""
    while not 3 <= len(word) <= 9:
        word = random.choice(_words(split)).word
    match random.choice(("spell", "spell", "spell", "count", "letter", "capitals")):
        case "spell":
            return ask(SPELL, "-".join(word), word=word)
        case "count":
            return ask(LETTERS, str(len(word)), word=word)
        case "letter":
            end = random.choice(("first", "last"))
            return ask(LETTER, word[0] if end == "first" else word[-1], word=word, end=end)
        case _:
            return ask(CAPITALS, word.upper(), word=word)


def _definition(random: Random, split: Split) -> Asked:
    found = random.choice(_all_words())
    return ask(DEFINE, found.gloss, word=found.word, a_word=article(found.word))


_KINDS: dict[Callable[[Random, Split], Asked], int] = {
    _said(HELLO, GREETING): 12,
    _said(WHO, NAME): 9,
    _said(CAN, ABILITIES): 9,
    _said(HOW_ARE_YOU, "I am well, thank you."): 2,
    _said(THANKS, "You are welcome."): 3,
    _said(BYE, "Goodbye!"): 2,
    _said(NO_PICTURE, "I see no picture."): 8,
    _unknown: 8,
    _sum: 17,
    _larger: 3,
    _country: 8,
    _spelling: 12,
    _definition: 14,
}


# Facts --------------------------------------------------------------------------------------------------


def fetch() -> None:
    """Download WordNet and the countries, and keep what we ask about."""
    PLACE.mkdir(parents=True, exist_ok=True)
    rows = json.loads((npm(COUNTRIES) / "countries.json").read_text(encoding="utf-8"))
    _write("countries", [vars(country) for country in _read_countries(rows)])
    wordnet = deb("wordnet-base") / "usr/share/wordnet"
    index, data = ((wordnet / f"{part}.noun").read_text(encoding="utf-8") for part in ("index", "data"))
    _write("words", [vars(word) for word in read_words(index, data)])


def _write(name: str, rows: list[dict[str, str]]) -> None:
    part = PLACE / f"{name}.part"
    part.write_text(json.dumps(rows, indent=0), encoding="utf-8")
    part.rename(PLACE / f"{name}.json")
    print(f"chats: {name}.json has {len(rows)} rows", flush=True)


_WITH_THE = re.compile("^United|(Islands|lands|Philippines|Bahamas|Maldives|Seychelles|Comoros|Gambia|Republic)$")


def _read_countries(rows: list[dict[str, object]]) -> Iterator[Country]:
    for row in rows:
        match row:
            case {"name": {"common": str(name)}, "capital": [str(capital), *_], "region": str(region), **rest}:
                if rest.get("independent") and all(map(normalise, (name, capital, region))):
                    yield Country(f"the {name}" if _WITH_THE.search(name) else name, capital, region)


# Lexicographers' files of things that one can point at: animals, artifacts, bodies, food, objects, plants. People are
# left out with the insults among them.
_THINGS = frozenset(("05", "06", "08", "13", "17", "20"))
_COARSE = re.compile("slang|obscen|vulgar|offensive|derogat|disparag|sexual|genital|prostitut|excre|informal|erotic")


def read_words(index: str, data: str) -> Iterator[Word]:
    """Plain words for common things, each with the first definition of its commonest sense, if that is short."""
    synsets = {line[:8]: line.split(" | ", 1) for line in data.splitlines() if " | " in line and line[0] != " "}
    used = Counter(word for _, gloss in synsets.values() for word in re.findall(r"[a-z]+", gloss))
    for line in index.splitlines():
        # lemma pos senses pointers [pointer …] senses senses-met-in-texts offset …
        lemma, _, _, pointers, *rest = line.split(" ") if line[:1].isalpha() else ("", "", "", "0")
        if not (3 <= len(lemma) <= 12 and lemma.isascii() and lemma.isalpha()):
            continue
        met, offset = int(rest[int(pointers) + 1]), rest[int(pointers) + 2]
        head, gloss = synsets[offset]
        _, file, *words = head.split(" ")
        # In the data names keep their capital: "Australia".
        if file not in _THINGS or lemma not in words or not (met or used[lemma] >= 5) or _COARSE.search(gloss):
            continue
        gloss = re.sub(r"^\([^)]*\) ?", "", gloss).split(";")[0].strip()
        if len(gloss.split()) <= 12 and len(gloss) > 5 and normalise(gloss) == gloss and lemma not in gloss.split():
            yield Word(lemma, gloss)


@cache
def _countries() -> tuple[Country, ...]:
    return tuple(Country(**row) for row in _rows("countries"))


@cache
def _all_words() -> tuple[Word, ...]:
    return tuple(Word(**row) for row in _rows("words"))


def _rows(name: str) -> list[dict[str, str]]:
    path = PLACE / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {PLACE}: run python -m recipes.nano.chats")
    rows: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


@cache
def _words(split: Split) -> tuple[Word, ...]:
    """The words of a split, for spelling."""
    return tuple(word for word in _all_words() if _is_held(word.word) == (split == "heldout"))


@cache
def _known() -> frozenset[str]:
    return frozenset(word.word for word in _all_words())


def _is_held(text: str) -> bool:
    """One in ten, by a hash that does not change with the library."""
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def every_wording() -> list[str]:
    """For the tokenizer."""
    asked = (HELLO, WHO, CAN, HOW_ARE_YOU, THANKS, BYE, NO_PICTURE, UNKNOWN, *SUMS.values(), LARGER, CAPITAL)
    more = (WHOSE_CAPITAL, CONTINENT, SPELL, LETTERS, LETTER, CAPITALS, DEFINE)
    said = (GREETING, NAME, ABILITIES, "I see no picture.", "You are welcome.", "Goodbye!", "I am well, thank you.")
    return [*(wording for wordings in (*asked, *more) for wording in wordings), *said]


if __name__ == "__main__":
    fetch()
