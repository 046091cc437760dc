"""A recipe is read strictly, and run to a model that everything else opens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kimi_vl import KimiVL, KimiVLProcessor, SamplingParams
from kimi_vl.checkpoint import load_model, read_config
from kimi_vl.config import KimiVLConfig, nano
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.recipe import ExamRecipe, Recipe, SourceRecipe, read_recipe
from kimi_vl.train.run import run
from kimi_vl.train.stages import STAGES
from kimi_vl.train.state import FILE, StateFile
from kimi_vl.train.watching.examining import Question
from tests.training import captioned, logged, with_picture, words

WHOLE = """
stage = "joint"
run = "there"
config = "config.json"
steps = 4
batch_size = 2
peak = 1e-3

[[sources]]
name = "words"
weight = 2
draw = "tests.test_train_recipe:draw"
"""


PATCH = nano().vision_config.patch_size


def draw(seed: int, index: int) -> Sample:
    return words(6 + index % 3, seed + index, 3)


def draw_caption(seed: int, index: int) -> Sample:
    return captioned(seed + index, (2, 4), [3 + index % 4, 1], "ab" if index % 2 else None, patch=PATCH)


def draw_shown(seed: int, index: int) -> Sample:
    """A picture before a text, at the placeholder that nano has."""
    sample = with_picture(seed + index, patch=PATCH)
    ids = sample.input_ids.clone()
    ids[:2] = nano().media_placeholder_token_id
    return replace(sample, input_ids=ids)


def written(folder: Path, text: str = WHOLE) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_and_wishes_come_first(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path), ["steps=9", "start = .runs/x", "peak=1", "run='a b'"])
    assert recipe == Recipe(
        stage="joint",
        run="a b",
        steps=9,
        batch_size=2,
        peak=1.0,
        sources=(SourceRecipe("words", 2.0, draw="tests.test_train_recipe:draw"),),
        start=".runs/x",
        config="config.json",
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps = 4", "step = 4", "there is no key 'step'; known are stage, run, steps"),
        ("steps = 4", "", "steps is missing"),
        ("steps = 4", "steps = 0", "steps must be at least 1, not 0"),
        ("steps = 4", "steps = 4.5", "steps must be int, not 4.5"),
        ("steps = 4", "steps = true", "steps must be int, not True"),
        ("steps = 4", "steps = '4'", "steps must be int, not '4'"),
        ("peak = 1e-3", "peak = 'high'", "peak must be float, not 'high'"),
        ("peak = 1e-3", "peak = 1\ndecay = 2", "decay is a share of the steps, 0 to 1, not 2.0"),
        ("weight = 2", "weight = 0", "source words: weight must be above 0, not 0.0"),
        ("weight = 2", "weight = 2\nweight_end = 0", "source words: weight_end must be above 0, not 0.0"),
        ("weight = 2", "weight = 2\nweight_end = inf", "source words: weight_end must be above 0, not inf"),
        ("weight = 2", "weight = 2\nweight_end = '1'", "weight_end must be float, not '1'"),
        (
            "peak = 1e-3",
            "peak = 1\nresolution = 1.5",
            "resolution is a share of a picture's sides, above 0 to 1, not 1.5",
        ),
        (
            "peak = 1e-3",
            "peak = 1\nresolution = 0",
            "resolution is a share of a picture's sides, above 0 to 1, not 0.0",
        ),
        ("peak = 1e-3", "peak = 1\ngrowth = 0", "growth is a share of the steps, above 0 to 1, not 0.0"),
        ("weight = 2", "weights = 2", "there is no key 'weights'; known are name, weight, draw, jsonl"),
        ("weight = 2", "weight = 2\njsonl = 'x'", "source words: give either draw or jsonl"),
        ("[[sources]]", "[sources]", r"sources must be tables, each beginning with [[sources]]"),
        (WHOLE[WHOLE.index("[[") :], "", r"sources: give at least one [[sources]]"),
        ("steps = 4", "steps = ", "is not TOML"),
    ],
)
def test_what_is_no_recipe_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = written(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_recipe(path)
    assert str(path) in str(caught.value) and told in str(caught.value)


def test_two_sources_of_a_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE + WHOLE[WHOLE.index("[[") :])
    with pytest.raises(ValueError, match="two are called 'words'"):
        read_recipe(path)


def test_our_own_recipes_are_whole() -> None:
    """Every stage is known, every source is there, and each goes on from the one before it, or from what is shipped."""
    folder = Path(__file__).parents[1] / "recipes" / "nano"
    recipes = {path.stem: read_recipe(path) for path in folder.glob("*.toml")}
    assert {"text", "vision", "alignment", "joint", "cooldown"} <= recipes.keys()
    for recipe in recipes.values():
        assert recipe.stage in STAGES
        assert recipe.start in {None, "nano"} or Path(recipe.start).name in recipes
        assert sum(source.weight_end or source.weight for source in recipe.sources) == pytest.approx(1.0)
    assert len({recipe.seed for recipe in recipes.values()}) == len(recipes)


def test_a_recipe_takes_over_the_sources_of_another(tmp_path: Path) -> None:
    """As they are at its end, all together of the weight that is said, but for those that are left out."""
    own = '[[sources]]\nname = "a"\nweight = 1\nweight_end = 6\ndraw = "m:a"\n'
    own += "".join(f'[[sources]]\nname = "{n}"\nweight = {w}\ndraw = "m:{n}"\n' for n, w in (("b", 3.0), ("c", 1.0)))
    head = WHOLE[: WHOLE.index("[[")]
    (tmp_path / "first.toml").write_text(head + own)
    again = '[[sources]]\nrecipe = "first.toml"\nweight = 0.6\nwithout = ["c"]\n'
    again += '[[sources]]\nname = "d"\nweight = 0.4\ndraw = "m:d"\n'
    recipe = read_recipe(written(tmp_path, head + again))
    assert [(s.name, s.draw, s.weight_end) for s in recipe.sources] == [(n, f"m:{n}", None) for n in "abd"]
    assert [source.weight for source in recipe.sources] == pytest.approx([0.4, 0.2, 0.4])


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('recipe = "nowhere.toml"\nweight = 1', "there is no recipe"),
        ('recipe = "first.toml"\nweight = 1\nwithout = ["x"]', "first.toml has no source 'x'"),
        ('recipe = "first.toml"\nweight = 1\nwithout = "words"', "without must be a list of strings"),
        ('recipe = "first.toml"\nweight = 1\nwithout = ["words"]', "nothing is left of first.toml"),
        ('recipe = "first.toml"', "weight is missing"),
        ('recipe = "first.toml"\nweight = 1\nname = "x"', "there is no key 'name'"),
    ],
)
def test_what_cannot_be_taken_over_is_told(tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "first.toml").write_text(WHOLE)
    path = written(tmp_path, f"{WHOLE[: WHOLE.index('[[')]}[[sources]]\n{table}\n")
    with pytest.raises(ValueError, match=re.escape(told)):
        read_recipe(path)


def test_exams_are_read_and_asked_at_every_save(tmp_path: Path) -> None:
    head, sources = WHOLE[: WHOLE.index("[[")], WHOLE[WHOLE.index("[[") :]
    exam = '[[exams]]\nname = "words"\ndraw = "tests.test_train_recipe:asked"\ncount = 3\n'
    assert read_recipe(written(tmp_path, head + sources + exam)).exams == (
        ExamRecipe("words", "tests.test_train_recipe:asked", 3),
    )
    (tmp_path / "first.toml").write_text(head + sources + exam)
    again = read_recipe(written(tmp_path, f'{head}{sources}[[exams]]\nrecipe = "first.toml"\n'))
    assert [exam.name for exam in again.exams] == ["words"]
    with pytest.raises(ValueError, match="exams must be tables"):
        read_recipe(written(tmp_path, 'exams = "words"\n' + head + sources))
    known = {"config": str(small(tmp_path)), "steps": 3, "save_every": 2, "show": 0}
    run(recipe_of(tmp_path, "joint", "draw", exams=(ExamRecipe("words", f"{__name__}:asked", 3),), **known), workers=0)
    assert [line["step"] for line in logged(tmp_path / "joint") if "right: words" in line] == [2, 3]
    for draw, told in (("nothing", "there is no"), ("none_asked", "gives no question for a count of 3")):
        recipe = recipe_of(tmp_path, "sft", "draw", exams=(ExamRecipe("x", f"{__name__}:{draw}", 3),), **known)
        with pytest.raises(ValueError, match=f"exam x: .*{told}"):
            run(recipe, workers=0)
        assert not (tmp_path / "sft" / "log.jsonl").exists()


def asked(count: int) -> list[Question]:
    return [Question(draw(1, index), str.isalpha) for index in range(count)]


def none_asked(count: int) -> list[Question]:
    return []


def small(folder: Path) -> Path:
    """Nano's vocabulary in a model that learns in no time."""
    config = nano()
    text = replace(config.text_config, hidden_size=64, num_hidden_layers=2, intermediate_size=64, rope_theta=50_000.0)
    vision = replace(config.vision_config, hidden_size=48, num_hidden_layers=1, intermediate_size=64)
    path = folder / "config.json"
    path.write_text(json.dumps(replace(config, text_config=text, vision_config=vision).to_dict()))
    return path


