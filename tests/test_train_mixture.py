"""What changes over a run, and what a run may not go on with: weights, the resolution of pictures, a changed file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_vl.config import nano
from kimi_vl.patches import cut_bytes, joined
from kimi_vl.train.data.characters import FRAMES_PER_COLUMN
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Batch, Sample
from kimi_vl.train.data.resolution import Resolution
from kimi_vl.train.recipe import SourceRecipe
from kimi_vl.train.run import run
from tests.test_train_recipe import recipe_of, small
from tests.training import IMAGES, captioned, logged, words

STEPS = 11
GROWING = Resolution(0.5, 0.4, IMAGES)


def draw_words(seed: int, index: int) -> Sample:
    return words(4, index, 2)


def draw_shown(seed: int, index: int, patch: int = 14) -> Sample:
    return captioned(index, (4 + 2 * (index % 3), 8), [3, 4], "ab" if index % 2 else None, patch=patch)


def draw_for_nano(seed: int, index: int) -> Sample:
    return draw_shown(seed, index, nano().vision_config.patch_size)


def mixture(*, passes: int = 1, resolution: Resolution | None = None, batch_size: int = 400) -> Mixture:
    """Pictures are half of it at first, and three quarters at the end."""
    sources = [Source("words", 1.0, draw_words), Source("pictures", 1.0, draw_shown, weight_end=3.0)]
    return Mixture(sources, seed=0, batch_size=batch_size, passes=passes, steps=STEPS, resolution=resolution)


def grids(batches: list[Batch]) -> list[tuple[int, int]]:
    return [(h, w) for batch in batches for h, w in batch.image_grid_hws.tolist()]


# --- weights ---------------------------------------------------------------------------------------------------


def test_a_share_rises_in_a_line() -> None:
    data = mixture()
    pictures = [len(grids(data[step])) / 400 for step in range(STEPS)]
    for step, share in enumerate(pictures):
        weight = 1.0 + 2.0 * step / (STEPS - 1)
        assert share == pytest.approx(weight / (weight + 1.0), abs=0.07)
    # A batch beyond the last is of the end.
    assert data.progress(STEPS + 5) == 1.0


def test_a_batch_that_comes_again_is_as_it_was_when_it_first_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kimi_vl.train.data.mixture._ROUND", 4)
    data = Mixture(mixture().sources, seed=0, batch_size=2, passes=3, steps=24)
    seen: dict[int, int] = {}
    for step in range(24):
        seen.setdefault(data.number_of(step), step)
    assert {number: data.progress(number) for number in seen} == {n: step / 23 for n, step in seen.items()}


@pytest.mark.parametrize("resolution", [None, GROWING])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_mixture_that_changes_is_resumed_to_the_same_batches(
    resolution: Resolution | None, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_vl.train.data.mixture._ROUND", 3)
    whole = list(mixture(passes=passes, resolution=resolution, batch_size=6).batches(0, STEPS, workers=0))
    rest = list(mixture(passes=passes, resolution=resolution, batch_size=6).batches(4, STEPS, workers=0))
    assert len(rest) == STEPS - 4
    for (ours,), (theirs,) in zip(rest, whole[4:], strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert torch.equal(ours.image_grid_hws, theirs.image_grid_hws)
        if ours.pixels is not None or theirs.pixels is not None:
            assert ours.pixels is not None and theirs.pixels is not None and torch.equal(ours.pixels, theirs.pixels)


def test_what_changes_over_a_run_has_to_know_its_steps() -> None:
    for source, resolution in (
        (Source("words", 1.0, draw_words, weight_end=2.0), None),
        (Source("words", 1.0, draw_words), GROWING),
    ):
        with pytest.raises(ValueError, match="needs to know its steps"):
            Mixture([source], seed=0, batch_size=1, resolution=resolution)
    with pytest.raises(ValueError, match="above zero"):
        Mixture([Source("words", 1.0, draw_words, weight_end=0.0)], seed=0, batch_size=1, steps=3)


def test_a_run_that_changes_does_not_go_on_to_other_steps_or_weights(tmp_path: Path) -> None:
    """Its next batch would not be the next one; with weights that stay, more steps are welcome."""
    first = SourceRecipe("draw", 1.0, draw="tests.test_train_recipe:draw")
    rising = replace(first, name="rising", weight_end=2.0)
    recipe = recipe_of(tmp_path, "joint", "draw", config=str(small(tmp_path)), sources=(first, rising))
    run(recipe, workers=0)
    before = (tmp_path / "joint" / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match="begun with steps 4, not 6"):
        run(replace(recipe, steps=6), workers=0)
    with pytest.raises(ValueError, match=r"begun with sources .*'rising': \[1\.0, 2\.0\]"):
        run(replace(recipe, sources=(first, replace(rising, weight_end=None))), workers=0)
    assert (tmp_path / "joint" / "state.safetensors").read_bytes() == before


# --- resolution ------------------------------------------------------------------------------------------------


def test_pictures_grow_to_their_size() -> None:
    """Half of their sides at first, all of them after two fifths of the run."""
    data, whole = mixture(resolution=GROWING), mixture()
    sizes = []
    for step in range(STEPS):
        ours, theirs = grids(data[step]), grids(whole[step])
        assert len(ours) == len(theirs)
        assert all(h <= H and w <= W for (h, w), (H, W) in zip(ours, theirs, strict=True))
        sizes.append(sum(h * w for h, w in ours) / sum(h * w for h, w in theirs))
        assert ours == theirs or step < 4
    assert sizes == sorted(sizes) and sizes[0] < 0.4 and sizes[2] < 1.0
    # Texts stay, and the very samples are drawn.
    assert torch.equal(data[0][0].input_ids, whole[0][0].input_ids)
    assert data[0][0].written == whole[0][0].written


def test_a_smaller_picture_shows_the_same() -> None:
    """Red on the left, and below it blue: nothing is turned or cut off."""
    pixels = torch.zeros(8 * 56 // 4, 3, 14, 14, dtype=torch.uint8).view(8, 14, 3, 14, 14)
    pixels[:, :7, 0] = 200
    pixels[6:, :, 2] = 100
    sample = Sample(torch.tensor([0, 1]), torch.tensor([False, True]), pixels.flatten(0, 1), torch.tensor([[8, 14]]))
    small = Resolution(0.5, 1.0, IMAGES).of(sample, 0.0)
    assert small.image_grid_hws.tolist() == [[4, 8]]  # of 7, padded
    assert small.pixels is not None
    seen = small.pixels.view(4, 8, 3, 14, 14).float().mean((-1, -2))
    assert torch.allclose(seen[:3, :3, 0], torch.tensor(200.0), atol=6) and seen[:, 4:, 0].max() < 20
    assert torch.allclose(seen[3, :7, 2], torch.tensor(100.0), atol=6) and seen[:2, :, 2].max() < 10
    assert seen[:, 7].max() == 0


def test_patches_are_joined_to_the_picture_that_they_were_cut_from() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = bytes(
        torch.randint(0, 256, (2 * 14, 6 * 14, 3), dtype=torch.uint8, generator=generator).flatten().tolist()
    )
    picture = joined(cut_bytes(pixels, 2, 6, IMAGES), 2, 6)
    assert picture.size == (84, 28) and picture.tobytes() == pixels


@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 12)),
    text=st.text("abc ", max_size=60),
    start=st.floats(0.05, 1.0),
    progress=st.floats(0.0, 1.0),
)
def test_a_line_keeps_the_frames_that_its_characters_need(
    grid: tuple[int, int], text: str, start: float, progress: float
) -> None:
    before = captioned(0, (2 * grid[0], 2 * grid[1]), [3], text)
    after = Resolution(start, 0.5, IMAGES).of(before, progress)
    ((h, w),) = after.image_grid_hws.tolist()
    assert after.pixels is not None and len(after.pixels) == h * w and h % 2 == w % 2 == 0
    had, has = 2 * grid[1] * FRAMES_PER_COLUMN, w * FRAMES_PER_COLUMN
    assert has >= min(had, 2 * len(text) + 1)
    assert (h, w) <= (2 * grid[0], 2 * grid[1])


@pytest.mark.parametrize(("count", "columns"), [(15, 8), (16, 16)])
def test_a_line_of_many_characters_stays(count: int, columns: int) -> None:
    """Of 16 columns of patches 8 are left, 32 frames, of which 15 characters need 31."""
    line = captioned(0, (4, 16), [3], "a" * count)
    assert GROWING.of(line, 0.0).image_grid_hws[0, 1] == columns


def test_a_line_that_is_one_block_high_stays() -> None:
    line = captioned(0, (2, 12), [3], "ab")
    assert GROWING.of(line, 0.0) is line


def test_a_tower_is_trained_on_pictures_that_grow(tmp_path: Path) -> None:
    sources = (SourceRecipe("shown", 1.0, draw="tests.test_train_mixture:draw_for_nano"),)
    wishes = {"config": str(small(tmp_path)), "sources": sources, "reading": 1.0, "steps": 6}
    recipe = recipe_of(tmp_path, "vision", "x", resolution=0.5, growth=0.5, **wishes)
    run(recipe, workers=0)
    run(replace(recipe, run=str(tmp_path / "whole"), resolution=1.0), workers=0)
    assert (logged(tmp_path / "vision")[0]["caption"]) != logged(tmp_path / "whole")[0]["caption"]
    for resolution, told in ((0.6, r"resolution \[0.5, 0.5\], not \[0.6"), (1.0, r"not None")):
        with pytest.raises(ValueError, match=told):
            run(replace(recipe, resolution=resolution), workers=0)


# --- a changed file --------------------------------------------------------------------------------------------


def conversation(answer: str) -> str:
    turns = [{"from": "human", "value": "Which colour?"}, {"from": "gpt", "value": answer}]
    return json.dumps({"conversations": turns}) + "\n"


def test_a_run_does_not_go_on_with_a_changed_file(tmp_path: Path) -> None:
    """Not with one more line, nor with another context, which cuts conversations elsewhere; with the same it does."""
    path = tmp_path / "data.jsonl"
    path.write_text(conversation("red"))
    sources = (SourceRecipe("mine", 1.0, jsonl=str(path)),)
    recipe = recipe_of(tmp_path, "sft", "x", config=str(small(tmp_path)), sources=sources)
    run(recipe, workers=0)
    before = (tmp_path / "sft" / "state.safetensors").read_bytes()
    path.write_text(conversation("red") + conversation("blue"))
    with pytest.raises(ValueError, match=r"begun with contents of mine SHA-256 .*, not SHA-256 .*: go on with that"):
        run(replace(recipe, steps=6), workers=0)
    path.write_text(conversation("red"))
    with pytest.raises(ValueError, match=r"at a context of 8192, not .* at a context of 4096"):
        run(replace(recipe, steps=6, context=4096), workers=0)
    assert (tmp_path / "sft" / "state.safetensors").read_bytes() == before
    run(replace(recipe, steps=6), workers=0)
    assert len(logged(tmp_path / "sft")) == 6
