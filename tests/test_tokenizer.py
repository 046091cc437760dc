"""Text to ids and back: what holds for any text and any ids, and what broken files say."""

from __future__ import annotations

import base64
import codecs
import json
import pickle
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kimi_vl.tokenizer import StreamDecoder, Tokenizer

GOLDEN = Path(__file__).parent / "golden"
MODEL = (GOLDEN / "tiny_tiktoken.model").read_bytes()
LINES = MODEL.splitlines(keepends=True)
TOKENIZER = Tokenizer(MODEL)
N = TOKENIZER.n_base

# Text that likes to look like structure, and every kind of character that UTF-8 can hold.
text = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from(["<|im_end|>", "<|media_pad|>", "[EOS]", "<|reserved_token_405|>", "<|", "|>", "\r\n", "  "]),
    )
).map("".join)
any_ids = st.lists(st.integers(0, TOKENIZER.vocab_size - 1))


@given(text)
@example("")
@example("\ufeffbyte order mark")
def test_text_comes_back(value: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(value)) == value


@given(text)
@example("".join(TOKENIZER.decode([i], skip_special=False) for i in range(N, TOKENIZER.vocab_size)))
def test_ordinary_text_is_never_a_special_token(value: str) -> None:
    assert all(token_id < N for token_id in TOKENIZER.encode(value))


@given(text)
def test_special_text_comes_back_with_its_names(value: str) -> None:
    ids = TOKENIZER.encode(value, allow_special=True)
    assert TOKENIZER.decode(ids, skip_special=False) == value
    names = re.findall(r"<\|im_end\|>|<\|media_pad\|>|\[EOS\]|<\|reserved_token_405\|>", value)
    assert sum(token_id >= N for token_id in ids) >= len(names)


def stream(ids: list[int], *, skip_special: bool = True) -> list[str]:
    decoder = StreamDecoder(TOKENIZER, skip_special=skip_special)
    return [*map(decoder.push, ids), decoder.flush()]


@given(any_ids, st.booleans())
@example([0xF0, 0x9F, N + 2, 0x99, 0x82], True)
@example([0xF0, 0x9F, N + 2, 0x99, 0x82], False)
@example([0xE0, 0x80, 0xED, 0xA0, 0x80, 0xF4, 0x90, 0xC0, 0xFF, 0xE4], True)
def test_a_stream_is_the_whole(ids: list[int], skip: bool) -> None:
    assert "".join(stream(ids, skip_special=skip)) == TOKENIZER.decode(ids, skip_special=skip)


@given(st.text())
@example("🙂👩‍👩‍👧 图 é")
def test_a_stream_of_good_text_never_shows_a_broken_character(value: str) -> None:
    pieces = stream(TOKENIZER.encode(value))
    assert "".join(pieces) == value
    assert "\ufffd" in value or "\ufffd" not in "".join(pieces[:-1])


def test_a_stream_holds_back_only_what_is_not_whole() -> None:
    assert stream([0x61, *"é".encode(), *"🙂".encode(), 0x62]) == ["a", "", "é", "", "", "", "🙂", "b", ""]
    assert stream([0x61, 0xF0, 0x9F]) == ["a", "", "", "\ufffd"]
    assert stream([0xF0, 0x61]) == ["", "\ufffda", ""]


def test_decode_of_special_tokens() -> None:
    ids = [TOKENIZER.im_user_id, *b"hi", TOKENIZER.im_end_id]
    assert TOKENIZER.decode(ids) == "hi"
    assert TOKENIZER.decode(range(N, TOKENIZER.vocab_size)) == ""
    assert TOKENIZER.decode(ids, skip_special=False) == "<|im_user|>hi<|im_end|>"


@pytest.mark.parametrize("bad", [-1, TOKENIZER.vocab_size, 163605])
def test_an_id_outside_the_vocabulary(bad: int) -> None:
    with pytest.raises(ValueError, match=f"token id {bad} is outside the vocabulary, 0 to 655"):
        TOKENIZER.decode([97, bad])
    with pytest.raises(ValueError, match=f"token id {bad} "):
        StreamDecoder(TOKENIZER).push(bad)