def recipe_of(folder: Path, stage: str, source: str, **wishes: object) -> Recipe:
    known: dict[str, object] = {"run": str(folder / stage), "steps": 4, "batch_size": 4, "peak": 1e-2, "warmup": 1}
    known |= {"sources": (SourceRecipe(source, 1.0, draw=f"tests.test_train_recipe:{source}"),), "save_every": 2}
    return Recipe(stage=stage, **known | wishes)  # type: ignore[arg-type]


def test_stages_follow_each_other_to_a_model_that_opens(tmp_path: Path) -> None:
    """Text, captions, pictures; each moves its own part only. The model and its processor are stored together (J8)."""
    config = small(tmp_path)
    run(recipe_of(tmp_path, "text", "draw", config=str(config)), workers=0)
    run(recipe_of(tmp_path, "vision", "draw_caption", start=str(tmp_path / "text"), reading=1.0), workers=0)
    run(recipe_of(tmp_path, "alignment", "draw_shown", start=str(tmp_path / "vision")), workers=0)
    run(recipe_of(tmp_path, "joint", "draw_shown", start=str(tmp_path / "alignment")), workers=0)
    models = {stage: load_model(tmp_path / stage / "model") for stage in ("text", "vision", "alignment", "joint")}
    moved = {
        stage: {
            part
            for part in ("vision_tower", "multi_modal_projector", "language_model")
            for name, weight in models[before].state_dict().items()
            if name.startswith(part) and not torch.equal(models[stage].state_dict()[name], weight)
        }
        for before, stage in (("text", "vision"), ("vision", "alignment"), ("alignment", "joint"))
    }
    assert moved["vision"] == {"vision_tower"}
    assert moved["alignment"] == {"vision_tower", "multi_modal_projector"}
    assert moved["joint"] == {"vision_tower", "multi_modal_projector", "language_model"}
    folder = tmp_path / "joint" / "model"
    model, processor = KimiVL.from_pretrained(folder), KimiVLProcessor.from_pretrained(folder)
    assert model.generate(processor([{"role": "user", "content": "Hello"}]), SamplingParams(max_new_tokens=3))


