"""Learning from one's own answers: what pays is done more often, a run that was killed goes on alike, engine and
trainer mean the same numbers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from kimi_vl import KimiVL, KimiVLProcessor, SamplingParams
from kimi_vl.chat import Message, PicturePart, TextPart
from kimi_vl.config import KimiVLConfig, nano
from kimi_vl.engine.exact import ExactModel
from kimi_vl.marks import THOUGHT
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.train.data.conversations import sample_of
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.learning.losses import token_logprobs
from kimi_vl.train.recipe import ExamRecipe, Recipe, SourceRecipe
from kimi_vl.train.rewards import Choice
from kimi_vl.train.rl.problems import Posed
from kimi_vl.train.rl.recipe import ProblemsRecipe, RLRecipe, read_rl_recipe
from kimi_vl.train.rl.rollouts import Rollouts
from kimi_vl.train.rl.run import length_weight, run
from kimi_vl.train.rl.updating import Policy, piece_of, row_of
from kimi_vl.train.run import run as run_stage
from kimi_vl.train.state import FILE, StateFile
from kimi_vl.train.watching.report import report
from tests.conftest import random_model
from tests.training import TINY, entered, free_port, logged
from tests.training import start as begin

COLOURS = ("red", "green", "blue")
PROCESSOR = KimiVLProcessor.from_pretrained("nano")
MODULE = __name__


def small() -> KimiVLConfig:
    """As small as it may be with nano's words and patches."""
    whole = nano()
    text = replace(
        TINY.text_config, vocab_size=whole.text_config.vocab_size, pad_token_id=whole.text_config.pad_token_id
    )
    vision = replace(TINY.vision_config, patch_size=whole.vision_config.patch_size)
    return replace(
        TINY, text_config=text, vision_config=vision, media_placeholder_token_id=whole.media_placeholder_token_id
    )


def question(seed: int, index: int) -> tuple[list[Message], Image.Image]:
    shade = Random(f"{seed}/{index}").randrange(256)
    picture = Image.new("RGB", (28, 28), (shade, shade, shade))
    return [Message("user", (PicturePart(picture), TextPart("Which?")))], picture


def sample(seed: int, index: int) -> Sample:
    """A thought, and any of the colours: nothing says which."""
    messages, picture = question(seed, index)
    random = Random(f"colour/{seed}/{index}")
    said = THOUGHT.opening + "so " * random.randint(1, 4) + THOUGHT.closing + random.choice(COLOURS)
    return sample_of([*messages, Message("assistant", (TextPart(said),))], [picture], PROCESSOR)


def posed(seed: int, index: int, level: int) -> Posed:
    """Of the first level blue is right, of the second red."""
    wanted = COLOURS[-level]
    return Posed(question(seed, index)[0], Choice(wanted), wanted)


