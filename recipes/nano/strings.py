"""A seeded generator -> the text of one line: cut from a book, or made so that it must be read, not guessed.

Knows nothing of fonts or pictures. `Random` is the standard library's, so that a draw costs no array.
"""

import calendar
import string
from random import Random
from typing import Literal

from recipes.nano.text import book

# What a training line holds, with its share in per cent. Held-out lines are "cut" only.
KINDS: dict[str, int] = {
    "cut": 44,
    "word": 8,
    "number": 5,
    "date": 3,
    "price": 3,
    "identifier": 5,
    "address": 3,
    "shouted": 4,
    "shuffled": 3,
    "characters": 4,
    "again": 8,
    "technical": 10,
}
MONTHS = tuple(calendar.month_name)[1:]
UNITS = ("%", "km", "kg", "cm", "mm", "ms", "GB", "MB", "kB", "Hz", "W", "V", "°C", "m", "s", "h", "px", "×")


def line_text(random: Random, split: Literal["train", "heldout"], longest: int) -> str:
    """One line of at most `longest` characters."""
    kind = "cut" if split == "heldout" else random.choices(list(KINDS), list(KINDS.values()))[0]
    text = _cut(random, split, longest) if kind == "cut" else _MAKERS[kind](random)
    if len(text) > longest:
        text = text[:longest].rsplit(" ", 1)[0].strip() or text[:longest]
    return text