def test_a_part_that_is_held_still_stays_while_the_rest_moves(tmp_path: Path) -> None:
    start = run(recipe_of(tmp_path, "text", "draw", config=str(small(tmp_path))), workers=0)
    still = ["model.vision_tower.", "model.language_model.model.layers.1."]
    ended = run(recipe_of(tmp_path, "joint", "draw_shown", start=str(start), still=still), workers=0)
    before, after = load_model(start).state_dict(), load_model(ended).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in moved if f"model.{name}".startswith(tuple(still))}
    assert {name.split(".")[0] for name in moved} == {"multi_modal_projector", "language_model"}
    assert "language_model.model.layers.0.self_attn.o_proj.weight" in moved


def test_what_is_exported_is_what_was_trained(tmp_path: Path) -> None:
    """(H13)"""
    folder = run(recipe_of(tmp_path, "joint", "draw_shown", config=str(small(tmp_path))), workers=0)
    trained, stored = load_model(tmp_path / "joint" / "model"), load_model(folder, dtype=torch.bfloat16)
    assert all(torch.equal(weight, stored.state_dict()[name]) for name, weight in trained.state_dict().items())
    sample = draw_shown(0, 0)
    with torch.inference_mode():
        logits = stored(sample.input_ids[2:], [6]).logits
    assert logits.isfinite().all()


