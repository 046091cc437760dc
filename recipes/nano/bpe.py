"""Training text -> `kimi_vl/nano/tiktoken.model`, nano's byte-level BPE in the layout of the released models.

    python -m recipes.nano.bpe

3,840 ranks (the 256 bytes in order of value, then the merges), so that with the 256 reserved ids the
vocabulary is 4,096. No token has two digits: a number is then as many tokens as it has digits wherever it stands, each
of them one sign in a picture and one decimal place of a point. Only the training book and names are read; the report at
the end is on the held-out book.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tiktoken
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.nano.questions import every_wording
from recipes.nano.text import book

RANKS = 3840
_PLACE = r" ?\{\w+\}"  # of what a wording is filled with
TARGET = Path(__file__).resolve().parents[2] / "kimi_vl" / "nano" / "tiktoken.model"

# The split of the released tokenizer, alternative by alternative.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        f"{_LEAD}{_UPPER}*{_LOWER}+{_ENDING}",
        f"{_LEAD}{_UPPER}+{_LOWER}*{_ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def byte_letters() -> dict[str, int]:
    """The printable stand-in of each byte in a byte-level vocabulary -> the byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def train(texts: Iterable[str], ranks: int = RANKS) -> list[bytes]:
    """Learn the merges; the tokens come back in rank order."""
    letters = byte_letters()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=ranks, initial_alphabet=sorted(letters), special_tokens=[], show_progress=False),
    )
    learned = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(letters[c] for c in token) for token, _ in learned if len(token) > 1]
    tokens = [bytes([byte]) for byte in range(256)] + merged
    if len(tokens) != ranks or len(set(tokens)) != ranks:
        raise RuntimeError(f"{len(tokens)} tokens, {len(set(tokens))} of them distinct; {ranks} were asked for")
    return tokens


def corpus(names: Iterable[str]) -> Iterator[str]:
    """The training book once; questions, answers and names often enough to become whole tokens."""
    yield from book("train")
    for text in names:
        # As an answer by itself, and inside a question, where a space goes before it.
        yield from (text, f" {text}") * 20
    for wording in every_wording():
        for text in re.split(_PLACE, wording):
            if any(map(str.isalpha, text)):
                yield from (text, f" {text}") * 500


def write(tokens: list[bytes], target: Path) -> None:
    """One line a token: base64, a space, the rank."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    part = target.with_suffix(".part")
    part.write_text("".join(lines))
    part.rename(target)


def check(tokens: list[bytes], texts: Iterable[str]) -> float:
    """tiktoken must give each text back, and each token must be reachable; returns characters a token."""
    encoding = tiktoken.Encoding(
        "nano", pat_str=PATTERN, mergeable_ranks={t: r for r, t in enumerate(tokens)}, special_tokens={}
    )
    characters = used = 0
    for text in texts:
        ids = encoding.encode_ordinary(text)
        if encoding.decode(ids) != text:
            raise RuntimeError(f"encode and decode disagree on {text!r}")
        characters, used = characters + len(text), used + len(ids)
    for rank, token in enumerate(tokens):
        try:
            text = token.decode()
        except UnicodeDecodeError:
            continue  # a part of a character: reached only inside another text
        # " you'" is cut in two when alone, but is met inside " you'm": endings stay with their word.
        if not any(rank in encoding.encode_ordinary(text + tail) for tail in ("", "m", "d", "e")):
            raise RuntimeError(f"token {rank} {token!r} cannot be reached")
    return characters / used


def main() -> None:
    """Train, check, write, report."""
    # Imported here: a tokenizer can be trained on other names without emoji or clip art.
    from recipes.nano.pictures import all_names

    tokens = train(corpus(all_names()))
    rate = check(tokens, book("heldout"))
    write(tokens, TARGET)
    print(f"{TARGET.name}: {len(tokens)} ranks, {rate:.2f} characters a token on the held-out book")


if __name__ == "__main__":
    main()