def _cut(random: Random, split: str, longest: int) -> str:
    """Words in a row from a paragraph, up to a length drawn beforehand."""
    paragraphs = book(split)
    # The length is drawn in characters, since words differ much in length between the books.
    if split == "heldout":
        wanted, shortest = random.randint(16, 64), 8
    else:
        lengths = (random.randint(3, 16), random.randint(16, 48), random.randint(48, 110))
        wanted = random.choices(lengths, (2, 5, 3))[0]
        shortest = 1
    wanted = min(wanted, longest)
    while True:
        words = paragraphs[random.randrange(len(paragraphs))].split()
        start = random.randrange(max(1, len(words) - wanted // 8))
        taken: list[str] = []
        for word in words[start:]:
            if taken and len(" ".join([*taken, word])) > wanted:
                break
            taken.append(word)
        text = " ".join(taken)
        if len(text) >= shortest:
            return text


def _word(random: Random) -> str:
    paragraphs = book("train")
    return random.choice(paragraphs[random.randrange(len(paragraphs))].split())


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices(string.digits, k=count))


def _number(random: Random) -> str:
    whole = str(random.randrange(10 ** random.randint(1, 8)))
    match random.randrange(7):
        case 0:
            return whole
        case 1:
            return f"{int(whole):,}"
        case 2:
            return f"{random.uniform(-1000, 1000):.{random.randint(1, 4)}f}"
        case 3:
            return f"{whole} {random.choice(UNITS)}"
        case 4:
            return f"+{_digits(random, 2)} {_digits(random, 3)} {_digits(random, 4)}-{_digits(random, 3)}"
        case 5:
            return ".".join(str(random.randrange(256)) for _ in range(4))
        case _:
            left, right = random.randrange(200), random.randrange(200)
            return f"{left} {random.choice('+-*/=<>×')} {right}"


def _date(random: Random) -> str:
    day, month, year = random.randint(1, 28), random.randrange(12), random.randint(1890, 2049)
    clock = f"{random.randrange(24):02}:{random.randrange(60):02}"
    return random.choice(
        (
            f"{day} {MONTHS[month]} {year}",
            f"{MONTHS[month][:3]} {day}, {year}",
            f"{year}-{month + 1:02}-{day:02}",
            f"{day:02}/{month + 1:02}/{year}",
            f"{day:02}.{month + 1:02}.{year % 100:02}",
            clock,
            f"{year}-{month + 1:02}-{day:02} {clock}:{random.randrange(60):02}",
        )
    )


def _price(random: Random) -> str:
    amount = f"{random.randrange(10 ** random.randint(1, 4)):,}.{_digits(random, 2)}"
    name = _word(random).strip(".,;:()\"'“”").capitalize()
    return random.choice(
        (
            f"${amount}",
            f"€{amount}",
            f"£{amount}",
            f"{amount} €",
            f"{amount} USD",
            f"{name} ${amount}",
            f"Total: {amount}",
        )
    )


def _plain_word(random: Random) -> str:
    word = "".join(c for c in _word(random).lower() if c in string.ascii_lowercase)
    return word or random.choice(string.ascii_lowercase)


def _identifier(random: Random) -> str:
    words = [_plain_word(random) for _ in range(random.randint(1, 3))]
    snake, camel = "_".join(words), words[0] + "".join(map(str.title, words[1:]))
    return random.choice(
        (
            snake,
            camel,
            f"{snake}()",
            f"{camel}.{words[-1]}({words[0]})",
            f"{snake} = {random.randrange(1000)}",
            f"--{'-'.join(words)}",
            f"${snake.upper()}",
            f"{words[0]}[{random.randrange(100)}]",
            f"/{'/'.join(words)}.{random.choice(('py', 'txt', 'c', 'html', 'sh'))}",
            f'<{words[0]} {words[-1]}="{_digits(random, 2)}">',
            f"if {words[0]} != {words[-1]}:",
            f"0x{random.randrange(16**8):08x}",
        )
    )


def _address(random: Random) -> str:
    name, place = _plain_word(random), _plain_word(random)
    ending = random.choice(("com", "org", "net", "edu", "io", "de", "fr"))
    return random.choice(
        (
            f"{name}@{place}.{ending}",
            f"{name}.{_plain_word(random)}@{place}.{ending}",
            f"{name}{random.randrange(100)}@{place}.{ending}",
            f"www.{place}.{ending}",
            f"https://{place}.{ending}/{name}",
            f"@{name}",
            f"#{name}",
        )
    )


def _shouted(random: Random) -> str:
    text = _cut(random, "train", 36)
    return random.choice((text.upper(), text.upper(), text.title(), text.swapcase()))


def _shuffled(random: Random) -> str:
    """Words with their letters shuffled or in random case: spelling is no help here."""
    letters = list(_plain_word(random) + random.choice((" ", "", "-", ".")) + _plain_word(random))
    random.shuffle(letters)
    text = "".join(c.upper() if random.random() < 0.3 else c for c in letters)
    return " ".join(text.split()) or "x"


def _characters(random: Random) -> str:
    alphabet = random.choice(
        (string.ascii_letters + string.digits, string.ascii_uppercase + string.digits, _PRINTABLE, _PRINTABLE)
    )
    groups = ("".join(random.choices(alphabet, k=random.randint(1, 8))) for _ in range(random.randint(1, 3)))
    return " ".join(groups)


def _again(random: Random) -> str:
    """Few words and signs over and over: who follows a line by its words alone loses his place."""
    words = [random.choice((_word, _plain_word))(random) for _ in range(random.randint(1, 5))]
    match random.randrange(4):
        case 0:  # a command's synopsis
            left, right = random.choice(("[]", "[]", "{}", "<>", "()"))
            between = random.choice((" ", " ", " | ", ", "))
            parts = (_bracketed(random, words, left, right) for _ in range(random.randint(2, 8)))
            return between.join(parts) + random.choice(("", "", " ...", " [, ...]"))
        case 1:  # a list
            between = random.choice((", ", ", ", "; ", " | ", "/", " and "))
            return between.join(random.choice(words) for _ in range(random.randint(3, 14)))
        case 2:  # code
            signs = (" = ", " + ", ".", "(", ", ", ")", " == ", " -> ", "_", "[", "]", " - ", " * ", "::")
            return "".join(random.choice(words) + random.choice(signs) for _ in range(random.randint(3, 12))).strip()
        case _:  # a sentence that says itself again
            said = _cut(random, "train", random.randint(8, 30))
            return " ".join([said, *random.choices((said, *words), k=random.randint(1, 5))])


def _technical(random: Random) -> str:
    """Lines as manuals have them: what stands in them is spelled as no other word is."""
    match random.randrange(8):
        case 0:  # a heading
            number = _section(random)
            title = random.choice(
                (_term(random), f"{_term(random)} {_plain_word(random).title()}", _cut(random, "train", 24))
            )
            return random.choice((f"{number}. {title}", f"Table {number}. {title}", f"{number} {title}"))
        case 1:  # a row of a table
            kind = random.choice(("oid", "text", "bool", "int4", "name", "timestamptz", _abbreviated(random)))
            rest = random.choice(("", f" (references {_term(random)}.{_abbreviated(random)})", f" {_number(random)}"))
            return f"{_term(random)} {kind}{rest}"
        case 2:  # an entry of a list of changes
            people = ", ".join(_person(random) for _ in range(random.randint(1, 3)))
            return f"{_cut(random, 'train', random.randint(8, 50))} ({people}){random.choice(('', '', ' §'))}"
        case 3:  # code
            words = [random.choice((_term, _plain_word, _shout, _quoted))(random) for _ in range(random.randint(2, 7))]
            return "".join(word + random.choice((" ", " ", ", ", " = ", "(", ")", ".", ": ")) for word in words).strip()
        case _:  # a sentence with such words in it
            words = _cut(random, "train", random.randint(20, 110)).split()
            for place in random.sample(range(len(words)), random.randint(1, 1 + len(words) // 4)):
                words[place] = random.choice(_UNGUESSED)(random)
            return " ".join(words)


def _section(random: Random) -> str:
    return ".".join(str(random.randint(1, 60)) for _ in range(random.randint(2, 3)))


def _abbreviated(random: Random) -> str:
    """The beginning of a word, or a word without its vowels."""
    word = _plain_word(random)
    return random.choice((word[: random.randint(2, 5)], word[0] + "".join(c for c in word[1:] if c not in "aeiou")))


def _term(random: Random) -> str:
    """A name out of a program."""
    # Of a word of code only the beginning: one that is itself made of many is long, and like no other.
    parts = [
        _abbreviated(random) if random.random() < 0.3 else _plain_word(random)[:12] for _ in range(random.randint(2, 4))
    ]
    joined = random.choice(("_", "_", "_", "", "-", ".")).join(parts)
    return joined + random.choice(("", "", "", "()", f"_{random.randrange(100)}"))


def _shout(random: Random) -> str:
    return _plain_word(random).upper()


def _quoted(random: Random) -> str:
    left, right = random.choice((("``", "''"), ("'", "'"), ('"', '"'), ("“", "”"), ("‘", "’"), ("`", "`"), ("[", "]")))
    return left + random.choice((_term, _plain_word, _shout, _word))(random) + right


def _owner(random: Random) -> str:
    """With either apostrophe: the eye alone can tell which."""
    return _plain_word(random) + random.choice(("'s", "’s", "n't", "n’t", "'", "’"))


def _person(random: Random) -> str:
    def name() -> str:
        syllables = (random.choice(_ONSETS) + random.choice(_RIMES) for _ in range(random.randint(1, 3)))
        return "".join(syllables).capitalize()

    return f"{name()} {name()}"


def _sign(random: Random) -> str:
    """Keys, references, paths and switches."""
    letter = random.choice(string.ascii_letters)
    return random.choice(
        (
            f"^{letter.upper()}",
            f"%{letter}",
            f"M-{letter}",
            f"C-x C-{letter}",
            f"-{letter}",
            f"-{random.randrange(20)}",
            f"[{random.randint(1, 99)}]",
            f"(Section {_section(random)})",
            f"/tmp/.{letter}.{_shout(random)}.{random.randrange(10000)}",
            f"/{_abbreviated(random)}/{_term(random)}",
            f"(CVE-{random.randint(2001, 2030)}-{_digits(random, 4)})",
            f"{_abbreviated(random)}{random.randrange(10)}",
        )
    )


_UNGUESSED = (_term, _term, _abbreviated, _shout, _quoted, _owner, _person, _sign)
_ONSETS = (
    "b",
    "br",
    "ch",
    "d",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "sz",
    "t",
    "v",
    "w",
    "y",
    "z",
)
_RIMES = ("a", "an", "ar", "e", "el", "en", "er", "i", "ik", "in", "is", "o", "on", "or", "ov", "u", "ung", "us")


def _bracketed(random: Random, words: list[str], left: str, right: str) -> str:
    inside = " ".join(random.choice(words) for _ in range(random.randint(1, 2)))
    match random.randrange(4):
        case 0:
            return inside
        case 1:
            return f"{left} {left} {inside} {right} {random.choice(words)} {right}"
        case 2:
            return f"{left}{inside}{right}"
        case _:
            return f"{left} {inside} {right}"


_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
_MAKERS = {
    "word": _word,
    "number": _number,
    "date": _date,
    "price": _price,
    "identifier": _identifier,
    "address": _address,
    "shouted": _shouted,
    "shuffled": _shuffled,
    "characters": _characters,
    "again": _again,
    "technical": _technical,
}
