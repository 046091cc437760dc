"""Questions of which it is known what a right answer is, asked while a model learns: a curve of ability over time.

In: samples with one answer each, and who judges it. Out: the share of right answers. The samples of an exam pass the
model together. Each token of an answer is what the model finds likeliest after the right ones before it, so that an
answer is right to the last token just when the model, left to itself, would say it; one that is judged more kindly may
fare a little better here than it would then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kimi_vl.patches import normalised
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train.data.packing import Sample, pack
from kimi_vl.train.learning.learner import Learner

# What passes the model together: as much as a batch of moderate size.
_TOKENS = 16384


@dataclass(frozen=True)
class Question:
    """``is_right`` judges the text of the answer."""

    sample: Sample
    is_right: Callable[[str], bool]


@dataclass(frozen=True)
class Exam:
    name: str
    questions: Sequence[Question]


@torch.no_grad()
def share_right(learner: Learner, exam: Exam, tokenizer: Tokenizer) -> float:
    said = (text for samples in _together(exam.questions) for text in _said(learner, samples, tokenizer))
    marks = [question.is_right(text) for question, text in zip(exam.questions, said, strict=True)]
    return sum(marks) / len(marks)


def _together(questions: Sequence[Question]) -> Iterator[list[Sample]]:
    some: list[Sample] = []
    for question in questions:
        if some and sum(len(sample.input_ids) for sample in (*some, question.sample)) > _TOKENS:
            yield some
            some = []
        some.append(question.sample)
    if some:
        yield some


def _said(learner: Learner, samples: Sequence[Sample], tokenizer: Tokenizer) -> list[str]:
    """What the model finds likeliest in the place of each sample's answer."""
    batch = pack(samples).to(learner.model.device)
    features = None
    if batch.pixels is not None:
        pixels = normalised(batch.pixels, learner.images)
        features = learner.model.image_features(pixels, batch.image_grid_hws)
    states = learner.decode(batch, features).states.index_select(0, batch.seen)
    likeliest = learner.model.language_model.lm_head(states).argmax(-1).cpu()
    counts = [int(sample.answer_mask[1:].sum()) for sample in samples]
    return [tokenizer.decode(ids.tolist()).strip() for ids in likeliest.split(counts)]
