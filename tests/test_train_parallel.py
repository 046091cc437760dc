"""Several processes, or a batch in pieces: together they take the step that one would take, and stay alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from kimi_vl.hub import NANO
from kimi_vl.patches import normalised
from kimi_vl.tokenizer import Tokenizer
from kimi_vl.train import parallel
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample, pack
from kimi_vl.train.learning import losses
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.recompute import recompute_layers
from kimi_vl.train.scale import owners, sharding
from kimi_vl.train.scale.layout import Layout
from kimi_vl.train.state import load_weights, stored_in
from kimi_vl.train.watching.examining import Exam, Question, share_right
from tests.conftest import random_model
from tests.training import (
    ALONE,
    IMAGES,
    TINY,
    captioned,
    entered,
    exactly,
    free_port,
    image_text_pupil_of,
    laid_out,
    logged,
    pupil_of,
    start,
    with_picture,
    words,
)

WORDS = Tokenizer.from_pretrained(NANO)


def conversing(seed: int, index: int) -> Sample:
    """Lines, pictures and texts of many lengths, so that no process has as much to learn from as another."""
    if index % 3 == 0:
        return with_picture(index, (2, 4 + 2 * (index % 4)), "ab" if index % 2 else None)
    return words(4 + 3 * (index % 5), index, 1 + index % 4)


def captioning(seed: int, index: int) -> Sample:
    """Some captions come twice."""
    caption = [3 + index % 5] * (1 + index % 3)
    return captioned(index, (2, 2 + 2 * (index % 3)), caption, "cd" if index % 4 == 1 else None)


KINDS: dict[str, tuple[Callable[[], Pupil], Callable[[int, int], Sample]]] = {
    "answers": (lambda: pupil_of(random_model(config=TINY), reading=0.5, placing=0.5), conversing),
    "captions": (lambda: image_text_pupil_of(random_model(config=TINY)), captioning),
}


def run(
    kind: str, folder: Path, steps: int, pieces: int = 1, layout: Layout = ALONE, what: str = "nothing"
) -> dict[str, torch.Tensor]:
    """Alone, or as one of those that the layout has. Returns all weights that the state then has."""
    make, draw = KINDS[kind]
    torch.manual_seed(0)  # the heads draw their weights from it
    pupil = make()
    recompute_layers(pupil, what)
    cut = laid_out(pupil, layout)
    share = layout.share_of_samples(parallel.rank())
    data = Mixture([Source(kind, 1.0, draw)], seed=3, batch_size=8, pieces=pieces, share=share, cut=cut)
    with exactly():
        train(pupil, data, Schedule(steps, peak=3e-3, warmup=1), folder, workers=0)
    return weights_of(folder, make())


def weights_of(folder: Path, model: Pupil) -> dict[str, torch.Tensor]:
    stored = stored_in(folder)
    assert stored is not None
    assert not load_weights(stored, model)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def agree(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """All weights together to 1e-5 of their norm, and none far off."""
    assert ours.keys() == theirs.keys()
    apart = whole = 0.0
    for name, expected in theirs.items():
        difference = ours[name] - expected
        if name.endswith("wqkv.bias"):
            # A bias of all keys moves no softmax: its gradient is rounding, of which AdamW makes a whole step.
            queries, _, values = difference.chunk(3)
            difference = torch.cat((queries, values))
        assert difference.norm() <= 1e-3 * expected.norm() + 1e-7, name
        apart += float(difference.square().sum())
        whole += float(expected.square().sum())
    assert apart**0.5 <= 1e-5 * whole**0.5


CASES = [
    *[(kind, Layout(processes), "nothing") for processes in (2, 4) for kind in KINDS],
    *[("answers", Layout(*sizes), "nothing") for sizes in ((2, 1, 2), (4, 1, 2), (4, 1, 4))],
    *[("answers", Layout(*sizes), "nothing") for sizes in ((2, 2, 1), (4, 2, 1), (4, 4, 1))],
    ("answers", Layout(4, 2, 2), "cheap"),
    ("answers", Layout(4, 2, 2), "layers"),
]


def place_of(kind: str, layout: Layout, what: str) -> str:
    return f"{kind}-{layout.processes}-{layout.context_parallel}-{layout.expert_parallel}-{what}"


def questions() -> list[Question]:
    """Of each, one word: what a new model says to the first half, and what it does not."""
    model = random_model(config=TINY)
    asked = []
    for index in range(8):
        sample = with_picture(index, (2, 4)) if index % 3 else words(6, index, 3)
        ids = sample.input_ids
        pixels = None if sample.pixels is None else normalised(sample.pixels, IMAGES)
        with torch.no_grad():
            grids = sample.image_grid_hws if pixels is not None else None
            logits = model(ids[:-1], [len(ids) - 1], pixel_values=pixels, image_grid_hws=grids).logits
        ids[-1] = logits[-1].argmax() + index % 2
        mask = torch.arange(len(ids)) == len(ids) - 1
        asked.append(Question(replace(sample, answer_mask=mask), partial(is_word, int(ids[-1]))))
    return asked


def is_word(wanted: int, text: str) -> bool:
    return text == WORDS.decode([wanted]).strip()


def examined(layout: Layout) -> float:
    pupil = pupil_of(random_model(config=TINY))
    laid_out(pupil, layout)
    with torch.no_grad():
        # The root of several knows what to do once it has run.
        batch = pack([words(4, 1, 1)])
        pupil(batch if layout.processes == 1 else sharding.cut_for(layout, 0, TINY)(batch), batch.totals)
    with parallel.ready(pupil):
        return share_right(pupil, Exam("words", questions()), WORDS)


def one_of(rank: int, processes: int, port: int, folder: Path) -> None:
    with entered(rank, processes, port):
        for layout in (Layout(processes), Layout(processes, expert_parallel=2)):
            (folder / f"right-{layout.processes}-{layout.expert_parallel}-{rank}").write_text(str(examined(layout)))
        if processes == 4:
            # So few that matrices go to their owners in many portions, and states through the head in many pieces.
            owners.AT_A_TIME = 300
            losses.MOST_LOGITS = losses.LOGITS_OF_A_PIECE = 2 * TINY.text_config.vocab_size
        for kind, layout, what in CASES:
            if layout.processes == processes:
                run(kind, folder / place_of(kind, layout, what), 2, layout=layout, what=what)


def test_processes_are_as_one(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """(H3, J1) Though not every process has tokens for each expert, or pictures, and none has a whole matrix."""
    for processes in (2, 4):
        # They are started once for all cases, for that takes longer than a case.
        start(one_of, (processes, free_port(), tmp_path), processes)
    for kind in KINDS:
        run(kind, tmp_path / kind, 2)
    for kind, layout, what in CASES:
        together, (make, _) = tmp_path / place_of(kind, layout, what), KINDS[kind]
        with subtests.test("they step as one", case=together.name):
            agree(weights_of(together, make()), weights_of(tmp_path / kind, make()))
            # The first logs, for all.
            for ours, theirs in zip(logged(together), logged(tmp_path / kind), strict=True):
                assert ours == pytest.approx(theirs, rel=1e-5)
    with subtests.test("they sit an exam together, and all find what one does"):
        alone = examined(ALONE)
        assert alone == 0.5
        told = list(tmp_path.glob("right-*"))
        assert len(told) == 2 * 2 + 2 * 4
        assert {float(path.read_text()) for path in told} == {alone}


def test_a_batch_in_pieces_is_one_batch(tmp_path: Path) -> None:
    """(H9) Though each piece has its own number of answers, lines and sequences."""
    agree(run("answers", tmp_path / "pieces", 3, pieces=4), run("answers", tmp_path / "whole", 3))
    for ours, theirs in zip(logged(tmp_path / "pieces"), logged(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "pieces", "passes"), [(8, 3, 1), (0, 1, 1), (8, 0, 1), (8, 1, 0)])
def test_a_batch_that_cannot_be_cut_is_refused(batch_size: int, pieces: int, passes: int) -> None:
    with pytest.raises(ValueError, match=r"is not cut evenly|must be at least 1"):
        Mixture([Source("x", 1.0, conversing)], seed=0, batch_size=batch_size, pieces=pieces, passes=passes)


def test_a_process_that_is_alone_imports_none_of_it(tmp_path: Path) -> None:
    """Not when it trains either."""
    code = f"""
import sys
from pathlib import Path
import torch
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.data.packing import Sample
from tests.conftest import random_model
sample = Sample(torch.arange(5), torch.ones(5, dtype=torch.bool), None, torch.empty(0, 2, dtype=torch.int64))
data = Mixture([Source("all", 1.0, lambda seed, index: sample)], seed=3, batch_size=4)
learner = Learner(random_model(), ImageProcessorConfig())
train(learner, data, Schedule(2, peak=1e-3), Path({str(tmp_path)!r}), workers=0)
print([name for name in sys.modules if name.startswith("kimi_vl.train.scale")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
