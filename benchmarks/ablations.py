"""What each part of the recipe is worth at a small scale: short runs, each different in one thing.

    python benchmarks/ablations.py pictures --json pictures.json
    python benchmarks/ablations.py words --json words.json

The model is nano's at a fifth of its size. With `pictures` it learns lines of up to six characters, colours of shapes
and counts of things; with `words`, where experts are to keep what a dense layer has no room for, its decoder alone
learns books. Both want what `recipes.nano.fetch` brings. All arms see the same samples as often, in an order that the
seed decides with the new weights, and are asked the same of what is held out. Muon and AdamW get the best of the same
few rates, by the loss of other held-out samples than those that count. Two processes of one thread each do the runs, on
a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kimi_vl import KimiVL
from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.patches import normalised, plan_grid
from kimi_vl.precision import fast_dtype
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Sample, pack
from kimi_vl.train.fused import fuse_experts
from kimi_vl.train.learning import learner
from kimi_vl.train.learning.balance import moe_layers
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.losses import token_logprobs
from kimi_vl.train.loop import Schedule, train
from kimi_vl.train.opening import keep_memory
from kimi_vl.train.optim import muon_adamw
from kimi_vl.train.stages import vision
from recipes.nano import captioned, questions, scenes
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.evaluate import asked, character_error_rate, says
from recipes.nano.fonts import Split
from recipes.nano.heldout import WrittenLine
from recipes.nano.lines import line_sample
from recipes.nano.samples import LONGEST_TEXT, PICTURES, of_caption, of_conversation, piece_of, processor
from recipes.nano.text import book

_NANO = Path(__file__).parents[1] / "recipes" / "nano" / "config.json"
_DATA_SEED = 20  # of no stage
_LONGEST = 6  # characters
_RATES = (1e-3, 3e-3, 9e-3)
_TOWER_RATE = 3e-3  # that of the recipe of the stage
_ASKED = 100  # lines, and colours or shapes
_HELD = 256  # samples to choose rates by, and as many others for the figures


@dataclass(frozen=True)
class Arm:
    """What an arm does otherwise than the recipe, which is one thing."""

    muon: bool = True
    squashed: bool = False  # each picture to a square of as many patches, also those that the tower begins with
    dense: bool = False  # no experts; layers as wide as those that a token passes
    pretrained: bool = True  # the tower has seen captions first
    longer: bool = False  # gets the steps that captions would have taken
    seeing: bool = False  # only told apart where there are pictures


ARMS = {
    "the recipe": Arm(),
    "AdamW instead of Muon": Arm(muon=False),
    "dense instead of experts": Arm(dense=True),
    "pictures squashed to squares": Arm(squashed=True, seeing=True),
    "no vision pretraining": Arm(pretrained=False, seeing=True),
    "no vision pretraining, its steps besides": Arm(pretrained=False, longer=True, seeing=True),
}


@dataclass(frozen=True)
class Budget:
    words: bool  # no pictures
    work: str
    steps: int
    tower_steps: int
    batch_size: int


@dataclass(frozen=True)
class Outcome:
    """Of one run. ``choice`` is the loss that rates are chosen by."""

    arm: str
    seed: int
    rate: float
    loss: float  # of held-out answers, each sample weighed as in training
    choice: float
    tokens_right: float  # share of the answers' tokens, each after the right ones
    colours_right: float | None
    character_error_rate: float | None
    parameters: int
    seconds: float


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    words = options.what == "words"
    tower_steps = 0 if words else options.tower_steps
    budget = Budget(words, str(options.work), options.steps, tower_steps, options.batch_size)
    arms = [name for name, arm in ARMS.items() if not (words and arm.seeing)]
    shapes = (False,) if words else (False, True)
    begun = time.perf_counter()
    with ProcessPoolExecutor(options.processes, get_context("spawn"), initializer=_alone) as pool:
        list(pool.map(partial(_draw, budget), [(name, squashed) for name in _sets(budget) for squashed in shapes]))
        print(f"samples: {time.perf_counter() - begun:.0f} s{_patches(budget)}", flush=True)
        if not words:
            jobs = [(seed, squashed) for seed in range(options.seeds) for squashed in shapes]
            list(pool.map(partial(_pretrain, budget), jobs))
            print(f"towers: {time.perf_counter() - begun:.0f} s", flush=True)
        tried = ("the recipe", "AdamW instead of Muon")
        outcomes = _runs(pool, budget, [(arm, 0, rate) for arm in tried for rate in options.rates])
        best = {arm: min((one for one in outcomes if one.arm == arm), key=lambda one: one.choice).rate for arm in tried}
        for arm, rate in best.items():
            edge = ", at the edge of those tried" if rate in (options.rates[0], options.rates[-1]) else ""
            print(f"{arm}: the best rate is {rate:g}{edge}", flush=True)
        rates = {arm: best.get(arm, best["the recipe"]) for arm in arms}
        rest = [(arm, seed, rates[arm]) for arm in arms for seed in range(options.seeds) if seed or arm not in best]
        outcomes += _runs(pool, budget, rest)
    print(_table([one for one in outcomes if one.rate == rates[one.arm]]))
    budget_said = f"{options.steps} steps of {options.batch_size} samples each, {options.seeds} seeds"
    minutes = (time.perf_counter() - begun) / 60
    print(f"{budget_said}; {minutes:.1f} minutes in all")
    if options.json is not None:
        told = {"budget": asdict(budget), "outcomes": [asdict(one) for one in outcomes]}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("pictures", "words"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--tower-steps", type=int, default=60, help="of vision pretraining before them")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=_RATES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kimi-vl-ablations")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _alone() -> None:
    torch.set_num_threads(1)
    keep_memory()


# Data ---------------------------------------------------------------------------------------------------


def _draw(budget: Budget, job: tuple[str, bool]) -> None:
    """A set of samples, as they are or squashed, into a file that all runs read."""
    name, squashed = job
    answers, captions = (n * budget.batch_size for n in (budget.steps + budget.tower_steps, budget.tower_steps))
    first, count = {
        "train": (0, answers),
        "captions": (answers, captions),
        "choice": (0, _HELD),
        "figures": (_HELD, _HELD),
    }[name]
    draw, split = _sets(budget)[name]
    drawn = [draw(split, squashed, index) for index in range(first, first + count)]
    torch.save(drawn, _file(budget, name, squashed))


def _file(budget: Budget, name: str, squashed: bool) -> Path:
    return Path(budget.work) / f"{'words-' * budget.words}{name}{'-squashed' if squashed else ''}.pt"


def _kept(budget: Budget, name: str, squashed: bool) -> list[Sample]:
    kept: list[Sample] = torch.load(_file(budget, name, squashed), weights_only=False)
    return kept


def _answer(split: Split, squashed: bool, index: int) -> Sample:
    """Of ten samples four are lines, three colours of shapes and three counts."""
    kind = index % 10
    if kind < 4:
        line = line_sample(_DATA_SEED, index, split, longest=_LONGEST)
        question = questions.worded(Random(index), questions.READ, split)
        return of_conversation(
            _seen(Conversation((line.image,), (Turn(question, line.text),)), squashed), written=line.text
        )
    draw = scenes.colour_conversation if kind < 7 else scenes.counting_conversation
    return of_conversation(_seen(draw(_DATA_SEED, index, split), squashed))


def _caption(split: Split, squashed: bool, index: int) -> Sample:
    if index % 2:
        line = line_sample(_DATA_SEED, index, split, longest=_LONGEST)
        return of_caption(_squared(line.image) if squashed else line.image, line.text, written=line.text)
    shown = captioned.caption_sample(_DATA_SEED, index, split)
    return of_caption(_squared(shown.image) if squashed else shown.image, shown.caption)


def _seen(shown: Conversation, squashed: bool) -> Conversation:
    return replace(shown, pictures=tuple(map(_squared, shown.pictures))) if squashed else shown


def _squared(image: Image.Image) -> Image.Image:
    """The whole picture on a square that costs as many patches, or as nearly as whole blocks of them allow."""
    side = max(1, round(math.sqrt(plan_grid(*image.size, PICTURES).tokens)))
    pixels = side * PICTURES.patch_size * PICTURES.merge_kernel_size[0]
    return image.resize((pixels, pixels), Image.Resampling.BICUBIC)


def _patches(budget: Budget) -> str:
    if budget.words:
        return ""
    said = []
    for squashed in (False, True):
        pixels = [sample.pixels for sample in _kept(budget, "train", squashed)]
        said.append(f"{statistics.mean(len(one) for one in pixels if one is not None):.1f}")
    return f"; a picture has {said[0]} patches on average, squashed {said[1]}"


def _words(split: Split, squashed: bool, index: int) -> Sample:
    return piece_of(book(split), LONGEST_TEXT, _DATA_SEED, index)


def _sets(budget: Budget) -> dict[str, tuple[Callable[[Split, bool, int], Sample], Split]]:
    draw = _words if budget.words else _answer
    found: dict[str, tuple[Callable[[Split, bool, int], Sample], Split]] = {
        "train": (draw, "train"),
        "choice": (draw, "heldout"),
        "figures": (draw, "heldout"),
    }
    return found if budget.words else found | {"captions": (_caption, "train")}


# Runs ---------------------------------------------------------------------------------------------------


def _config(*, dense: bool) -> KimiVLConfig:
    """nano's, narrower. The first layer, which has no experts in any arm, is as wide as the dense ones of that arm."""
    nano = KimiVLConfig.from_dict(json.loads(_NANO.read_text(encoding="utf-8")))
    text = replace(
        nano.text_config,
        hidden_size=128,
        moe_intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        kv_lora_rank=32,
    )
    active = (text.num_experts_per_tok + text.n_shared_experts) * text.moe_intermediate_size
    text = replace(text, intermediate_size=active)
    if dense:
        text = replace(text, first_k_dense_replace=text.num_hidden_layers)
    tower = replace(nano.vision_config, hidden_size=128, intermediate_size=512, num_hidden_layers=4)
    return replace(nano, text_config=text, vision_config=tower)