def exam(count: int) -> Iterable[Posed]:
    return [posed(1, index, 1) for index in range(count)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that has learned the form, and no more."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "config.json").write_text(json.dumps(small().to_dict()))
    recipe = Recipe(
        stage="sft",
        run=str(folder / "run"),
        config=str(folder / "config.json"),
        steps=60,
        batch_size=16,
        peak=2e-2,
        warmup=5,
        sources=(SourceRecipe("form", 1.0, draw=f"{MODULE}:sample"),),
        show=0,
    )
    run_stage(recipe, workers=0)
    return recipe.run


def recipe_of(begun: str, folder: Path, **wishes: Any) -> RLRecipe:
    known: dict[str, Any] = {
        "stage": "rl",
        "run": str(folder),
        "start": begun,
        "steps": 8,
        "batch_size": 8,
        "peak": 3e-3,
        "decay": 0.0,
        "tau": 1.0,
        "max_new_tokens": 40,
        "cache": 8192,
        "save_every": 4,
        "problems": (ProblemsRecipe("colours", f"{MODULE}:posed"),),
    }
    return RLRecipe(**known | wishes)


def rights(folder: Path) -> list[float]:
    return [line["right"] for line in logged(folder)]


# ---- what is learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["mirror_descent", "grpo"])
def test_what_pays_is_said_more_often(start: str, tmp_path: Path, objective: str) -> None:
    folder = run(recipe_of(start, tmp_path / "run", objective=objective, exams=(ExamRecipe("e", f"{MODULE}:exam", 8),)))
    found = logged(tmp_path / "run")
    assert found[0]["right"] < 0.6 and found[-1]["right"] > 0.85
    assert found[-1]["right: e"] == 1.0
    assert all(line["gap"] < 1e-5 for line in found)
    assert KimiVL.from_pretrained(str(folder)).model.config.text_config == small().text_config


def test_rewards_by_chance_teach_nothing(start: str, tmp_path: Path) -> None:
    """What is right by the rule stays as rare as it was: half of the answers are rewarded, whatever they say."""
    run(recipe_of(start, tmp_path / "run", reward="chance", show=8))
    assert all(0.3 < right < 0.7 for right in rights(tmp_path / "run"))
    said = [json.loads(line)["answer"] for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    last = said[-32:]
    assert len(said) == 64 and sum(text.endswith("blue") for text in last) < 20


def test_short_answers_are_worth_more_once_length_counts(start: str, tmp_path: Path) -> None:
    run(recipe_of(start, tmp_path / "run", length=4.0, length_from=0.0, length_full=0.0, steps=12, peak=1e-3))
    found = logged(tmp_path / "run")
    assert fmean(line["length"] for line in found[-3:]) < fmean(line["length"] for line in found[:2]) - 1
    assert found[-1]["right"] > found[0]["right"] + 0.2


def test_the_length_reward_ramps_in() -> None:
    recipe = recipe_of("nano", Path("x"), steps=10, length=0.4, length_from=0.2, length_full=0.6)
    assert [round(length_weight(recipe, step), 3) for step in range(10)] == [0, 0, 0, 0.1, 0.2, 0.3, *[0.4] * 4]
    at_once = replace(recipe, length_full=0.2)
    assert [length_weight(at_once, step) for step in range(4)] == [0, 0, 0.4, 0.4]


# ---- the same numbers ----------------------------------------------------------------------------------------------


def shown(seed: int) -> list[Message]:
    """None, one or two pictures of their own sizes, between words."""
    random = Random(seed)
    parts: list[PicturePart | TextPart] = [TextPart("Look. ")]
    for number in range(seed % 3):
        size = (random.randrange(20, 90), random.randrange(20, 90))
        parts += [PicturePart(Image.effect_noise(size, 60).convert("RGB")), TextPart(f" That was {number}. ")]
    return [Message("user", (*parts, TextPart("What is this?")))]


def test_engine_and_trainer_mean_the_same_numbers() -> None:
    """Of nano's own sampled answers, and with no gradient to the tower (I4).

    One preprocessing gives the ids and pictures of both (I1), nothing is padded (I2), and each question has its own
    pictures, however many (I3).
    """
    model = KimiVL.from_pretrained("nano", dtype="float32").model
    policy = Policy(model)
    for name, weight in policy.named_parameters():
        weight.requires_grad_(name.startswith("model.language_model."))
    params = [SamplingParams(max_new_tokens=24, temperature=1.0, logprobs=0, n=3, seed=seed) for seed in range(6)]
    conversations = [shown(seed) for seed in range(6)]
    rollouts = Rollouts(model, PROCESSOR, cache=8192).answer(conversations, params)
    piece = piece_of(rollouts)
    now = piece.logprobs(policy)
    assert int(piece.which.max()) == 17 and len(now) == sum(len(answer.ids) for r in rollouts for answer in r.answers)
    assert (now - piece.drawn_at).abs().mean() < 1e-5
    for messages, rollout in zip(conversations, rollouts, strict=True):
        inputs = PROCESSOR(messages)
        assert rollout.prompt.tolist() == inputs.input_ids.tolist()
        if inputs.pixel_values is None:
            assert rollout.features is None
        else:
            assert_close(rollout.features, model.image_features(inputs.pixel_values, inputs.image_grid_hws).detach())
    # Another question's pictures of the same sizes would be found out.
    swapped = replace(piece, features=None if piece.features is None else piece.features.roll(1, 0))
    with torch.no_grad():
        assert (swapped.logprobs(policy) - piece.drawn_at).abs().mean() > 1e-2
    now.sum().backward()
    assert all(p.grad is None for name, p in policy.named_parameters() if "language_model" not in name)
    # The same seeds, the same answers; others, others.
    again = Rollouts(model, PROCESSOR, cache=2048).answer(conversations, params)
    assert [a.text for r in again for a in r.answers] == [a.text for r in rollouts for a in r.answers]
    assert len({a.text for a in rollouts[0].answers}) > 1


def test_a_question_read_once_is_read_before_each_answer() -> None:
    """Log-probabilities and gradients, of answers of any length, one token among them."""
    model = random_model(config=TINY)
    policy = Policy(model)
    generator = torch.Generator().manual_seed(0)
    asked = [
        (torch.randint(0, 50, (prompt,), generator=generator), [torch.randint(0, 50, (n,)) for n in answers])
        for prompt, answers in ((5, (1, 4, 9)), (1, (1, 1)), (12, (3,)))
    ]

    def gradients(logprobs: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        # No two tokens weigh the same.
        (logprobs * torch.arange(1, len(logprobs) + 1)).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    once = policy(row_of(asked), None)
    each = []
    for prompt, answers in asked:
        for answer in answers:
            logits = model(torch.cat((prompt, answer)), [len(prompt) + len(answer)]).logits
            each.append(token_logprobs(logits[len(prompt) - 1 : -1], answer))
    apart = torch.cat(each)
    assert_close(once, apart)
    wanted = gradients(apart)
    found = gradients(policy(row_of(asked), None))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_a_run_ends_where_engine_and_trainer_drift_apart(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ExactModel.logits

    def other(self: ExactModel, x: Tensor) -> Tensor:
        return plain(self, x) * 1.05

    monkeypatch.setattr(ExactModel, "logits", other)
    with pytest.raises(ValueError, match=r"step 1: engine and trainer differ by .* above the recipe's gap of 0\.001"):
        run(recipe_of(start, tmp_path / "run"))
    assert not (tmp_path / "run" / FILE).exists()


# ---- going on ------------------------------------------------------------------------------------------------------

RECIPE = f"""
stage = "rl"
run = "RUN"
start = "START"
steps = 4
batch_size = 8
updates = 2
peak = 3e-3
max_new_tokens = 40
cache = 8192
save_every = 1
opening = 0.5

[[problems]]
name = "colours"
levels = 2
draw = "{MODULE}:posed"
"""


def kept(folder: Path) -> dict[str, Any]:
    files = {name: (folder / name).read_text() for name in ("asked.jsonl", "samples.jsonl")}
    return files | {"log": logged(folder)}


def weights(folder: Path) -> dict[str, Tensor]:
    state = StateFile(folder / FILE)
    with torch.device("meta"):
        wanted = KimiVLForConditionalGeneration(small()).state_dict()
    found = {f"model/model.{name}": torch.empty(t.shape, dtype=t.dtype) for name, t in wanted.items()}
    state.read(found)
    return found


def alone(rank: int, recipe: RLRecipe) -> None:
    run(recipe)


def beside_another(rank: int, port: int, recipe: RLRecipe) -> None:
    with entered(rank, 2, port):
        run(recipe)


def test_killed_in_a_step_it_goes_on_alike(start: str, tmp_path: Path) -> None:
    """The same answers, the same updates, to the last bit, wherever SIGKILL met it."""
    levels = (ProblemsRecipe("colours", f"{MODULE}:posed", 2),)
    few = {"steps": 6, "batch_size": 4, "answers": 4, "updates": 2, "save_every": 2, "opening": 0.5}
    recipe = recipe_of(start, tmp_path / "whole", problems=levels, **few)
    run(recipe)
    parts, random, kills, saved = tmp_path / "parts", Random(7), 0, -1
    while not (parts / "model").exists():
        running = begin(alone, (replace(recipe, run=str(parts)),), 1, join=False)
        assert running is not None
        (process,) = running.processes
        # As it begins, in a step, or between two.
        process.join(random.uniform(0.5, 2.5) if kills < 4 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.join()
            step = StateFile(parts / FILE).progress.step if (parts / FILE).exists() else 0
            assert saved <= step < 6
            saved = step
    assert kills >= 2
    assert kept(parts) == kept(tmp_path / "whole")
    ours, theirs = weights(parts), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_goes_on_with_what_it_was_begun_with(start: str, tmp_path: Path) -> None:
    recipe = recipe_of(start, tmp_path / "run", steps=2)
    run(recipe)
    with pytest.raises(ValueError, match="the run was begun with answers 8, not 4"):
        run(replace(recipe, answers=4))


def test_two_processes_do_as_one(start: str, tmp_path: Path) -> None:
    """Each answers its half; what is learned is the same (I8: layers are not spread, the only ways are these)."""
    one = recipe_of(start, tmp_path / "one", steps=2, updates=1, exams=(ExamRecipe("e", f"{MODULE}:exam", 5),))
    run(one)
    begin(beside_another, (free_port(), replace(one, run=str(tmp_path / "two"))), 2)
    assert (tmp_path / "two" / "asked.jsonl").read_text() == (tmp_path / "one" / "asked.jsonl").read_text()
    for ours, theirs in zip(logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-4), name
    two, alone = (KimiVL.from_pretrained(str(tmp_path / name / "model")).model for name in ("two", "one"))
    for (name, mine), other in zip(two.named_parameters(), alone.parameters(), strict=True):
        # AdamW's first steps are as long for a gradient of rounding as for any other.
        assert (mine - other).abs().mean() < 1e-4, name


# ---- recipes and pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('start = "START"', "", "start is missing"),
        ("steps = 4", "steps = 4\nanswers = 1", "answers must be at least 2, to be compared, not 1"),
        ("steps = 4", "steps = 4\nobjective = 'ppo'", "objective is one of mirror_descent, grpo, not 'ppo'"),
        ("steps = 4", "steps = 4\nreward = 'x'", "reward is one of rule, chance, not 'x'"),
        ("opening = 0.5", "opening = 2", "opening is a share of the steps, 0 to 1, not 2"),
        ("steps = 4", "steps = 4\nlength_from = 0.7", "length_full 0.6 is before length_from 0.7"),
        ("steps = 4", "steps = 4\ntau = -1", "tau must be at least 0, not -1"),
        ("levels = 2", "levels = 0", "problems colours: levels must be at least 1, not 0"),
        ("levels = 2", "weight = 2", "there is no key 'weight'; known are name, draw, levels"),
        (RECIPE[RECIPE.index("[[") :], "", "problems: give at least one [[problems]]"),
        ("steps = 4", "steps = 4\nprioritised = 1", "prioritised must be bool, not 1"),
        ("steps = 4", "steps = 4\nsources = []", "there is no key 'sources'"),
    ],
)
def test_what_is_no_recipe_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_rl_recipe(path)
    assert str(path) in str(caught.value) and told in str(caught.value)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"problems": (ProblemsRecipe("x", "nowhere:x"),)}, "problems x: there is no nowhere:x"),
        ({"exams": (ExamRecipe("x", f"{MODULE}:nothing", 3),)}, "exam x: there is no"),
        ({"batch_size": 9}, "a batch of 9 problems is not cut evenly for 1 processes, 4 updates and 1 pieces"),
        ({"start": "not a folder"}, "no model 'not a folder'"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_answer(
    start: str, tmp_path: Path, wishes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        run(recipe_of(start, tmp_path / "run", **wishes))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_the_page_shows_rewards_and_answers(start: str, tmp_path: Path) -> None:
    run(recipe_of(start, tmp_path / "run", steps=2, updates=1, save_every=1))
    report(tmp_path / "run", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for title in ("reward", "share of right answers", "tokens of an answer", "divergence within a step"):
        assert f'aria-label="{title}"' in page
    assert 'aria-label="loss: ' not in page
    assert page.count("<img") == 4 and page.count('class="reward"') == 16
    told = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert page.count('<b class="badge">wrong</b>') == sum(not line["right"] for line in told)