def test_a_run_goes_on_and_ends_once(tmp_path: Path) -> None:
    config = str(small(tmp_path))
    run(recipe_of(tmp_path, "joint", "draw", config=config, steps=3), workers=0)
    run(recipe_of(tmp_path, "joint", "draw", config=config, steps=6), workers=0)
    assert [line["step"] for line in logged(tmp_path / "joint")] == [1, 2, 3, 4, 5, 6]
    run(recipe_of(tmp_path, "joint", "draw", config=config, steps=6), workers=0)
    assert len(logged(tmp_path / "joint")) == 6
    assert not list((tmp_path / "joint").glob(".*"))


def test_a_file_of_conversations_is_learned_from(tmp_path: Path) -> None:
    """With the pictures that it names; what is wrong in it is told before anything is trained."""
    Image.new("RGB", (56, 28), "red").save(tmp_path / "red.png")
    turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": "red"}]
    line = json.dumps({"image": "red.png", "conversations": turns})
    (tmp_path / "data.jsonl").write_text(line + "\n" + line.replace("red.png", "blue.png") + "\n")
    sources = (SourceRecipe("mine", 1.0, jsonl=str(tmp_path / "data.jsonl")),)
    recipe = recipe_of(tmp_path, "sft", "draw", config=str(small(tmp_path)), sources=sources, steps=20)
    with pytest.raises(ValueError, match=r"data\.jsonl:2: .*blue\.png"):
        run(recipe, workers=0)
    assert not (tmp_path / "sft").exists()
    (tmp_path / "data.jsonl").write_text(line + "\n")
    run(recipe, workers=0)
    losses = [line["text"] for line in logged(tmp_path / "sft")]
    assert losses[-1] < 0.2 * losses[0]