def _new(seed: int, *, dense: bool) -> KimiVLForConditionalGeneration:
    model = KimiVLForConditionalGeneration(_config(dense=dense))
    model.init_weights(seed)
    torch.manual_seed(seed)
    return model


def _pretrain(budget: Budget, job: tuple[int, bool]) -> None:
    """The tower of a seed learns from captions, as in the vision stage."""
    seed, squashed = job
    pupil = vision.pupil(_new(seed, dense=False), PICTURES, reading=1.0, placing=0.0)
    for name, parameter in pupil.named_parameters():
        parameter.requires_grad_(name.startswith(vision.STAGE.moves))
    _train(pupil, _kept(budget, "captions", squashed), budget, budget.tower_steps, _TOWER_RATE, seed)
    save_file(pupil.model.vision_tower.state_dict(), _tower(budget, seed, squashed))


def _tower(budget: Budget, seed: int, squashed: bool) -> Path:
    return _file(budget, f"tower-{seed}", squashed).with_suffix(".safetensors")


def _runs(pool: Executor, budget: Budget, jobs: Sequence[tuple[str, int, float]]) -> list[Outcome]:
    found = []
    for one in pool.map(partial(_run, budget), jobs):
        said = [
            f"{one.arm}, seed {one.seed}, rate {one.rate:g}: loss {one.loss:.3f} ({one.choice:.3f} to choose by)",
            f"{one.tokens_right:.1%} of tokens right",
        ]
        if one.colours_right is not None and one.character_error_rate is not None:
            said += [f"{one.colours_right:.1%} of colours", f"{one.character_error_rate:.1%} of characters wrong"]
        print(", ".join([*said, f"{one.seconds:.0f} s"]), flush=True)
        found.append(one)
    return found


