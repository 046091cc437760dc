"""What a model answers while it learns: asked at every save, beside a run that does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kimi_vl.generate import generate
from kimi_vl.hub import NANO
from kimi_vl.patches import normalised
from kimi_vl.sampling import Sampler, SamplingParams
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.watching.examining import Exam, Question, share_right
from kimi_vl.train.watching.report import report
from kimi_vl.train.watching.showing import Showing
from kimi_vl.train.watching.watched import read_stage
from tests.conftest import random_model
from tests.training import NO_PICTURES, PLACEHOLDER, TINY, logged, noise, pupil_of, words

TOKENIZER = Tokenizer.from_pretrained(NANO)


def coloured(level: int) -> Sample:
    """A picture of one brightness, asked about twice."""
    pixels = noise(level, 8)
    pixels[:4] = level
    ids = torch.tensor([PLACEHOLDER, PLACEHOLDER, 40, 41, 42, 43, 44, 45])
    mask = torch.tensor([0, 0, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    return Sample(ids, mask, pixels, torch.tensor([[2, 4]]))


def judged(sample: Sample) -> Question:
    wanted = TOKENIZER.decode(sample.input_ids[sample.answer_mask].tolist()).strip()
    return Question(sample, lambda text: text == wanted)


def run(folder: Path, steps: int, *, shown: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    data = Mixture([Source("all", 1.0, lambda seed, index: words(6, index, 2))], seed=1, batch_size=2)
    pupil = pupil_of(random_model(config=TINY))
    show = None
    if shown:
        text = Sample(torch.arange(10), torch.ones(10, dtype=torch.bool), None, NO_PICTURES)
        exam = Exam("words", [judged(words(6, index, 2)) for index in range(8)])
        show = Showing(folder, [coloured(99), text, words(4, 1, 0)][:shown], TOKENIZER, PLACEHOLDER, [exam])
    train(pupil, data, Schedule(steps, peak=1e-3, warmup=1, save_every=2), folder, workers=0, show=show)
    return logged(folder)


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_run_that_is_asked_goes_the_same_way(tmp_path: Path) -> None:
    """(J7)"""
    asked = run(tmp_path / "asked", 5, shown=3)
    exams = {line["step"]: line.pop("right: words") for line in asked if "right: words" in line}
    assert asked == run(tmp_path / "unasked", 5, shown=0)
    assert exams.keys() == {2, 4, 5}
    assert not (tmp_path / "unasked" / "samples.jsonl").exists()


def test_every_save_has_its_answers(tmp_path: Path) -> None:
    run(tmp_path, 5, shown=3)
    lines = told(tmp_path)
    assert [line["step"] for line in lines] == [2, 2, 4, 4, 5, 5]  # the third has no answer to wait for
    picture, text = lines[:2]
    decode = TOKENIZER.decode
    assert picture["wanted"] == decode([41, 42]).strip()
    assert picture["question"].endswith(decode([40]).strip())
    assert text["question"] == decode(range(5)).strip() and text["wanted"] == decode(range(5, 10)).strip()
    (name,) = picture["pictures"]
    shown = np.array(Image.open(tmp_path / name))
    assert shown.shape == (28, 56, 3)
    patches = coloured(99).pixels
    assert patches is not None
    # The second patch of the first row, and the first of the second.
    assert np.array_equal(shown[:14, 14:28], patches[1].permute(1, 2, 0).numpy())
    assert np.array_equal(shown[14:, :14], patches[4].permute(1, 2, 0).numpy())
    assert text["pictures"] == []


def test_what_was_told_of_steps_that_are_done_again_is_told_once(tmp_path: Path) -> None:
    run(tmp_path / "whole", 6, shown=2)
    run(tmp_path / "parts", 3, shown=2)
    with (tmp_path / "parts" / "samples.jsonl").open("a") as file:
        file.write('{"step": 5, "question": "Is this a later one?"}\n{"st')
    run(tmp_path / "parts", 6, shown=2)
    by_step = {line["step"] for line in told(tmp_path / "parts")}
    assert by_step == {2, 3, 4, 6}
    assert [line for line in told(tmp_path / "parts") if line["step"] == 2] == told(tmp_path / "whole")[:2]


def test_the_page_shows_them(tmp_path: Path) -> None:
    run(tmp_path, 2, shown=2)
    stage = read_stage(tmp_path)
    assert [shown.step for shown in stage.shown] == [2, 2]
    assert stage.exams == ["right: words"] and stage.losses == ["text", "balance"]
    report(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert 'aria-label="right: words"' in page


def test_an_answer_that_was_learned_by_heart_is_told_as_wanted(tmp_path: Path) -> None:
    """With the picture before it: the same words about another picture are answered otherwise."""
    bright, dark = coloured(230), coloured(20)
    dark.input_ids[3:5] = torch.tensor([50, 51])
    both = [bright, dark]
    data = Mixture([Source("both", 1.0, lambda seed, index: both[index % 2])], seed=1, batch_size=2)
    ending = TOKENIZER.im_end_id
    for sample in both:
        sample.input_ids[5] = ending
        sample.answer_mask[5] = True
    words_and_marks = replace(TINY.text_config, vocab_size=TOKENIZER.vocab_size)
    pupil = pupil_of(random_model(config=replace(TINY, text_config=words_and_marks)))
    show = Showing(tmp_path, both, TOKENIZER, PLACEHOLDER)
    train(pupil, data, Schedule(60, peak=2e-2, warmup=5, save_every=60), tmp_path, workers=0, show=show)
    assert [line["answer"] for line in told(tmp_path)] == [line["wanted"] for line in told(tmp_path)]
    assert told(tmp_path)[0]["answer"] != told(tmp_path)[1]["answer"]


def test_an_exam_counts_what_the_model_would_say() -> None:
    """As often right as answers that are drawn token by token, over pictures and words of many lengths."""
    vocabulary = replace(TINY.text_config, vocab_size=TOKENIZER.vocab_size)
    pupil = pupil_of(random_model(config=replace(TINY, text_config=vocabulary)))
    samples = []
    for index in range(24):
        sample = coloured(10 * index) if index % 3 == 0 else words(5 + index % 4, index, 2)
        ids, mask = sample.input_ids[:5].clone(), torch.tensor([False] * 3 + [True] * 2)
        ids[:2] = torch.tensor([PLACEHOLDER, PLACEHOLDER] if index % 3 == 0 else [7, 8])
        samples.append(Sample(ids, mask, sample.pixels, sample.image_grid_hws))
    for sample in samples[::2]:
        # Every other one is asked for what the model says in any case.
        sample.input_ids[3:] = torch.tensor(said(pupil, sample))
    greedy = [said(pupil, sample) == sample.input_ids[3:].tolist() for sample in samples]
    assert 12 <= sum(greedy) < 24
    exact = Exam("all", [Question(sample, exactly_said(sample)) for sample in samples])
    assert share_right(pupil, exact, TOKENIZER) == sum(greedy) / 24


def exactly_said(sample: Sample) -> Callable[[str], bool]:
    wanted = TOKENIZER.decode(sample.input_ids[3:].tolist()).strip()
    return lambda text: text == wanted


def said(pupil: Learner, sample: Sample) -> list[int]:
    pixels = None if sample.pixels is None else normalised(sample.pixels, pupil.images)
    prompt, grids = sample.input_ids[:3], sample.image_grid_hws
    sampler = Sampler(prompt.tolist(), (), SamplingParams(max_new_tokens=2))
    drawn = generate(pupil.model, prompt, pixel_values=pixels, image_grid_hws=grids, sampler=sampler)
    return [token.id for token in drawn]