def test_the_base_of_the_rotary_embedding_rises_with_the_context(tmp_path: Path) -> None:
    run(recipe_of(tmp_path, "joint", "draw", config=str(small(tmp_path))), workers=0)
    folder = run(recipe_of(tmp_path, "long_context", "draw", start=str(tmp_path / "joint")), workers=0)
    assert read_config(tmp_path / "joint").text_config.rope_theta == 50_000.0
    assert read_config(folder).text_config.rope_theta == 800_000.0


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"stage": "rlhf"}, "there is no stage 'rlhf'; there are text, vision"),
        ({"config": "nowhere.json"}, "config: there is no file nowhere.json"),
        ({"config": None}, "give start"),
        ({"start": "nowhere"}, "no model 'nowhere'"),
        ({"batch_size": 4, "pieces": 3}, "is not cut evenly"),
        ({"resolution": 0.5}, "resolution: stage joint has conversations, whose pictures keep their size"),
        ({"stage": "vision", "placing": 0.1}, "placing: the vision stage has no projector"),
        ({"still": ["vision_tower."]}, "still: no weight's name begins with 'vision_tower.'; .* model.vision_tower."),
        ({"still": ["model.", "reader.", "placer."]}, "still: model., reader., placer. is all that this stage moves"),
        ({"sources": (SourceRecipe("x", 1.0, draw="nowhere:x"),)}, "source x: there is no nowhere:x"),
        ({"sources": (SourceRecipe("x", 1.0, draw="tests.training:nothing"),)}, "source x: there is no tests.training"),
        ({"sources": (SourceRecipe("x", 1.0, draw="json"),)}, "source x"),
    ],
)
def test_what_cannot_be_run_is_told_before_any_work(tmp_path: Path, wishes: dict[str, object], told: str) -> None:
    known: dict[str, object] = {"config": str(small(tmp_path))}
    recipe = replace(recipe_of(tmp_path, "joint", "draw"), **known | wishes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=told):
        run(recipe, workers=0)
    assert not (tmp_path / "joint").exists()


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"patch_size": 14}, "the processor cuts patches of 8 pixels, the model sees 14: load both from the same"),
        ({"merge_kernel_size": (1, 2)}, "the processor merges 2 x 2 patches, the model 1 x 2: load both from the same"),
    ],
)
def test_pictures_for_another_model_are_told_before_any_work(tmp_path: Path, wish: dict[str, Any], told: str) -> None:
    config = KimiVLConfig.from_dict(json.loads(small(tmp_path).read_text()))
    config = replace(config, vision_config=replace(config.vision_config, **wish))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(ValueError, match=told):
        run(recipe_of(tmp_path, "joint", "draw", config=str(tmp_path / "config.json")), workers=0)
    assert not (tmp_path / "joint").exists()


def test_on_the_command_line(tmp_path: Path) -> None:
    small(tmp_path)
    command = [sys.executable, "-m", "kimi_vl.cli", "train", "run", str(written(tmp_path))]
    where = ["--set", f"run={tmp_path / 'run'}", "--set", f"config={tmp_path / 'config.json'}", "--workers", "0"]
    done = subprocess.run([*command, *where, "--tensorboard"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'run' / 'model'}\n"), done.stderr
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    told_there = [(event.step, event.value) for event in events.Scalars("text")]
    assert told_there == [(line["step"], pytest.approx(line["text"])) for line in logged(tmp_path / "run")]
    for wrong, told in ((["--set", "steps"], "'steps' sets nothing"), (["--set", "seed=x"], "seed must be int")):
        refused = subprocess.run([*command, *wrong], capture_output=True, text=True, check=False)
        assert refused.returncode == 2 and told in refused.stderr and refused.stderr.count("\n") == 1
    report = [sys.executable, "-m", "kimi_vl.cli", "train", "report"]
    done = subprocess.run([*report, str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'run' / 'report.html'}\n"), done.stderr
    refused = subprocess.run([*report, str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def draw_slowly(seed: int, index: int) -> Sample:
    time.sleep(0.1)
    return draw(seed, index)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_at_a_step_that_is_saved(tmp_path: Path, number: signal.Signals) -> None:
    """To the whole group, as a terminal sends it; the run goes on as if nothing had been."""
    small(tmp_path)
    path = written(tmp_path, WHOLE.replace("test_train_recipe:draw", "test_train_recipe:draw_slowly"))
    config, parts = f"config={tmp_path / 'config.json'}", tmp_path / "parts"
    wishes = [config, "steps=16", "show=0", f"run={parts}"]
    command = [sys.executable, "-m", "kimi_vl.cli", "train", "run", str(path), "--workers", "1"]
    command += [word for wish in wishes for word in ("--set", wish)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 60
    while len(logged(parts)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(running.pid, number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    done = len(logged(parts))
    assert 3 <= done < 16
    assert told.splitlines()[-1] == f"stopped after step {done}: the same command goes on from there"
    assert "Traceback" not in told
    assert StateFile(parts / FILE).progress.step == done
    threads = torch.get_num_threads()
    for folder in (parts, tmp_path / "whole"):
        run(read_recipe(written(tmp_path), [*wishes[:3], f"run={folder}"]), workers=0)
    torch.set_num_threads(threads)
    assert logged(parts) == logged(tmp_path / "whole")