def _run(budget: Budget, job: tuple[str, int, float]) -> Outcome:
    name, seed, rate = job
    arm = ARMS[name]
    model = _new(seed, dense=arm.dense)
    if arm.pretrained and not budget.words:
        model.vision_tower.load_state_dict(load_file(_tower(budget, seed, arm.squashed)))
    if budget.words:
        model.vision_tower.requires_grad_(False)
        model.multi_modal_projector.requires_grad_(False)
    pupil = learner.Learner(model, PICTURES, reading=0.0 if budget.words else 0.3)
    steps = budget.steps + (budget.tower_steps if arm.longer else 0)
    begun = time.perf_counter()
    with _changed(arm):
        _train(pupil, _kept(budget, "train", arm.squashed), budget, steps, rate, seed)
    seconds = time.perf_counter() - begun
    model.float().cpu().eval()
    choice, _ = _loss(model, _kept(budget, "choice", arm.squashed))
    loss, right = _loss(model, _kept(budget, "figures", arm.squashed))
    colours, characters = (None, None) if budget.words else _abilities(model, squashed=arm.squashed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Outcome(name, seed, rate, loss, choice, right, colours, characters, parameters, seconds)


@contextmanager
def _changed(arm: Arm) -> Iterator[None]:
    """The package as this arm wants it: it has no switch for what nobody should turn off."""
    with ExitStack() as stack:
        if not arm.muon:
            stack.enter_context(patch.object(muon_adamw, "is_muon", lambda name, parameter: False))
        if arm.dense:
            none: Callable[..., torch.Tensor] = lambda routings, lengths: torch.zeros(())  # noqa: E731
            stack.enter_context(patch.object(learner, "sequence_balance_loss", none))
        yield


def _train(pupil: Pupil, samples: Sequence[Sample], budget: Budget, steps: int, rate: float, seed: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pupil.to(fast_dtype(device)).to(device)
    for moe in moe_layers(pupil.model):
        moe.gate.e_score_correction_bias = moe.gate.e_score_correction_bias.float()
    if device.type == "cuda":
        fuse_experts(pupil.model)
    count = steps * budget.batch_size
    order = Random(seed).sample(range(count), count)
    data = Mixture(
        [Source("kept", 1.0, lambda _, index: samples[order[index]])], seed=seed, batch_size=budget.batch_size
    )
    schedule = Schedule(steps, rate, warmup=max(1, steps // 20), decay=0.5, save_every=steps, log_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        train(pupil, data, schedule, Path(folder), workers=0)


# What they have learnt ----------------------------------------------------------------------------------


@torch.no_grad()
def _loss(model: KimiVLForConditionalGeneration, samples: Sequence[Sample]) -> tuple[float, float]:
    """The loss of the answers as training weighs them, and the share of their tokens that are the likeliest."""
    batch = pack(samples)
    features = None
    if batch.pixels is not None:
        features = model.image_features(normalised(batch.pixels, PICTURES), batch.image_grid_hws)
    states = model.hidden(model.embed(batch.input_ids, features), batch.positions, batch.lengths).states
    logits, targets = model.language_model.lm_head(states[batch.seen]), batch.targets[batch.seen]
    loss = -(batch.weights * token_logprobs(logits, targets)).sum() / batch.totals.weight
    return float(loss), float((logits.argmax(-1) == targets).float().mean())


def _abilities(model: KimiVLForConditionalGeneration, *, squashed: bool) -> tuple[float, float]:
    """The share of colours and shapes that the decoder says right, and of characters that it reads wrong."""
    talking, words = KimiVL(model), processor()
    colours = [scenes.colour_sample(_DATA_SEED, index, "heldout") for index in range(_ASKED)]
    drawn = [line_sample(_DATA_SEED + 1, index, "heldout", longest=_LONGEST) for index in range(_ASKED)]
    lines = [WrittenLine(line.image, line.text) for line in drawn]

    def said(shown: Sequence[tuple[Image.Image, str]]) -> Iterator[str]:
        pictures = ((_squared(image) if squashed else image, question) for image, question in shown)
        return says(talking, words, (asked([image], question, words) for image, question in pictures), 16)

    told = said([(one.image, one.question) for one in colours])
    right = sum(answer == one.answer for answer, one in zip(told, colours, strict=True))
    read = said([(line.image, questions.READ[0]) for line in lines])
    return right / len(colours), character_error_rate(lines, read)["character_error_rate"]


def _table(outcomes: Sequence[Outcome]) -> str:
    """Medians over the seeds, with the least and the most."""
    lines = ["| arm | rate | parameters | held-out loss | tokens right | colours right | characters wrong | s |"]
    lines.append("| --- " * 8 + "|")
    for arm in dict.fromkeys(one.arm for one in outcomes):
        of_arm = [one for one in outcomes if one.arm == arm]
        cells = [arm, f"{of_arm[0].rate:g}", f"{of_arm[0].parameters:,}", _spread([one.loss for one in of_arm], ".3f")]
        for figure in ("tokens_right", "colours_right", "character_error_rate"):
            values = [value for one in of_arm if (value := getattr(one, figure)) is not None]
            cells.append(_spread(values, ".1%") if values else "")
        lines.append(f"| {' | '.join([*cells, _spread([one.seconds for one in of_arm], '.0f')])} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
