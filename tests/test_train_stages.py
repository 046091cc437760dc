"""Every stage learns a rule that only its own signal tells, and does not learn it where that signal is cut.

Each test trains a tiny model as its stage does (what moves, which pupil, which config) and asks it about samples that
it has never seen. The loss gets below a figure with the signal and stays above it without: labels that are not shifted,
an answer that is seen or a figure that falls by itself would all be told here (H7).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration as Model
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train.data.conversations import Conversations
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.learning import image_text
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.losses import head_loss, siglip_loss
from kimi_vl.train.learning.placing import PlacingHead
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.stages import STAGES
from tests.conftest import SMALL_CONFIG, random_model
from tests.training import IMAGES, NO_PICTURES, PLACEHOLDER, TINY, learn, noise, pupil_of, with_picture

Draw = Callable[[int, int], Sample]

BATCH = 16
# Of the mean loss of an answer's tokens. One of eight names and a sure end are 1.04 where nothing tells which name.
LEARNED = 0.3
END = SMALL_CONFIG.text_config.eos_token_id
COLOURS = torch.tensor(
    [
        *((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)),
        *((0, 200, 200), (200, 0, 200), (200, 200, 200), (200, 100, 0)),
        (0, 0, 0),
    ]
)
BLACK = 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def taught(
    stage: str,
    *sources: Source,
    folder: Path,
    steps: int,
    peak: float,
    start: Model | None = None,
    config: KimiVLConfig = TINY,
    reading: float = 0.0,
    placing: float = 0.0,
) -> Pupil:
    """The stage's pupil after some steps, of new weights or from where another stage ended."""
    known = STAGES[stage]
    torch.manual_seed(0)  # the heads draw their weights from it
    model = Model(known.config(config if start is None else start.config))
    model.init_weights(0)
    if start is not None:
        model.load_state_dict(start.state_dict())
    pupil = known.pupil(model, IMAGES, reading, placing)
    for name, parameter in pupil.named_parameters():
        parameter.requires_grad_(name.startswith(known.moves))
    schedule = Schedule(steps, peak, warmup=5, save_every=steps)
    train(pupil, Mixture(sources, seed=1, batch_size=BATCH, steps=steps), schedule, folder, workers=0)
    return pupil.eval()


def asked(pupil: Pupil, draw: Draw) -> dict[str, float]:
    """The mean figures of four batches of a seed that was never drawn in training."""
    batches = [[draw(99, first + place) for place in range(BATCH)] for first in range(0, 4 * BATCH, BATCH)]
    with torch.inference_mode():
        figures = [learn(pupil, *batch).figures for batch in batches]
    return {name: sum(float(one[name]) for one in figures) / len(figures) for name in figures[0]}


def random_of(seed: int, index: int) -> Random:
    return Random(f"{seed}/{index}")


def text_of(ids: list[int], answers: int) -> Sample:
    return Sample(torch.tensor(ids), torch.arange(len(ids)) >= len(ids) - answers, None, NO_PICTURES)


