"""Text <-> token ids of a Kimi-VL checkpoint, and text from ids that arrive one by one.

In: the folder's ``tiktoken.model`` and, where there is one, ``tokenizer_config.json``. Out: lists of ids,
strings. Knows nothing of chats, pictures or tensors. Text never turns into a special token unless the caller
asks for it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tiktoken

_MODEL_FILE = "tiktoken.model"
_CONFIG_FILE = "tokenizer_config.json"
_OFFICIAL_CLASS = "moonshotai/Kimi-VL-A3B-Instruct--tokenization_moonshot.TikTokenTokenizer"

# Letters are taken as an upper-case-like run before a lower-case-like one; Han letters never mix with others.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_BEFORE_WORD = r"[^\r\n\p{L}\p{N}]?"
_AFTER_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_SPLIT = "|".join(
    (
        r"[\p{Han}]+",
        f"{_BEFORE_WORD}{_UPPER}*{_LOWER}+{_AFTER_WORD}",
        f"{_BEFORE_WORD}{_UPPER}+{_LOWER}*{_AFTER_WORD}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# The official cuts: they bound the time and stack that the splitter needs, and they decide ids, so they stay
# as they are. A run is of spaces or of other characters.
_LONGEST_PIECE = 400_000
_LONGEST_RUN = 25_000
_RUN = re.compile(r"\s+|\S+")

RESERVED = 256
# offset after the byte pairs -> name; a chat means something else when one of these moves
_STRUCTURE = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_end|>",
    3: "<|im_user|>",
    4: "<|im_assistant|>",
    10: "<|im_system|>",
    17: "<|im_middle|>",
    18: "<|media_start|>",
    19: "<|media_content|>",
    20: "<|media_end|>",
    21: "<|media_pad|>",
    254: "[UNK]",
    255: "[PAD]",
}

# The form of kimi_vl.chat in jinja, for programs that render a checkpoint's template; a test holds them equal
CHAT_TEMPLATE = """\
{%- macro body(content) -%}
{%- if content is string -%}{{- content -}}
{%- elif content is iterable -%}
{%- for part in content -%}
{%- if part is string -%}{{- part -}}
{%- elif part.type == 'image' or part.get('image') is not none or part.get('image_url') is not none -%}
{{- '<|media_start|>image<|media_content|><|media_pad|><|media_end|>' -}}
{%- else -%}{{- part.text or '' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if messages and messages[0].role != 'system' -%}
{{- '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' -}}
{{- body(message.content) -}}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_assistant|>assistant<|im_middle|>' -}}
{%- endif -%}
"""


class Tokenizer:
    """Byte-pair tokens with 256 reserved ids after them (official ``TikTokenTokenizer``).

    ``model`` is the content of a ``tiktoken.model``: lines of a base64 token, a space and its rank. ``names``
    gives reserved ids (absolute) other names than ``<|reserved_token_ID|>``. Raises ``ValueError`` when the
    ranks are not 0, 1, 2, ... with every single byte among their tokens, or when a token that chats are built
    of is not in its place.
    """

    def __init__(self, model: bytes, *, names: Mapping[int, str] | None = None) -> None:
        base = _parse_ranks(model)
        special = _special_names(len(base), names or {})
        self._model = model
        self._special = special
        self._bytes = base + [special[token_id].encode() for token_id in sorted(special)]
        # Special tokens are cut out here and not by tiktoken, so that the cuts of long text cannot split one.
        self._encoding = tiktoken.Encoding(
            "kimi-vl",
            pat_str=_SPLIT,
            mergeable_ranks={token: rank for rank, token in enumerate(base)},
            special_tokens={},
        )
        self._special_ids = {name: token_id for token_id, name in special.items()}
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

        self.n_base = len(base)
        self.vocab_size = len(self._bytes)
        self.bos_id = self._special_ids["[BOS]"]
        self.eos_id = self._special_ids["[EOS]"]
        self.im_end_id = self._special_ids["<|im_end|>"]
        self.im_user_id = self._special_ids["<|im_user|>"]
        self.im_assistant_id = self._special_ids["<|im_assistant|>"]
        self.im_system_id = self._special_ids["<|im_system|>"]
        self.im_middle_id = self._special_ids["<|im_middle|>"]
        self.media_start_id = self._special_ids["<|media_start|>"]
        self.media_content_id = self._special_ids["<|media_content|>"]
        self.media_end_id = self._special_ids["<|media_end|>"]
        self.media_pad_id = self._special_ids["<|media_pad|>"]
        self.unk_id = self._special_ids["[UNK]"]
        self.pad_id = self._special_ids["[PAD]"]
        # An answer ends with the first; the second is what the official config.json calls the end.
        self.end_ids = (self.im_end_id, self.eos_id)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Tokenizer:
        """Reads ``tiktoken.model`` and, where there is one, ``tokenizer_config.json``; uses no network.

        Raises ``ValueError`` naming the file when it is missing or broken.
        """
        path = Path(folder) / _MODEL_FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing: copy {_MODEL_FILE} of the checkpoint into this folder")
        config = Path(folder) / _CONFIG_FILE
        return cls(path.read_bytes(), names=_read_names(config) if config.is_file() else None)

    def save_pretrained(self, folder: Path) -> None:
        """Writes ``tiktoken.model``, byte for byte as read, and an official ``tokenizer_config.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MODEL_FILE).write_bytes(self._model)
        config = json.dumps(self._config(), indent=2, ensure_ascii=False) + "\n"
        (folder / _CONFIG_FILE).write_text(config, encoding="utf-8")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of ``text``, without ``[BOS]`` or ``[EOS]``.

        By default all of it is ordinary text, ``<|im_end|>`` too. With ``allow_special`` the names of special
        tokens become their ids: only for text that no user had a hand in. Halves of a surrogate pair are
        joined where both are there, and read as U+FFFD where one is alone, since UTF-8 cannot hold them.
        """
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if not allow_special:
            return self._encode_ordinary(text)
        ids: list[int] = []
        for piece in self._special_pattern.split(text):
            special = self._special_ids.get(piece)
            ids.extend(self._encode_ordinary(piece) if special is None else (special,))
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ``ids``; bytes that are no UTF-8 read as U+FFFD.

        Special tokens are left out, or written by name without ``skip_special``. Raises ``ValueError`` for an
        id outside the vocabulary.
        """
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """The same before it is read as UTF-8: a token may hold a part of a character."""
        return b"".join(self._token_bytes(token_id, skip_special) for token_id in ids)

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in _cut(text):
            ids.extend(self._encoding.encode_ordinary(piece))
        return ids

    def _token_bytes(self, token_id: int, skip_special: bool) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id {token_id} is outside the vocabulary, 0 to {self.vocab_size - 1}")
        return b"" if skip_special and token_id >= self.n_base else self._bytes[token_id]

    def _config(self) -> dict[str, Any]:
        named = {i: name for i, name in self._special.items() if name != _reserved_name(i)}
        flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        ends = {"[BOS]", "[EOS]", "[UNK]", "[PAD]"}
        return {
            "added_tokens_decoder": {str(i): {"content": name, **flags, "special": True} for i, name in named.items()},
            "additional_special_tokens": [name for name in named.values() if name not in ends],
            "auto_map": {"AutoTokenizer": [_OFFICIAL_CLASS, None]},
            "bos_token": "[BOS]",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "[EOS]",
            "pad_token": "[PAD]",
            "tokenizer_class": "TikTokenTokenizer",
            "unk_token": "[UNK]",
        }


