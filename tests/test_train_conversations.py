"""A user's own file: both shapes are one, faults have lines, an epoch is an order, and a cut loses no half pictures."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kimi_vl.chat import DEFAULT_SYSTEM_PROMPT, Message, PicturePart, TextPart
from kimi_vl.patches import normalised
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train.data.conversations import Conversations, check, place_in_epoch, sample_of
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample, pack
from kimi_vl.train.loop import Schedule, train
from tests.conftest import random_model
from tests.training import TINY, logged, pupil_of

Turns = list[tuple[str, str, int]]  # who speaks, what, and how many pictures before it

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
WORDS = PROCESSOR.tokenizer
LONG = 10_000  # tokens
# Width and height, and tokens at 16 x 16 pixels each.
PICTURES = {"a.png": (16, 16), "b.png": (40, 20), "c.png": (60, 10)}
TOKENS = {"a.png": 1, "b.png": 6, "c.png": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed, (name, (width, height)) in enumerate(PICTURES.items()):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    return folder


def asked(question: str = "Why?", answer: str = "So.", **beside: Any) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}], **beside}


def written(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def only(folder: Path, line: dict[str, Any]) -> Sample:
    return Conversations(written(folder, line), PROCESSOR, context=LONG).draw(0, 0)


def same(one: Sample, other: Sample) -> bool:
    pixels = (one.pixels is None and other.pixels is None) or (
        one.pixels is not None and other.pixels is not None and torch.equal(one.pixels, other.pixels)
    )
    names = ("input_ids", "answer_mask", "image_grid_hws")
    return pixels and all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def learnt(sample: Sample) -> str:
    return WORDS.decode(sample.input_ids[sample.answer_mask].tolist(), skip_special=False)


# --- shapes ----------------------------------------------------------------------------------------------------


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_all_shapes_of_one_conversation_give_one_sample(folder: Path) -> None:
    text = {"type": "text", "text": "Which is larger?"}
    said = [
        ("human", "<image>\n<image>\nWhich is larger?"),
        ("gpt", "The second."),
        ("human", "Sure?"),
        ("gpt", "Yes."),
    ]
    rest: list[dict[str, Any]] = [
        {"role": "assistant", "content": "The second."},
        {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]
    turns = [{"from": who, "value": what} for who, what in said]
    names = {"human": "user", "gpt": "assistant"}
    a, b = folder / "a.png", folder / "b.png"
    shapes: list[dict[str, Any]] = [
        {"image": ["a.png", "b.png"], "conversations": turns},
        {"images": [str(a), data_url(b)], "conversations": turns, "id": 7},
        {"images": ["a.png", "b.png"], "conversations": [{**turn, "from": names[turn["from"]]} for turn in turns]},
        {"images": ["a.png", "b.png"], "messages": [{"role": "user", "content": said[0][1]}, *rest]},
        {"messages": [{"role": "user", "content": [picture("a.png"), picture(data_url(b)), text]}, *rest]},
        {
            "system": DEFAULT_SYSTEM_PROMPT,
            "image": None,
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "a.png"}, picture(str(b)), text]},
                *rest,
            ],
        },
    ]
    shown = [picture(data_url(a)), picture(data_url(b)), text]
    expected = PROCESSOR([{"role": "user", "content": shown}, *rest], add_generation_prompt=False)
    for shape in shapes:
        sample = only(folder, shape)
        assert torch.equal(sample.input_ids, expected.input_ids)
        assert torch.equal(sample.answer_mask, expected.answer_mask)
        assert torch.equal(sample.image_grid_hws, expected.image_grid_hws)
        assert sample.pixels is not None and expected.pixel_values is not None
        assert sample.pixels.dtype == torch.uint8
        assert torch.equal(normalised(sample.pixels, PROCESSOR.image_config), expected.pixel_values)
        assert learnt(sample) == "The second.<|im_end|>Yes.<|im_end|>"


@pytest.mark.parametrize("marked", ["<image>\nWhat is it?", "<image>What is it?", "What is it?\n<image>"])
def test_a_mark_takes_its_line_with_it(folder: Path, marked: str) -> None:
    text = WORDS.decode(only(folder, asked(marked, image="a.png")).input_ids.tolist(), skip_special=False)
    picture = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
    assert ("What is it?" + picture if marked.endswith(">") else picture + "What is it?") + "<|im_end|>" in text


def test_marks_in_what_is_said_are_words(folder: Path) -> None:
    sample = only(folder, asked("<image>\nWrite HTML. <|media_pad|>", "<image>", image="a.png"))
    assert learnt(sample) == "<image><|im_end|>"
    assert int((sample.input_ids == WORDS.media_pad_id).sum()) == 1


def test_systems_stand_beside_or_first(folder: Path) -> None:
    first = asked()
    first["conversations"].insert(0, {"from": "system", "value": "Be short."})
    assert same(only(folder, asked(system="Be short.")), only(folder, first))


def test_wishes_for_a_size_are_kept(folder: Path) -> None:
    part = {"type": "image", "image": "a.png", "min_pixels": 32 * 32}
    said = [{"role": "user", "content": [part]}, {"role": "assistant", "content": "Noise."}]
    path = written(folder, {"messages": said})
    sample = Conversations(path, PROCESSOR, context=LONG).draw(0, 0)
    assert sample.image_grid_hws.tolist() == [[4, 4]]
    assert check(path, PROCESSOR, context=LONG).tokens == len(sample.input_ids)


def test_pictures_must_be_as_many_as_their_places() -> None:
    messages = [Message("user", (PicturePart(b""), TextPart("?"))), Message("assistant", (TextPart("!"),))]
    with pytest.raises(ValueError, match="shows 1 pictures, but 0 are given"):
        sample_of(messages, [], PROCESSOR)


# --- faults ----------------------------------------------------------------------------------------------------

FAULTS: dict[str, dict[str, Any] | str] = {
    "is not JSON: Expecting value at character 14": '{"messages": ]}',
    "is nested too deep": '{"a":' * 100_000,
    "must hold a mapping, one sample a line, not str": '"words"',
    "has neither messages nor conversations": {"text": "words"},
    "has both messages and conversations": asked(messages=[]),
    "has both image and images": asked(image="a.png", images=["a.png"]),
    "image must be a path or data URL, or a list of them": asked(image=[{"path": "a.png"}]),
    "system must be text, not int": asked(system=3),
    "conversations must be a list of turns": {"conversations": "words"},
    "messages is empty": {"messages": []},
    r"conversations\[0\].from is 'tool', allowed are human": {"conversations": [{"from": "tool", "value": ""}]},
    r"conversations\[0\].value must be text, not NoneType": {"conversations": [{"from": "human"}]},
    r"messages\[0\].role is 'tool', allowed are system": {"messages": [{"role": "tool", "content": ""}]},
    r"messages\[0\].tool_calls cannot be learnt": {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
    "has no answer: at least one turn": asked(answer=" "),
    "has 1 <image> marks for 2 pictures": asked("<image>", image=["a.png", "b.png"]),
    "has 1 <image> marks for 0 pictures": asked("<image>"),
    "has 0 <image> marks for 1 pictures": asked(image="a.png"),
    # (H17)
    "has video, but only pictures are learnt from: give a video as frames": asked(video="a.mp4"),
    "has <video>, but only pictures are learnt from": asked("<video>\nWhat is it?"),
    r"messages\[0\].content\[0\] is of type 'video'": {
        "messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]
    },
    "picture 2 of 2: .*none.png: no such file": asked("<image><image>", images=["a.png", "none.png"]),
    "picture 1 of 1: .*data.jsonl: is no picture in a known format": asked("<image>", image="data.jsonl"),
    "https://example.com/a.png' is not fetched: download the picture": asked(
        "<image>", image="https://example.com/a.png"
    ),
    "picture 1 of 1: data URL: PNG cannot be read": asked("<image>", image="data:;base64,iVBORw0KGgo="),
    "holds a file, but only pictures are learnt from": {
        "messages": [
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "JVBERg"}}]},
            {"role": "assistant", "content": "Yes"},
        ]
    },
}


@pytest.mark.parametrize("told", FAULTS)
def test_a_fault_is_told_with_its_line(folder: Path, told: str) -> None:
    path = written(folder, asked(), "", FAULTS[told], asked())
    with pytest.raises(ValueError, match=rf"data\.jsonl:3: .*{told}") as caught:
        check(path, PROCESSOR, context=LONG)
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_not_utf_8_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(asked()).encode() + b'\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match=r":2: is not UTF-8 \(byte 11 of the line\)"):
        check(path, PROCESSOR, context=LONG)


def test_all_faults_are_told_at_once_up_to_twenty(tmp_path: Path) -> None:
    path = written(tmp_path, *["words"] * 23, asked())
    with pytest.raises(ValueError, match="and 3 more") as caught:
        Conversations(path, PROCESSOR, context=LONG)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"{path}:{number}" for number in range(1, 21)]


def test_a_file_without_conversations_is_refused(tmp_path: Path) -> None:
    cases = {"no such file": tmp_path / "none.jsonl", "is no file": tmp_path}
    for told, path in cases.items():
        with pytest.raises(ValueError, match=told):
            check(path, PROCESSOR, context=LONG)
    for told, text in {"holds no conversation": "\n\n", "is one JSON list": '[{"messages": 1}]'}.items():
        with pytest.raises(ValueError, match=told):
            check(written(tmp_path, text), PROCESSOR, context=LONG)
    with pytest.raises(ValueError, match="context must be at least 1"):
        check(written(tmp_path, asked()), PROCESSOR, context=0)


def test_a_file_cut_short_or_with_a_mark_of_its_encoding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(asked()).encode() + b"\r\n" + json.dumps(asked("And?")).encode())
    data = Conversations(path, PROCESSOR, context=LONG)
    assert len(data) == 2 and not same(data.draw(0, 0), data.draw(0, 1))


def test_a_picture_that_ends_too_soon_is_found_when_all_of_it_is_asked_for(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    path = written(tmp_path, asked("<image>", image="half.png"))
    assert check(path, PROCESSOR, context=LONG).pictures == 1
    with pytest.raises(ValueError, match=r"data.jsonl:1: picture 1 of 1: .*half.png: PNG cannot be read"):
        check(path, PROCESSOR, context=LONG, whole=True)
    with pytest.raises(ValueError, match=r"data.jsonl:1: .*half.png: PNG cannot be read"):
        Conversations(path, PROCESSOR, context=LONG).draw(0, 0)


def test_what_changes_after_the_check_is_noticed(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    shown = asked("<image>", image="a.png")
    tokens = check(written(tmp_path, shown), PROCESSOR, context=LONG).tokens
    data = Conversations(written(tmp_path, shown), PROCESSOR, context=tokens)
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"data.jsonl:1: has {tokens + 1} tokens, over the context of {tokens}"):
        data.draw(0, 0)
    written(tmp_path, asked())
    with pytest.raises(ValueError, match=r"data\.jsonl:1: is no longer the line that was checked"):
        data.draw(0, 0)


# --- order -----------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 300), key=st.text(max_size=3))
@settings(max_examples=40)
def test_an_order_is_a_permutation(count: int, key: str) -> None:
    assert sorted(place_in_epoch(place, count, key) for place in range(count)) == list(range(count))


def test_orders_look_drawn() -> None:
    """Each of a few stands at each place about as often, and neighbours do not stay neighbours."""
    for count in (2, 3, 7):
        firsts = Counter(place_in_epoch(0, count, str(key)) for key in range(700))
        assert max(abs(firsts[i] - 700 / count) for i in range(count)) < 5 * (700 / count) ** 0.5
    order = [place_in_epoch(place, 5000, "1") for place in range(1000)]
    assert sum(abs(one - other) == 1 for one, other in pairwise(order)) < 5
    assert abs(np.mean(order) - 2500) < 250


def test_each_epoch_is_all_of_them_in_a_new_order_that_comes_again(tmp_path: Path) -> None:
    path = written(tmp_path, *(asked(answer=f"Number {i}.") for i in range(12)))
    data, again = (Conversations(path, PROCESSOR, context=LONG) for _ in range(2))
    epochs = [[learnt(data.draw(5, epoch * 12 + place)) for place in range(12)] for epoch in range(3)]
    assert len(data) == 12
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 12 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert [learnt(again.draw(5, place)) for place in reversed(range(12))] == epochs[0][::-1]
    assert [learnt(data.draw(6, place)) for place in range(12)] != epochs[0]


def test_other_processes_draw_the_same(folder: Path) -> None:
    lines = [asked(f"{'<image>' * (i % 3)}{i}", f"{i}.", images=["a.png", "b.png"][: i % 3]) for i in range(7)]
    data = Conversations(written(folder, *lines), PROCESSOR, context=LONG)
    mixture = Mixture([Source("own", 1.0, data.draw)], seed=1, batch_size=4)
    here, there = ([b.input_ids for (b,) in mixture.batches(0, 6, workers=n)] for n in (0, 2))
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


# --- the context -----------------------------------------------------------------------------------------------


def lines_of(turns: Turns) -> dict[str, Any]:
    names = iter(list(PICTURES) * 9)
    said = []
    for who, text, pictures in turns:
        parts = [{"type": "image", "image": next(names)} for _ in range(pictures)]
        said.append({"role": who, "content": [*parts, {"type": "text", "text": text}]})
    return {"messages": said}


def test_turns_are_dropped_from_the_end(folder: Path) -> None:
    """(H4, H5) A context of exactly one, two and three exchanges, and one token less each."""
    turns: Turns = [("user", "One?", 1), ("assistant", "A.", 0), ("user", "Two?", 2), ("assistant", "B.", 0)]
    turns += [("user", "Three?", 0), ("assistant", "C.", 0), ("user", "Thanks.", 1)]
    lengths = [len(only(folder, lines_of(turns[:end])).input_ids) for end in (2, 4, 6, 7)]
    short = len(only(folder, asked("?", "!")).input_ids)
    assert short < lengths[0] - 1
    path = written(folder, lines_of(turns), asked("?", "!"))
    kept = {lengths[0] - 1: 0, lengths[0]: 1, lengths[1] - 1: 1, lengths[1]: 2, lengths[2] - 1: 2, lengths[2]: 3}
    kept[lengths[3] - 1] = 3
    for context, exchanges in kept.items():
        data = Conversations(path, PROCESSOR, context=context)
        assert data.counts() == {"cut": int(exchanges > 0), "dropped": int(exchanges == 0)}
        assert data.report.longest == lengths[3]
        drawn = [data.draw(1, i) for i in range(len(data))]
        expected = ["!<|im_end|>", "".join(f"{letter}.<|im_end|>" for letter in "ABC"[:exchanges])]
        assert all(sample.answer_mask[-1] for sample in drawn)
        assert sorted(map(learnt, drawn)) == sorted(filter(None, expected))
        assert data.report.tokens == sum(len(sample.input_ids) for sample in drawn)
        assert data.report.answers == sum(int(sample.answer_mask.sum()) for sample in drawn)
        assert data.report.pictures == sum(len(sample.image_grid_hws) for sample in drawn) == (0, 1, 3, 3)[exchanges]
    assert Conversations(path, PROCESSOR, context=lengths[3]).counts() == {"cut": 0, "dropped": 0}
    with pytest.raises(
        ValueError, match=f"none of its 2 .* context of {short - 1} tokens, the longest has {lengths[3]}"
    ):
        check(path, PROCESSOR, context=short - 1)


speech = st.text("ab <>|\n", max_size=12)
turn = st.tuples(st.sampled_from(["user", "assistant", "system"]), speech, st.integers(0, 2))


@given(conversations=st.lists(st.lists(turn, max_size=6), max_size=3), context=st.integers(24, 120))
@settings(max_examples=60, deadline=None)
def test_a_cut_keeps_pictures_whole_and_answers_all(folder: Path, conversations: list[Turns], context: int) -> None:
    full = [[*turns, ("assistant", f"End {number}.", 0)] for number, turns in enumerate(conversations)]
    full.append([("user", "", 0), ("assistant", "z", 0)])
    data = Conversations(written(folder, *map(lines_of, full)), PROCESSOR, context=context)
    drawn = [data.draw(0, index) for index in range(len(data))]
    assert len(data) + data.counts()["dropped"] == len(full)
    whole = 0
    for sample in drawn:
        ids = sample.input_ids
        assert len(ids) <= context and sample.answer_mask.any()
        patches = 0 if sample.pixels is None else len(sample.pixels)
        assert patches == int(sample.image_grid_hws.prod(1).sum()) == 4 * int((ids == WORDS.media_pad_id).sum())
        starts = int((ids == WORDS.media_start_id).sum())
        assert starts == int((ids == WORDS.media_end_id).sum()) == len(sample.image_grid_hws)
        assert not sample.answer_mask[ids == WORDS.media_pad_id].any()
        assert ids[-1] == WORDS.im_end_id
        said = learnt(sample).split("<|im_end|>")
        begins = [[t for who, t, _ in turns if who == "assistant"] for turns in full]
        assert any(said == [*answers[: len(said) - 1], ""] for answers in begins)
        whole += any(said == [*answers, ""] for answers in begins)
    assert whole >= len(data) - data.counts()["cut"]


# --- learning --------------------------------------------------------------------------------------------------


def test_words_and_one_and_several_pictures_are_learnt_together(folder: Path, tmp_path: Path) -> None:
    path = written(
        folder,
        asked("Say a.", "a"),
        asked("<image>\nWhich?", "b", image="b.png"),
        asked("<image>\n<image>\nWhich?", "c", images=["a.png", "c.png"]),
    )
    data = Conversations(path, PROCESSOR, context=LONG)
    batch = pack([data.draw(0, index) for index in range(3)])
    assert batch.pixels is not None and len(batch.pixels) == 4 * sum(TOKENS.values())
    assert WORDS.decode(batch.targets[batch.seen].tolist()).replace(" ", "") in {
        "".join(order) for order in ("abc", "acb", "bac", "bca", "cab", "cba")
    }
    config = replace(
        TINY,
        text_config=replace(TINY.text_config, vocab_size=WORDS.vocab_size, pad_token_id=WORDS.vocab_size - 1),
        vision_config=replace(TINY.vision_config, patch_size=PROCESSOR.image_config.patch_size),
        media_placeholder_token_id=WORDS.media_pad_id,
    )
    pupil = pupil_of(random_model(config=config, std=0.05))
    mixture = Mixture([Source("own", 1.0, data.draw)], seed=1, batch_size=3)
    train(pupil, mixture, Schedule(steps=30, peak=1e-2, warmup=2), tmp_path, workers=0)
    losses = [line["text"] for line in logged(tmp_path)]
    assert losses[-1] < 0.3 * losses[0]