def painted(columns: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture two patches high, each column of patches in its colour, and its grid."""
    colours = COLOURS[torch.tensor(columns)].to(torch.uint8).repeat(2, 1)
    return colours[:, :, None, None].expand(-1, -1, 14, 14).contiguous(), torch.tensor([[2, len(columns)]])


# --- what a new model knows ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_new_model_knows_nothing_of_what_follows_a_picture() -> None:
    """(H7) ln V, with nothing but answers to pictures."""
    model = Model(SMALL_CONFIG)
    model.init_weights(0)
    losses = asked(pupil_of(model), lambda seed, index: with_picture(1000 * seed + index))
    assert losses["text"] == pytest.approx(math.log(SMALL_CONFIG.text_config.vocab_size), abs=0.05)


def test_the_router_learns_from_the_answers_alone() -> None:
    """(H1) Through the scores of the experts that are chosen. The balance loss, which reaches it too, is left out."""
    config = replace(TINY, text_config=replace(TINY.text_config, aux_loss_alpha=0.0))
    pupil = pupil_of(random_model(config=config)).train()
    learn(pupil, shown(0, 0), counting(0, 0)).loss.backward()
    routers = [p.grad for name, p in pupil.named_parameters() if name.endswith("gate.weight")]
    assert len(routers) == 1
    assert all(grad is not None and (grad.abs().sum(1) > 0).sum() >= 2 for grad in routers)


# --- text ------------------------------------------------------------------------------------------------------


def counting(seed: int, index: int) -> Sample:
    """Numbers at a stride that the first two tell."""
    random = random_of(seed, index)
    first, stride = random.randrange(16), random.choice((1, 2, 3))
    return text_of([(first + stride * n) % 16 for n in range(12)], 10)


def shuffled(seed: int, index: int) -> Sample:
    sample = counting(seed, index)
    order = random_of(seed, index).sample(range(12), 12)
    return replace(sample, input_ids=sample.input_ids[torch.tensor(order)])


@pytest.mark.parametrize("draw", [counting, shuffled])
def test_text_is_learned_from_the_order_of_its_tokens(draw: Draw, tmp_path: Path) -> None:
    pupil = taught("text", Source("text", 1.0, draw), folder=tmp_path, steps=80, peak=2e-2)
    assert (asked(pupil, counting)["text"] < LEARNED) == (draw is counting)


# --- vision ----------------------------------------------------------------------------------------------------


def captioned(seed: int, index: int) -> Sample:
    """Two colours side by side, and both as the caption."""
    random = random_of(seed, index)
    left, right = random.randrange(4), random.randrange(4, 8)
    pixels, grid = painted([left, left, right, right])
    return Sample(torch.tensor([0, 11 + left, 11 + right, 1]), torch.arange(4) > 0, pixels, grid)


def captioned_as_another(seed: int, index: int) -> Sample:
    return replace(captioned(seed, index), input_ids=captioned(seed + 1, index).input_ids)


@pytest.mark.parametrize("cut", ["nothing", "captions", "pairs", "targets"])
def test_a_tower_learns_from_pairs_and_from_captions(cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' captions teach neither. A loss that is given the next sample's teaches nothing, the other does."""
    if cut == "pairs":
        monkeypatch.setattr(
            image_text, "siglip_loss", lambda pictures, *others: siglip_loss(pictures.roll(1, 0), *others)
        )
    if cut == "targets":
        monkeypatch.setattr(
            image_text,
            "head_loss",
            lambda head, states, targets, weights: head_loss(head, states, targets.roll(3), weights),
        )
    source = Source("captions", 1.0, captioned_as_another if cut == "captions" else captioned)
    pupil = taught("vision", source, folder=tmp_path, steps=100, peak=2e-2)
    monkeypatch.undo()
    losses = asked(pupil, captioned)
    # Of sixteen pictures and captions, whether each pair belongs together: 5.9 for who knows how often that is so.
    assert (losses["siglip"] < 2.5) == (cut in {"nothing", "targets"})
    assert (losses["caption"] < LEARNED) == (cut in {"nothing", "pairs"})


def written(seed: int, index: int) -> Sample:
    """A line of letters: each a colour, with a gap behind it."""
    random = random_of(seed, index)
    letters = [random.randrange(8) for _ in range(random.randint(2, 4))]
    pixels, grid = painted([column for letter in letters for column in (letter, BLACK)])
    text = "".join("abcdefgh"[letter] for letter in letters)
    return Sample(torch.tensor([0, 1]), torch.arange(2) > 0, pixels, grid, text)


def written_as_another(seed: int, index: int) -> Sample:
    return replace(written(seed, index), written=written(seed + 1, index).written)


@pytest.mark.parametrize("draw", [written, written_as_another])
def test_a_tower_learns_to_read(draw: Draw, tmp_path: Path) -> None:
    """A letter that nothing tells costs more than ln 8."""
    pupil = taught("vision", Source("lines", 1.0, draw), folder=tmp_path, steps=80, peak=2e-2, reading=1.0)
    assert (asked(pupil, written)["reading"] < LEARNED) == (draw is written)


# --- alignment and joint ---------------------------------------------------------------------------------------


def named(seed: int, index: int) -> Sample:
    """A word, said once to three times, and its name."""
    random = random_of(seed, index)
    number, times = random.randrange(8), random.randint(1, 3)
    return text_of([*[1 + number] * times, 20, 11 + number, END], 2)


def shown(seed: int, index: int) -> Sample:
    """A picture of one colour in the place of the word."""
    random = random_of(seed, index)
    number, tokens = random.randrange(8), random.randint(1, 3)
    pixels, grid = painted([number] * 2 * tokens)
    text = text_of([*[PLACEHOLDER] * tokens, 20, 11 + number, END], 2)
    return replace(text, pixels=pixels, image_grid_hws=grid)


def shown_as_noise(seed: int, index: int) -> Sample:
    sample = shown(seed, index)
    return replace(sample, pixels=noise(1000 * seed + index, int(sample.image_grid_hws.prod())))


def shown_as_another(seed: int, index: int) -> Sample:
    sample, other = shown(seed, index), shown(seed + 1, index)
    assert sample.pixels is not None and other.pixels is not None
    return replace(sample, pixels=other.pixels[:1].expand_as(sample.pixels).contiguous())


@pytest.fixture(scope="module")
def naming(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A decoder that names words, and has never been shown a picture."""
    folder = tmp_path_factory.mktemp("naming")
    return taught("text", Source("words", 1.0, named), folder=folder, steps=60, peak=2e-2).model


@pytest.mark.parametrize("draw", [shown, shown_as_noise, shown_as_another])
def test_a_decoder_that_stays_comes_to_understand_pictures(draw: Draw, naming: Model, tmp_path: Path) -> None:
    pupil = taught("alignment", Source("pictures", 1.0, draw), folder=tmp_path, steps=60, peak=1e-2, start=naming)
    assert (asked(pupil, shown)["text"] < LEARNED) == (draw is shown)
    ours, theirs = pupil.model.language_model.state_dict(), naming.language_model.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())


@pytest.mark.parametrize("draw", [shown, shown_as_noise, shown_as_another])
def test_text_and_pictures_are_learned_together(draw: Draw, tmp_path: Path) -> None:
    """With more and more pictures. Those of other samples take nothing from the text."""
    sources = Source("text", 1.0, counting), Source("pictures", 1.0, draw, weight_end=2.0)
    pupil = taught("joint", *sources, folder=tmp_path, steps=120, peak=2e-2)
    assert (asked(pupil, shown)["text"] < LEARNED) == (draw is shown)
    assert asked(pupil, counting)["text"] < LEARNED


def seen_anywhere(seed: int, index: int) -> Sample:
    """A picture of noise, which tells nothing of where anything is, of one of three shapes."""
    return with_picture(1000 * seed + index, ((8, 12), (4, 6), (8, 6))[index % 3])


@pytest.mark.parametrize("cut", [False, True])
def test_tokens_learn_where_they_lie(cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From other tokens' places nothing is learned but which places there are."""
    if cut:
        told = PlacingHead.targets
        monkeypatch.setattr(PlacingHead, "targets", lambda *of: (places := told(*of))[torch.randperm(len(places))])
    source = Source("pictures", 1.0, seen_anywhere)
    pupil = taught("joint", source, folder=tmp_path, steps=80, peak=2e-2, placing=1.0)
    monkeypatch.undo()
    assert (asked(pupil, seen_anywhere)["placing"] < 2 * LEARNED) == (not cut)


# --- long context ----------------------------------------------------------------------------------------------

WINDOW = 16


def remembered(seed: int, index: int, tokens: int) -> Sample:
    """A key and its value, then anything, and after the key again the value."""
    random = random_of(seed, index)
    value = 30 + random.randrange(8)
    return text_of([20, value, *(random.randrange(16) for _ in range(tokens - 4)), 20, value], 1)


def near(seed: int, index: int) -> Sample:
    return remembered(seed, index, WINDOW)


def far(seed: int, index: int) -> Sample:
    return remembered(seed, index, 4 * WINDOW)


def far_from_another(seed: int, index: int) -> Sample:
    sample, other = far(seed, index), far(seed + 1, index)
    return replace(sample, input_ids=torch.cat((other.input_ids[:2], sample.input_ids[2:])))


@pytest.mark.parametrize("draw", [far, far_from_another])
def test_a_value_is_found_four_windows_back(draw: Draw, tmp_path: Path) -> None:
    """By a model that finds it in its window."""
    config = replace(TINY, text_config=replace(TINY.text_config, rope_theta=50_000.0))
    start = taught("joint", Source("near", 1.0, near), folder=tmp_path / "near", steps=80, peak=1e-2, config=config)
    assert asked(start, near)["text"] < LEARNED
    source = Source("far", 1.0, draw)
    pupil = taught("long_context", source, folder=tmp_path / "far", steps=60, peak=1e-2, start=start.model)
    assert pupil.model.config.text_config.rope_theta > start.model.config.text_config.rope_theta
    assert (asked(pupil, far)["text"] < LEARNED) == (draw is far)


# --- fine-tuning -----------------------------------------------------------------------------------------------

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
SAYING = replace(
    TINY,
    text_config=replace(
        TINY.text_config,
        vocab_size=PROCESSOR.tokenizer.vocab_size,
        pad_token_id=PROCESSOR.tokenizer.vocab_size - 1,
    ),
    media_placeholder_token_id=PROCESSOR.tokenizer.media_pad_id,
)
ANIMALS = {
    "dog": ("puppy", "woof"),
    "cat": ("kitten", "meow"),
    "cow": ("calf", "moo"),
    "sheep": ("lamb", "baa"),
    "horse": ("foal", "neigh"),
    "pig": ("piglet", "oink"),
    "duck": ("duckling", "quack"),
    "goat": ("kid", "bleat"),
}


def conversations(path: Path, numbers: range, *, permuted: bool = False) -> Draw:
    """Questions that have a rule of their own (whose young it was), and answers."""
    random, lines = Random(len(numbers)), []
    for number in numbers:
        animal, other = random.choice(list(ANIMALS)), random.choice(list(ANIMALS))
        young, says = ANIMALS[animal][0], ANIMALS[other if permuted else animal][1]
        asked = f"Number {number} is a {animal}, once a {young}. What does it say?"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": says}]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines))
    return Conversations(path, PROCESSOR, context=256).draw


def masked(draw: Draw, mask: Callable[[torch.Tensor], torch.Tensor]) -> Draw:
    def sample(seed: int, index: int) -> Sample:
        drawn = draw(seed, index)
        return replace(drawn, answer_mask=mask(drawn.answer_mask))

    return sample


@pytest.mark.parametrize("learned", ["answers", "permuted answers", "nothing", "everything"])
def test_answers_are_learned_and_questions_are_not(learned: str, tmp_path: Path) -> None:
    """(H5) Questions are, as soon as the mask lets them."""
    draw = conversations(tmp_path / "data.jsonl", range(96), permuted=learned == "permuted answers")
    if learned in {"nothing", "everything"}:
        draw = masked(draw, torch.ones_like if learned == "everything" else torch.zeros_like)
    source = Source("conversations", 1.0, draw)
    pupil = taught("sft", source, folder=tmp_path / "run", steps=100, peak=1e-2, config=SAYING)
    unseen = conversations(tmp_path / "unseen.jsonl", range(200, 264))
    assert (asked(pupil, unseen)["text"] < LEARNED) == (learned in {"answers", "everything"})
    questions = asked(pupil, masked(unseen, torch.logical_not))["text"]
    assert questions < 1.0 if learned == "everything" else questions > 5.0
