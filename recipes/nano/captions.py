"""Labels and file names -> the short lower-case names that nano is taught to say.

Pure functions on strings: no pictures, no files.
"""

import re
import unicodedata
from collections.abc import Collection

# Where a folder of clip art holds patterns, logos or series that no name describes.
WORDLESS_FOLDERS = (
    "shapes",
    "special",
    "logos",
    "buttons",
    "signs_and_symbols/flags",
    "recreation/games/cards",
)
_NOT_WORDS = frozenset(("svg", "png", "icon", "icons", "clipart", "clip", "art", "simple", "new"))
_SMALL = frozenset(("a", "an", "of", "and", "with", "in", "on", "for", "by", "to", "the"))

_VARIANT = re.compile(r"skin tone|^(man|woman|men|women)\b.+|, |^(family|kiss|couple with heart|keycap): ")
_PLAIN_PEOPLE = frozenset(("man dancing", "woman dancing", "men holding hands", "women holding hands"))


def concept_name(label: str) -> str:
    """A Unicode short name as we say it: "flag: France" -> "flag of france"."""
    name = label.lower().replace("’", "'").replace("“", "").replace("”", "").replace("⊛ ", "")
    if name.startswith("flag: "):
        name = "flag of " + name.removeprefix("flag: ")
    name = unicodedata.normalize("NFKD", name.replace(": ", " ")).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^a-z0-9'!?#*&. -]", " ", name).split())


def key(name: str) -> str:
    """Names that differ only in case, accents, spaces and signs have one key: "Hot dog", "hotdog"."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def is_variant(label: str) -> bool:
    """Is this another skin tone, gender or family of an emoji that we keep, or a keycap?"""
    return bool(_VARIANT.search(label.lower())) and label.lower() not in _PLAIN_PEOPLE


def is_thing(name: str) -> bool:
    """Is it one or two plain words, and no face?"""
    words = name.split()
    return len(words) <= 2 and all(word.isalpha() for word in words) and "face" not in words


def is_countable(name: str) -> bool:
    """Is it one thing? A drawing of "cherries" or "paw prints" shows several."""
    return is_thing(name) and (not name.endswith("s") or name.endswith(("ss", "us")))


def clipart_caption(path: str, creators: Collection[str], vocabulary: Collection[str]) -> str:
    """The name of a clip art from its path inside the library: "animals/crazy_monkey_shandy_brow_01.svg".

    File names end in the artist's name, cut short, and a number. Both go. A name with any other word that is
    not English ("ape_miele": a bee) gives "": its English-looking words would mislead.
    """
    if path.startswith(WORDLESS_FOLDERS):
        return ""
    artists = [word for creator in creators for word in re.findall(r"[a-z]+", creator.lower()) if len(word) > 1]
    words = []
    for word in re.findall(r"[a-z]+", _spaced(path.rsplit("/", 1)[-1].removesuffix(".svg"))):
        of_artist = any((artist.startswith(word) and len(word) > 1) or word == artist for artist in artists)
        if of_artist or len(word) == 1 or word in _NOT_WORDS:
            continue
        if word not in _SMALL and not is_english(word, vocabulary):
            return ""
        words.append(word)
    while words and words[-1] in _SMALL:
        words.pop()
    while words and words[0] in _SMALL:
        words.pop(0)
    return " ".join(words) if len(words) <= 5 else ""


def is_english(word: str, vocabulary: Collection[str]) -> bool:
    """Is the word, or the word without its ending, in the vocabulary of lemmas?"""
    stems = [word, *(word.removesuffix(e) for e in ("s", "es", "ed", "d", "ing") if word.endswith(e))]
    stems += [word[:-3] + "y"] if word.endswith("ies") else []
    stems += [word[:-3] + "e"] if word.endswith("ing") else []
    return any(len(stem) > 1 and stem in vocabulary for stem in stems)


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()