@pytest.mark.parametrize(
    ("broken", "read_as"),
    [
        ("\ud83d\ude42", "🙂"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude42\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude42", "\ufffd🙂"),
        ("\udfff", "\ufffd"),
        ("a" * 24_999 + "\ud83d\ude42", "a" * 24_999 + "🙂"),
    ],
)
@pytest.mark.parametrize("allow", [False, True])
def test_lone_surrogates(broken: str, read_as: str, allow: bool) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(broken, allow_special=allow)) == read_as


def test_named_ids() -> None:
    t = TOKENIZER
    chat = [t.im_end_id, t.im_user_id, t.im_assistant_id, t.im_system_id, t.im_middle_id]
    media = [t.media_start_id, t.media_content_id, t.media_end_id, t.media_pad_id]
    assert chat == [402, 403, 404, 410, 417]
    assert media == [418, 419, 420, 421]
    assert [t.bos_id, t.eos_id, t.unk_id, t.pad_id] == [400, 401, 654, 655]
    assert t.end_ids == (402, 401)
    assert t.vocab_size == 656
    assert t.decode([405, 653], skip_special=False) == "<|reserved_token_405|><|reserved_token_653|>"


# ---- long text ----------------------------------------------------------------


@pytest.mark.parametrize("unit", [" ", "a", "A", "a ", "\n", "图", "\u0301", "🙂", "1", "<|im_end|>"])
def test_a_megabyte_is_quick_and_comes_back(unit: str) -> None:
    value = unit * (1_000_000 // len(unit.encode()))
    start = time.perf_counter()
    ids = TOKENIZER.encode(value)
    assert time.perf_counter() - start < 5
    assert TOKENIZER.decode(ids) == value


def split_plainly(value: str) -> list[str]:
    """The official rule told one character at a time."""
    pieces: list[str] = []
    for start in range(0, len(value), 400_000):
        run, last = 0, None
        piece = ""
        for char in value[start : start + 400_000]:
            run = run + 1 if char.isspace() == last else 1
            last = char.isspace()
            if run > 25_000:
                pieces.append(piece)
                piece, run = "", 1
            piece += char
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    "value",
    [
        "the " * 6_250 + "the",
        "t" * 24_999 + "he",
        "the" * 8_333 + "t" + "he",
        "the" * 20_000,
        "x" + " " * 25_000 + "the",
        "x" + " " * 25_001 + "the",
        "the image " * 40_000 + "the" * 9_000,
        "a\u3000\u00a0\u2028" * 3 + "\u3000" * 50_001 + "b",
        "\u200b" * 25_001,
    ],
)
def test_long_text_is_cut_where_the_official_code_cuts_it(value: str) -> None:
    separately = [token_id for piece in split_plainly(value) for token_id in TOKENIZER.encode(piece)]
    assert TOKENIZER.encode(value) == separately


def test_the_cut_after_25000_characters_shows_in_the_ids() -> None:
    the = TOKENIZER.encode("the")
    assert len(the) == 1
    # 24,999 is a multiple of 3, so the cut at 25,000 falls after the t of a "the"
    assert TOKENIZER.encode("the" * 8_334) == [*the * 8_333, *TOKENIZER.encode("t"), *TOKENIZER.encode("he")]
    assert TOKENIZER.encode("the" * 8_333 + "t") == [*the * 8_333, *TOKENIZER.encode("t")]


def test_a_cut_never_falls_within_a_special_token() -> None:
    ids = TOKENIZER.encode("<|media_pad|>" * 40_000, allow_special=True)
    assert ids == [TOKENIZER.media_pad_id] * 40_000


# ---- files ----------------------------------------------------------------