class StreamDecoder:
    """Text of ids that arrive one by one: the pieces together are ``tokenizer.decode(ids)``, for any ids.

    A character whose bytes are spread over several tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """What is new and certain after this id, perhaps nothing. ``ValueError`` outside the vocabulary."""
        return self._utf8.decode(self._tokenizer._token_bytes(token_id, self._skip_special))

    def flush(self) -> str:
        """U+FFFD for bytes still held back, else nothing. Call it once, after the last id."""
        return self._utf8.decode(b"", final=True)


def _reserved_name(token_id: int) -> str:
    return f"<|reserved_token_{token_id}|>"


def _parse_ranks(model: bytes) -> list[bytes]:
    tokens: dict[int, bytes] = {}
    seen: set[bytes] = set()
    for number, line in enumerate(model.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{_MODEL_FILE} line {number}"
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdigit():
            raise ValueError(f"{where}: expected a base64 token, a space and a rank, not {line[:60]!r}")
        try:
            token = base64.b64decode(fields[0], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{where}: {fields[0][:60]!r} is not base64 ({error})") from None
        rank = int(fields[1])
        if rank in tokens:
            raise ValueError(f"{where}: rank {rank} is there twice")
        if token in seen:
            raise ValueError(f"{where}: token {token!r} is there twice")
        tokens[rank] = token
        seen.add(token)
    gap = next((rank for rank in range(len(tokens)) if rank not in tokens), None)
    if gap is not None:
        raise ValueError(f"{_MODEL_FILE}: rank {gap} is missing, though there are {len(tokens)} ranks")
    missing = {bytes([value]) for value in range(256)} - seen
    if missing:
        raise ValueError(
            f"{_MODEL_FILE}: {len(missing)} of the 256 single bytes have no rank (first {min(missing)!r}), "
            "so not every text could be written; is the file whole?"
        )
    return [tokens[rank] for rank in range(len(tokens))]


def _special_names(n_base: int, given: Mapping[int, str]) -> dict[int, str]:
    """Every reserved id with its name, the given names over the official ones."""
    names = {i: _reserved_name(i) for i in range(n_base, n_base + RESERVED)}
    names.update({n_base + offset: name for offset, name in _STRUCTURE.items()})
    for token_id, name in given.items():
        # The official code also names ids just past the end; the model has no row for them and nothing writes
        # them.
        if token_id >= n_base + RESERVED and name == _reserved_name(token_id):
            continue
        if token_id not in names:
            raise ValueError(
                f"{_CONFIG_FILE}: added token {name!r} has id {token_id}, outside the reserved ids "
                f"{n_base} to {n_base + RESERVED - 1}"
            )
        expected = _STRUCTURE.get(token_id - n_base)
        if expected is not None and name != expected:
            raise ValueError(f"{_CONFIG_FILE}: id {token_id} is {name!r}, where Kimi-VL has {expected!r}")
        if not name:
            raise ValueError(f"{_CONFIG_FILE}: the added token with id {token_id} has an empty name")
        names[token_id] = name
    owner: dict[str, int] = {}
    for token_id, name in names.items():
        if name in owner:
            raise ValueError(f"{_CONFIG_FILE}: {name!r} is the name of both {owner[name]} and {token_id}")
        owner[name] = token_id
    return names


def _read_names(path: Path) -> dict[int, str]:
    try:
        added = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        return {int(token_id): _name(entry) for token_id, entry in added.items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: added_tokens_decoder must map ids to tokens ({error!r})") from error


def _name(entry: Any) -> str:
    name = entry["content"]
    if not isinstance(name, str):
        raise TypeError(f"content {name!r} is no text")
    return name


def _cut(text: str) -> Iterator[str]:
    """``text`` in pieces of at most 400,000 characters, none with a run of more than 25,000."""
    for start in range(0, len(text), _LONGEST_PIECE):
        piece = text[start : start + _LONGEST_PIECE]
        done = 0
        for run in _RUN.finditer(piece):
            for at in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN):
                yield piece[done:at]
                done = at
        yield piece[done:]
