"""nano's data: pure parts by example, the rest (drawn lines and scenes) where the downloads are."""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tiktoken
import torch
from PIL import Image

from recipes.nano import (
    captions,
    compose,
    evaluation,
    fonts,
    lines,
    packages,
    paper,
    questions,
    samples,
    scenes,
    sources,
    strings,
    text,
)
from recipes.nano.pictures import HELDOUT_STYLE, TRAINING_STYLES
from recipes.nano.sets import SMALL, here
from tests.nano import needs_data, needs_full_data

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "kimi_vl" / "nano" / "tiktoken.model"
Draw = Callable[[int, int, fonts.Split], scenes.SceneSample]
SCENES: tuple[Draw, ...] = (
    scenes.emoji_sample,
    scenes.counting_sample,
    scenes.colour_sample,
    scenes.side_sample,
)


@pytest.fixture
def small_book(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Two paragraphs in the place of the downloaded book."""
    found = (
        "The quick brown fox jumps over the lazy dog, twice.",
        "Numbers such as 42 are words; so is é.",
    )
    monkeypatch.setattr(strings, "book", lambda split: found)
    return found


# Text ---------------------------------------------------------------------------------------------------


def test_normalise_keeps_to_our_characters() -> None:
    assert text.normalise("a\u00a0b\n  c − d") == "a b c - d"
    assert text.normalise("“Naïve” — déjà vu…") == "“Naïve” — déjà vu…"
    assert text.normalise("漢字 and words") == ""
    assert len(set(text.CHARACTERS)) == len(text.CHARACTERS)


def test_html_gives_prose_and_code_apart() -> None:
    page = "<head><title>x</title></head><p>A <b>b</b> word.</p><pre>a = 1\nb = 2</pre><script>no()</script>"
    prose, code = text.html(page)
    assert [p for p in prose if p.strip()] == ["A b word."]
    assert code == ["a = 1", "b = 2"]


def test_pod_and_glosses_lose_their_markup() -> None:
    source = "=head1 NAME\n\nUse C<print> and L<the manual|perlfunc>; B<bold>.\n\n    code();\n\n=cut\n"
    assert text.pod(source) == ["NAME", "Use print and the manual; bold."]
    assert text.glosses("  1 licence\n0 n 01 dog 0 | a tame animal\n") == ["a tame animal"]


def test_paragraphs_are_of_a_useful_length() -> None:
    found = text.paragraphs(["short", "x" * 2000, "Long enough to be of use.¶"])
    assert list(found) == ["Long enough to be of use."]


@pytest.mark.parametrize("kind", [kind for kind in strings.KINDS if kind != "cut"])
def test_made_lines_are_drawable(kind: str, small_book: tuple[str, ...]) -> None:
    for seed in range(200):
        line = strings._MAKERS[kind](Random(seed))
        assert line
        assert line == " ".join(line.split())
        assert set(line) <= set(text.CHARACTERS)


def test_some_lines_say_their_words_again(small_book: tuple[str, ...]) -> None:
    lines = [strings._MAKERS["again"](Random(seed)) for seed in range(200)]
    words = [re.findall(r"\w+", line) for line in lines]
    assert sum(len(set(found)) < len(found) for found in words) > 120
    assert sum(len(line) > 60 for line in lines) > 40


def test_technical_lines_hold_what_cannot_be_guessed(small_book: tuple[str, ...]) -> None:
    """Names out of programs, numbers of sections, names of people, and what looks alike but for one stroke."""
    lines = [strings._MAKERS["technical"](Random(seed)) for seed in range(400)]
    shares = {
        pattern: sum(re.search(pattern, line) is not None for line in lines) / len(lines)
        for pattern in (
            r"[a-z]_[a-z]",
            r"\d\.\d",
            r"\([A-Z][a-z]+ [A-Z][a-z]+",
            r"[a-z]'",
            r"[a-z]’",
            r"``.*''",
            r"\b[A-Z]{4}",
        )
    }
    assert all(share > 0.01 for share in shares.values()), shares
    known = {word for paragraph in small_book for word in paragraph.split()}
    assert sum(not known.issuperset(line.split()) for line in lines) > 0.95 * len(lines)
    assert sum(len(line) > 60 for line in lines) > 15


def test_lines_are_cut_at_words_and_repeat_with_the_seed(small_book: tuple[str, ...]) -> None:
    for seed in range(200):
        line = strings.line_text(Random(seed), "heldout", 48)
        assert 0 < len(line) <= 48
        assert any(f" {line} " in f" {paragraph} " for paragraph in small_book)
        assert strings.line_text(Random(seed), "train", 48) == strings.line_text(Random(seed), "train", 48)


# Fonts --------------------------------------------------------------------------------------------------


def test_heldout_fonts_and_their_kin_are_not_trained_on() -> None:
    assert len(set(fonts.HELDOUT_FAMILIES)) == 10
    kin = (*fonts.HELDOUT_FAMILIES, "dm-", "public-sans")
    assert not [name for name in fonts.TRAINING_FAMILIES if name.startswith(kin)]


def test_woff_is_unpacked_to_the_tables_it_holds() -> None:
    tables = {b"cmap": b"plain", b"glyf": b"packed " * 30}
    packed = {b"cmap": tables[b"cmap"], b"glyf": zlib.compress(tables[b"glyf"])}
    directory, body = b"", b""
    for tag, data in packed.items():
        directory += struct.pack(">4sIIII", tag, 84 + len(body), len(data), len(tables[tag]), 7)
        body += data + bytes(-len(data) % 4)
    woff = struct.pack(">4s4sIHH28x", b"wOFF", b"\0\1\0\0", 84 + len(body), 2, 0) + directory + body
    font = fonts.woff_to_sfnt(woff)
    assert font[:12] == struct.pack(">4sHHHH", b"\0\1\0\0", 2, 32, 1, 0)
    for tag, _, start, length in struct.iter_unpack(">4sIII", font[12:44]):
        assert font[start : start + length] == tables[tag]
        assert start % 4 == 0
    with pytest.raises(ValueError, match="not a WOFF"):
        fonts.woff_to_sfnt(b"OTTO" + bytes(80))


# Names --------------------------------------------------------------------------------------------------


def test_clipart_captions_lose_artist_and_number_and_refuse_foreign_words() -> None:
    english = {"crazy", "monkey", "car", "ride", "ape", "berry"}
    caption = captions.clipart_caption
    assert caption("animals/crazy_monkey_shandy_brow_01.svg", ["Shandy Brown"], english) == "crazy monkey"
    assert caption("people/car_ride_ganson.svg", ["Gerald G. Ganson"], english) == "car ride"
    assert caption("food/berries-2.svg", [], english) == "berries"
    assert caption("unsorted/ape_miele.svg", [], english) == ""
    assert caption("shapes/stars/monkey.svg", [], english) == ""


def test_emoji_names() -> None:
    assert captions.concept_name("flag: Côte d’Ivoire") == "flag of cote d'ivoire"
    assert captions.concept_name("Japanese “free of charge” button") == "japanese free of charge button"
    assert captions.key("Hot dog") == captions.key("hotdog")
    variants = ("woman running", "man: beard", "family: man, boy", "keycap: 3", "boy: dark skin tone")
    assert all(map(captions.is_variant, variants))
    assert not any(map(captions.is_variant, ("man", "person running", "mango", "woman dancing")))


def test_plurals() -> None:
    singular = ("star", "fox", "strawberry", "monkey", "mouse", "kitchen knife", "bus", "paw prints")
    plural = [
        "stars",
        "foxes",
        "strawberries",
        "monkeys",
        "mice",
        "kitchen knives",
        "buses",
        "paw prints",
    ]
    assert [questions.plural(name) for name in singular] == plural


def test_evaluation_names_are_two_hundred_different_things() -> None:
    assert len(evaluation.EVAL_NAMES) == len(set(evaluation.EVAL_NAMES)) == 200
    assert sum(evaluation.QUOTA.values()) == 200
    assert all(map(captions.is_thing, evaluation.EVAL_NAMES))
    assert scenes.EVAL_NAMES is evaluation.EVAL_NAMES
    assert HELDOUT_STYLE not in TRAINING_STYLES


# Pictures -----------------------------------------------------------------------------------------------


def test_paper_and_pen_differ_in_light() -> None:
    for seed in range(500):
        of_paper, of_pen = paper.paper_and_pen(Random(seed))
        assert abs(paper.luminance(of_paper) - paper.luminance(of_pen)) > 90


@pytest.mark.parametrize("name", questions.SHAPES)
def test_shapes_are_of_their_colour_and_fill_their_square(name: str) -> None:
    drawing = compose.shape(Random(0), name, (200, 30, 40), 40)
    assert drawing.size == (40, 40)
    assert drawing.getpixel((20, 39)) is not None
    cover = np.asarray(drawing)[..., 3]
    assert 0.15 < (cover > 128).mean() <= 1
    assert (np.asarray(drawing)[..., :3] == (200, 30, 40)).all()


def test_a_colour_question_is_answered_by_the_pixels() -> None:
    for index in range(60):
        sample = scenes.colour_sample(3, index, "heldout")
        assert _same(sample.image, scenes.colour_sample(3, index, "heldout").image)
        asked_colour = sample.question.startswith("What colour")
        assert sample.answer in (questions.COLOURS if asked_colour else questions.SHAPES)
        colour = sample.answer if asked_colour else sample.question.split(" is ")[1].rstrip("?")
        far = np.abs(np.asarray(sample.image, np.int32) - questions.COLOURS[colour]).max(-1)
        assert (far < 40).mean() > 0.04, f"{index}: little {colour} to be seen"


# The tokenizer ------------------------------------------------------------------------------------------


def _ranks() -> dict[bytes, int]:
    rows = (line.split() for line in TOKENIZER.read_text().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in rows}


def _pattern() -> str:
    golden = json.loads((HERE / "golden" / "io_golden.json").read_text())
    return str(golden["tokenizer"]["pat_str"])


@pytest.mark.skipif(not TOKENIZER.exists(), reason="nano's tokenizer is made by python -m recipes.nano.bpe")
def test_the_tokenizer_has_3840_ranks_bytes_first_and_gives_text_back() -> None:
    ranks = _ranks()
    assert list(ranks.values()) == list(range(3840))
    assert list(ranks)[:256] == [bytes([byte]) for byte in range(256)]
    encoding = tiktoken.Encoding("nano", pat_str=_pattern(), mergeable_ranks=ranks, special_tokens={})
    for sample in ("What is this?", "naïve — “déjà vu” 漢字 🦊", "if x != 3:\n    return", text.CHARACTERS):
        assert encoding.decode(encoding.encode_ordinary(sample)) == sample
    assert len(encoding.encode_ordinary("How many stars are there?")) <= 7


def test_each_digit_is_a_token_of_its_own() -> None:
    assert not [token for token in _ranks() if sum(48 <= byte < 58 for byte in token) > 1]


def test_merges_are_learned_in_rank_order() -> None:
    pytest.importorskip("tokenizers", reason="training a tokenizer needs the train extra")
    from recipes.nano import bpe

    assert _pattern() == bpe.PATTERN
    tokens = bpe.train(["the cat and the hat 1212"] * 20, ranks=262)
    assert tokens[:256] == [bytes([byte]) for byte in range(256)]
    assert b"the" in tokens[256:]
    assert b"12" not in tokens
    assert bpe.check(tokens, ["the cat", "é漢"]) > 0


# With the downloads -------------------------------------------------------------------------------------


def _same(left: Image.Image, right: Image.Image) -> bool:
    return left.size == right.size and left.tobytes() == right.tobytes()


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_lines_repeat_and_keep_their_size(split: fonts.Split) -> None:
    from recipes.nano.lines import WIDEST, line_sample

    found = [line_sample(5, index, split) for index in range(200)]
    again = [line_sample(5, index, split) for index in reversed(range(200))][::-1]
    for one, other in zip(found, again, strict=True):
        assert one.text == other.text
        assert _same(one.image, other.image)
        assert set(one.text) <= set(text.CHARACTERS)
        assert one.image.mode == "RGB"
        assert one.image.height <= 56
        assert one.image.width <= WIDEST
        assert np.asarray(one.image).std() > 3
    assert 0.5 < sum(one.image.height <= 28 for one in found) / len(found) < 0.8


@needs_data
def test_a_pair_is_a_picture_and_then_its_caption() -> None:
    for index in range(20):
        line = lines.line_sample(3, index, "train")
        pair = sources.paired_line(3, index)
        marks = [i for i, learned in enumerate(pair.answer_mask.tolist()) if not learned]
        picture, caption = pair.input_ids[: len(marks)].tolist(), pair.input_ids[len(marks) :].tolist()
        assert marks == list(range(len(marks)))
        tokenizer = samples.tokenizer()
        assert caption == [*tokenizer.encode(line.text), tokenizer.eos_id]
        assert picture.count(tokenizer.media_pad_id) == pair.image_grid_hws.prod() // 4
        assert (picture[0], picture[-1]) == (tokenizer.media_start_id, tokenizer.media_end_id)
        captioned = sources.captioned_line(3, index)
        assert pair.written == line.text
        if len(line.text) <= samples.SHORT_LINE:
            assert pair.pixels is not None and captioned.pixels is not None
            assert torch.equal(pair.pixels, captioned.pixels)


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize(
    "draw",
    [*SCENES, pytest.param(scenes.clipart_sample, marks=needs_full_data)],
    ids=["emoji", "counting", "colour", "side", "clipart"],
)
def test_scenes_repeat_and_are_multiples_of_28(draw: Draw, split: fonts.Split) -> None:
    for index in range(40):
        sample, again = draw(5, index, split), draw(5, index, split)
        assert _same(sample.image, again.image)
        assert (sample.question, sample.answer) == (again.question, again.answer)
        assert sample.image.mode == "RGB"
        assert not any(side % 28 for side in sample.image.size)
        assert sample.answer
        assert "{" not in sample.question


@needs_full_data
def test_the_rule_still_picks_the_evaluation_names_and_they_are_drawn() -> None:
    assert evaluation.choose_eval_names() == evaluation.EVAL_NAMES
    for name in evaluation.EVAL_NAMES:
        image = scenes.heldout_emoji(name)
        assert image.size == (84, 84)
        assert np.asarray(image).std() > 5
    with pytest.raises(ValueError, match="no such thing"):
        scenes.heldout_emoji("no such thing")


@needs_data
def test_heldout_styles_names_and_book_are_apart() -> None:
    from recipes.nano.text import book

    assert not {card.style for card in scenes._deck("heldout").cards} & set(TRAINING_STYLES)
    trained = {card.name for card in scenes._drawings("train")}
    assert not trained & {card.name for card in scenes._drawings("heldout")}
    # A few phrases ("For example:") stand in every manual.
    shared = set(book("train")) & set(book("heldout"))
    assert sum(map(len, shared)) < 0.02 * sum(map(len, book("heldout")))


DRAW_ALL = """
import sys
from pathlib import Path
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train.recipe import read_recipe
from kimi_vl.train.sources import exams_of, mixture_of
from kimi_vl.train.stages.joint import STAGE
recipe = read_recipe(Path(sys.argv[1]) / "joint.toml")
mixture = mixture_of(recipe, STAGE, KimiVLProcessor.from_pretrained("nano"))
print(sum(len(source.draw(0, 1).input_ids) > 0 for source in mixture.sources), len(mixture.sources))
print(sum(len(exam.questions) for exam in exams_of(recipe)), len(recipe.exams))
"""


@pytest.mark.skipif(here() is not SMALL, reason="of the small set, for the full one takes minutes to pack")
@needs_data
def test_what_is_packed_is_enough_to_train_and_to_be_examined(tmp_path: Path) -> None:
    """On a machine that fetches nothing: every source and exam of the joint stage, from the packed file alone."""

    def run(*command: str, data: Path) -> str:
        environment = os.environ | {"NANO_DATA": str(data)}
        return subprocess.run(
            [sys.executable, *command], env=environment, check=True, cwd=HERE.parent, stdout=subprocess.PIPE, text=True
        ).stdout

    packed, elsewhere = tmp_path / "nano.tar.xz", tmp_path / "data"
    run("-m", "recipes.nano.pack", str(packed), data=packages.DATA)
    run("-m", "recipes.nano.pack", "-x", str(packed), data=elsewhere)
    run("-m", "recipes.nano.smoke", str(tmp_path / "recipes"), data=elsewhere)
    (drawn, sources), (asked, exams) = (
        map(int, line.split()) for line in run("-c", DRAW_ALL, str(tmp_path / "recipes"), data=elsewhere).splitlines()
    )
    assert drawn == sources > 10
    assert asked == 2 * exams > 10