def test_saved_and_read_again(tmp_path: Path) -> None:
    model = b"\n" + b"".join(reversed(LINES))
    first = Tokenizer(model, names={405: "<|tool|>"})
    first.save_pretrained(tmp_path / "new" / "folder")
    again = Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "tiktoken.model").read_bytes() == model
    assert again.encode("the<|tool|>", allow_special=True) == [*TOKENIZER.encode("the"), 405]
    config = json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "TikTokenTokenizer"
    assert config["auto_map"]["AutoTokenizer"] == [
        "moonshotai/Kimi-VL-A3B-Instruct--tokenization_moonshot.TikTokenTokenizer",
        None,
    ]
    assert [config[f"{name}_token"] for name in ("bos", "eos", "pad", "unk")] == [
        "[BOS]",
        "[EOS]",
        "[PAD]",
        "[UNK]",
    ]
    assert config["added_tokens_decoder"]["421"]["content"] == "<|media_pad|>"
    assert config["added_tokens_decoder"]["405"]["content"] == "<|tool|>"
    assert len(config["added_tokens_decoder"]) == 14


def test_a_folder_without_tokenizer_config_has_the_official_names(tmp_path: Path) -> None:
    (tmp_path / "tiktoken.model").write_bytes(MODEL)
    assert Tokenizer.from_pretrained(tmp_path).media_pad_id == 421


def test_it_travels_to_another_process() -> None:
    other = pickle.loads(pickle.dumps(TOKENIZER))
    assert other.encode("the image [PAD]", allow_special=True) == TOKENIZER.encode(
        "the image [PAD]", allow_special=True
    )


def line(token: bytes, rank: object) -> bytes:
    return base64.b64encode(token) + f" {rank}\n".encode()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"", "256 of the 256 single bytes"),
        (b"".join(LINES[1:]), "rank 0 is missing"),
        (b"".join(LINES[:300] + LINES[301:]), "rank 300 is missing"),
        (b"".join(LINES[:255]), r"1 of the 256 single bytes have no rank \(first b'\\xff'\)"),
        (MODEL + line(b"new", 399), "line 401: rank 399 is there twice"),
        (MODEL + line(b"a", 400), "line 401: token b'a' is there twice"),
        (MODEL + b"!!!! 400\n", "line 401: b'!!!!' is not base64"),
        (MODEL + b"YWE 400\n", "line 401: b'YWE' is not base64"),
        (MODEL + b"YWFh\n", "line 401: expected a base64 token"),
        (MODEL + b"YWFh 400 1\n", "line 401: expected a base64 token"),
        (MODEL + b"YWFh -1\n", "line 401: expected a base64 token"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:e9\nsize 28\n",
            "line 1: expected a base64",
        ),
    ],
)
def test_a_broken_model_file(model: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=f"tiktoken.model.*{says}"):
        Tokenizer(model)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({421: "<|media|>"}, "id 421 is '<|media|>', where Kimi-VL has '<|media_pad|>'"),
        ({405: "<|media_pad|>"}, "'<|media_pad|>' is the name of both 405 and 421"),
        ({405: "<|x|>", 406: "<|x|>"}, "'<|x|>' is the name of both 405 and 406"),
        ({399: "<|x|>"}, "'<|x|>' has id 399, outside the reserved ids 400 to 655"),
        ({656: "<|x|>"}, "'<|x|>' has id 656, outside the reserved ids 400 to 655"),
        ({405: ""}, "id 405 has an empty name"),
    ],
)
def test_added_tokens_that_do_not_fit(names: dict[int, str], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Tokenizer(MODEL, names=names)


def test_the_two_names_past_the_end_are_ignored() -> None:
    names = {656: "<|reserved_token_656|>", 657: "<|reserved_token_657|>"}
    assert Tokenizer(MODEL, names=names).vocab_size == 656


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tiktoken\.model is missing: copy"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"added_tokens_decoder": [1]}',
        '{"added_tokens_decoder": {"x": {"content": "y"}}}',
        '{"added_tokens_decoder": {"405": {}}}',
        '{"added_tokens_decoder": {"405": {"content": 1}}}',
        codecs.BOM_UTF16_LE.decode("latin-1"),
    ],
)
def test_a_broken_tokenizer_config(tmp_path: Path, config: str) -> None:
    (tmp_path / "tiktoken.model").write_bytes(MODEL)
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="latin-1")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: added_tokens_decoder must map"):
        Tokenizer.from_pretrained(tmp_path)
