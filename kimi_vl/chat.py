"""Chat messages, in the shapes that clients send, -> token ids of one conversation.

In: OpenAI or Hugging Face messages, and how many tokens each picture takes. Out: :class:`Rendered`, two lists
of one length [tokens]. Knows nothing of pixels: the source of a picture is passed on unopened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image

from kimi_vl.tokenizer import Tokenizer

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant"

Role: TypeAlias = Literal["system", "user", "assistant"]
# What kimi_vl.media.load_picture opens, which also says what a string may be.
PictureSource: TypeAlias = str | bytes | Path | Image.Image

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_TEXT_TYPES = ("text", "input_text", "output_text")
_PICTURE_TYPES = ("image", "image_url", "input_image")
_FILE_TYPES = ("file", "input_file")
_FILE_SOURCES = ("file_data", "file_url")
_SOURCES = ("image", "image_url", "url", "path", "base64")
_WISHES = ("detail", "min_pixels", "max_pixels")
_PICTURE_KEYS = ("type", *_WISHES, *_SOURCES)
_DETAILS = ("auto", "low", "high", "original")
LOW_DETAIL_PIXELS = 512 * 512  # which the OpenAI shape's "low" scales a picture down to


@dataclass(frozen=True)
class TextPart:
    """A stretch of text, exactly as given."""

    text: str


@dataclass(frozen=True)
class PicturePart:
    """A picture that is not opened yet, and within which sizes it is wished for (:func:`kimi_vl.patches.fit`)."""

    source: PictureSource
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class FilePart:
    """A file that is not opened yet: a PDF, whose pages are shown (:func:`with_pages`), or a picture after all."""

    source: PictureSource


Part: TypeAlias = TextPart | PicturePart | FilePart


@dataclass(frozen=True)
class Message:
    """One turn: who says it, and texts, pictures and files in their order. No parts mean an empty turn."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it.

    ``input_ids`` [tokens]; ``answer_mask`` [tokens] is true on what the assistant says and on the
    ``<|im_end|>`` after it, the only tokens that a training loss may see.
    """

    input_ids: list[int]
    answer_mask: list[bool]


def parse_messages(raw: Sequence[Mapping[str, Any] | Message]) -> list[Message]:
    """Messages of either shape in one form; a ``Message`` stays as it is.

    Content is text, or a list of texts and pictures: ``{"type": "text" | "input_text", "text": ...}``,
    ``{"type": "image", "image" | "url" | "path" | "base64": ...}``, ``{"type": "image_url" | "input_image",
    "image_url": ...}``, the same without a type, or a plain string. Null, "" and nothing at all are no text. A picture
    may have ``min_pixels`` and ``max_pixels``, in the part or beside its URL, and ``detail``: "low" is at most
    512 · 512 pixels, everything else the model's own limit. A file is ``{"type": "file", "file": {"file_data": ...}}``
    or ``{"type": "input_file", "file_data" | "file_url": ...}``.
    Any role may show pictures, as in the official template.
    Raises ``ValueError`` naming the place, such as ``messages[2].content[1]``.
    """
    if isinstance(raw, (str, bytes, Mapping)) or not isinstance(raw, Sequence):
        raise ValueError(f"messages must be a list of messages, not {type(raw).__name__}")
    if not raw:
        raise ValueError("messages is empty: give at least one message")
    return [_parse_message(item, f"messages[{index}]") for index, item in enumerate(raw)]


def picture_parts(messages: Iterable[Message]) -> list[PicturePart]:
    """The pictures of a conversation in the order in which the model meets them."""
    return [part for message in messages for part in message.parts if isinstance(part, PicturePart)]


def shown_parts(messages: Iterable[Message]) -> list[PicturePart | FilePart]:
    """All that has to be opened, in that order."""
    return [part for message in messages for part in message.parts if not isinstance(part, TextPart)]


def with_pages(messages: Sequence[Message], pages: Sequence[int | None]) -> list[Message]:
    """The conversation with a picture for each page of its files, and which page it is before it.

    ``pages`` [files] is how many each has; ``None`` is a picture that came as a file.
    """
    counts = iter(pages)

    def opened(part: Part) -> tuple[Part, ...]:
        if not isinstance(part, FilePart):
            return (part,)
        count = next(counts)
        if count is None:
            return (PicturePart(part.source),)
        numbers = (TextPart(f"Page {number} of {count}:\n") for number in range(1, count + 1))
        return tuple(new for number in numbers for new in (number, PicturePart(part.source), TextPart("\n")))

    return [Message(message.role, tuple(new for part in message.parts for new in opened(part))) for message in messages]


def render(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    picture_tokens: Sequence[int],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> Rendered:
    """Token ids of a conversation (the official chat template), a picture as a run of ``<|media_pad|>``.

    ``picture_tokens`` [pictures] is the length of each run. A conversation that does not begin with a system
    message gets :data:`DEFAULT_SYSTEM_PROMPT`. With ``add_generation_prompt`` it ends where the assistant
    begins to speak, and with ``continue_final_message`` in the middle of what the assistant says last. Special tokens
    come from this structure only: their names within a text stay text. Raises ``ValueError`` when there is no message,
    when the runs do not match the pictures, or when a message is to be gone on with that is not the assistant's.
    """
    if not messages:
        raise ValueError("messages is empty: give at least one message")
    assert not any(isinstance(part, FilePart) for message in messages for part in message.parts)
    pictures = len(picture_parts(messages))
    if pictures != len(picture_tokens):
        raise ValueError(f"messages hold {pictures} pictures, but picture_tokens has {len(picture_tokens)} counts")
    if any(count < 1 for count in picture_tokens):
        raise ValueError(f"picture_tokens must all be at least 1, not {list(picture_tokens)}")

    if continue_final_message and messages[-1].role != "assistant":
        raise ValueError(
            f"continue_final_message is set, but the last message is of the {messages[-1].role}: end with what the "
            "assistant begins to say, or leave it out"
        )

    ids: list[int] = []
    answer: list[bool] = []

    def write(new: list[int], *, is_answer: bool = False) -> None:
        ids.extend(new)
        answer.extend([is_answer] * len(new))

    counts = iter(picture_tokens)
    if messages[0].role != "system":
        messages = [Message("system", (TextPart(DEFAULT_SYSTEM_PROMPT),)), *messages]
    for message in messages:
        is_answer = message.role == "assistant"
        write(_opening(message.role, tokenizer))
        # Texts that touch become one before they are encoded, as officially: a token may reach over the seam.
        for is_text, parts in groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
            if is_text:
                text = "".join(part.text for part in parts if isinstance(part, TextPart))
                write(tokenizer.encode(text), is_answer=is_answer)
            else:
                for _ in parts:
                    write(picture_ids(next(counts), tokenizer))
        write([tokenizer.im_end_id], is_answer=is_answer)
    if continue_final_message:
        del ids[-1], answer[-1]
    elif add_generation_prompt:
        write(_opening("assistant", tokenizer))
    return Rendered(ids, answer)


def _opening(role: Role, tokenizer: Tokenizer) -> list[int]:
    who = {
        "system": tokenizer.im_system_id,
        "user": tokenizer.im_user_id,
        "assistant": tokenizer.im_assistant_id,
    }
    return [who[role], *tokenizer.encode(role), tokenizer.im_middle_id]


def picture_ids(tokens: int, tokenizer: Tokenizer) -> list[int]:
    """A picture of so many tokens, between the marks that are around one."""
    return [
        tokenizer.media_start_id,
        *tokenizer.encode("image"),
        tokenizer.media_content_id,
        *[tokenizer.media_pad_id] * tokens,
        tokenizer.media_end_id,
    ]


def _parse_message(raw: Mapping[str, Any] | Message, where: str) -> Message:
    if isinstance(raw, Message):
        return raw
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where} must be a mapping with role and content, not {type(raw).__name__}")
    role = raw.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{where}.role is {role!r}, allowed are {', '.join(_ROLES)}")
    content = raw.get("content")
    if content is None or content == "":
        return Message(_ROLES[role], ())
    if isinstance(content, str):
        return Message(_ROLES[role], (TextPart(content),))
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{where}.content must be text or a list of parts, not {type(content).__name__}")
    parts = (_parse_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))
    return Message(_ROLES[role], tuple(part for part in parts if part != TextPart("")))


def _parse_part(raw: Any, where: str) -> Part:
    if isinstance(raw, str):
        return TextPart(raw)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where} must be a string or a mapping with a type, not {type(raw).__name__}")
    # Tables fill the columns of a part that it does not have with null, so null says nothing.
    given = {key: value for key, value in raw.items() if value is not None}
    kind = given.get("type")
    if kind is None:
        kind = next((key for key in ("image", "image_url", "text") if key in given), None)
    if kind in _PICTURE_TYPES:
        return _parse_picture(given, where)
    if kind in _FILE_TYPES:
        return _parse_file(given, where)
    if kind not in _TEXT_TYPES:
        what = f"is of type {kind!r}" if kind is not None else f"has no type, only {sorted(map(str, given))}"
        raise ValueError(f"{where} {what}; allowed are {', '.join(_TEXT_TYPES + _PICTURE_TYPES + _FILE_TYPES)}")
    beside = [key for key in _SOURCES if key in given]
    if beside:
        raise ValueError(f"{where} is text but has {beside[0]!r} too: give text and picture as two parts")
    text = given.get("text", "")
    if not isinstance(text, str):
        raise ValueError(f"{where}.text must be a string, not {type(text).__name__}")
    return TextPart(text)


def _parse_picture(given: Mapping[str, Any], where: str) -> PicturePart:
    unknown = [key for key in given if key not in _PICTURE_KEYS and (key, given[key]) != ("text", "")]
    if unknown:
        raise ValueError(f"{where}.{unknown[0]} is not understood on a picture; allowed are {', '.join(_PICTURE_KEYS)}")
    keys = [key for key in _SOURCES if key in given]
    if len(keys) != 1:
        has = f"has both {keys[0]} and {keys[1]}" if keys else "has no picture"
        raise ValueError(f"{where} {has}: give one of {', '.join(_SOURCES)}")
    key = keys[0]
    source: Any = given[key]
    wishes = {name: (given[name], f"{where}.{name}") for name in _WISHES if name in given}
    where = f"{where}.{key}"
    if key == "image_url" and isinstance(source, Mapping):
        unknown = [name for name in source if name not in ("url", *_WISHES)]
        if unknown:
            raise ValueError(f"{where}.{unknown[0]} is not understood; allowed are url, {', '.join(_WISHES)}")
        inner = {name: source[name] for name in _WISHES if source.get(name) is not None}
        wishes |= {name: (value, f"{where}.{name}") for name, value in inner.items()}
        source = source.get("url")
        where = f"{where}.url"
    return PicturePart(_parse_source(key, source, where), *_parse_wishes(wishes))


def _parse_file(given: Mapping[str, Any], where: str) -> FilePart:
    inner = given.get("file", given)
    if not isinstance(inner, Mapping):
        raise ValueError(f"{where}.file must be a mapping, not {type(inner).__name__}")
    if inner.get("file_id"):
        raise ValueError(f"{where} names a file by file_id, but none are kept: give file_data")
    keys = [key for key in _FILE_SOURCES if inner.get(key)]
    if len(keys) != 1:
        raise ValueError(f"{where} must have either file_data or file_url")
    source = inner[keys[0]]
    if not isinstance(source, str):
        raise ValueError(f"{where}.{keys[0]} must be a string, not {type(source).__name__}")
    return FilePart(source)


def _parse_wishes(wishes: Mapping[str, tuple[Any, str]]) -> tuple[int | None, int | None]:
    """The least and the most pixels."""
    detail, where = wishes.get("detail", ("auto", ""))
    if detail not in _DETAILS:
        raise ValueError(f"{where} is {detail!r}, allowed are {', '.join(_DETAILS)}")
    sizes: dict[str, int | None] = {"min_pixels": None, "max_pixels": LOW_DETAIL_PIXELS if detail == "low" else None}
    for name in sizes:
        if name in wishes:
            value, where = wishes[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{where} must be a whole number of at least 1, not {value!r}")
            sizes[name] = value
    least, most = sizes["min_pixels"], sizes["max_pixels"]
    if least is not None and most is not None and least > most:
        raise ValueError(f"{where} contradicts: a picture cannot have at least {least} and at most {most} pixels")
    return least, most


def _parse_source(key: str, source: Any, where: str) -> PictureSource:
    if key == "image" and isinstance(source, (bytes, Path, Image.Image)):
        return source
    if key == "path" and isinstance(source, Path):
        return source
    if not isinstance(source, str):
        others = {"image": ", bytes, a Path or a PIL image", "path": " or a Path"}.get(key, "")
        raise ValueError(f"{where} must be a string{others}, not {type(source).__name__}")
    if not source:
        raise ValueError(f"{where} is empty")
    if key == "path":
        return Path(source)
    if key == "base64" and not source.lower().startswith("data:"):
        return f"data:;base64,{source}"
    return source
