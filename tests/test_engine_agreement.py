"""How near 4 bits are to the original: the streamed original is the original, and the figures are those of both."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kimi_vl.checkpoint import Checkpoint, load_model, write_random_checkpoint
from kimi_vl.cli import main
from kimi_vl.config import nano
from kimi_vl.engine import agreement
from kimi_vl.engine.agreement import MOST_TOKENS_OF_A_TEXT, QUESTION, Prompt, compare, read_prompts
from kimi_vl.engine.backend import backend
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.streamed import StreamedModel
from kimi_vl.engine.weights import Segment
from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor

ROOT = Path(__file__).parents[1]
LINE, TEXT = ROOT / "docs" / "line.png", ROOT / "docs" / "nano.md"
PROCESSOR = KimiVLProcessor.from_pretrained("nano")
READING: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image", "image": str(LINE)}, {"type": "text", "text": "Read the text."}]},
    {"role": "assistant", "content": "Turn left at the second street."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreeing") / "nano4"
    quantize(NANO, folder, backend())
    return folder


def prompts(*paths: Path) -> list[Prompt]:
    return read_prompts(paths, PROCESSOR, nano())


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    path = tmp_path / "reading.json"
    path.write_text(json.dumps(READING))
    return path


def test_the_streamed_model_is_the_model() -> None:
    exact, streamed = load_model(NANO, dtype=torch.float32), StreamedModel(Checkpoint(NANO))
    line, text = prompts(LINE, TEXT)
    assert line.pixel_values is not None
    with torch.inference_mode():
        features = exact.image_features(line.pixel_values, line.image_grid_hws)
        x = torch.cat([exact.embed(line.ids, features), exact.embed(text.ids)])
        lengths = [len(line.ids), len(text.ids)]
        states = exact.hidden(x, torch.cat([torch.arange(n) for n in lengths]), lengths).states
        wanted = exact.language_model.lm_head(states)
    assert torch.equal(streamed.image_features(line.pixel_values, line.image_grid_hws), features)
    assert torch.equal(streamed.embed(text.ids), x[len(line.ids) :])
    assert torch.equal(streamed.hidden(x, lengths), states)
    assert torch.allclose(streamed.logits(states), wanted, atol=1e-4)
    assert {p.device.type for p in (*streamed._model.parameters(), *streamed._model.buffers())} == {"meta"}


def test_the_figures_are_those_of_both_models_in_memory(folder: Path, reading: Path) -> None:
    """Two prompts, one longer than a step; against models that are loaded whole and asked one prompt at a time."""
    both = prompts(reading, TEXT)
    found = compare(Checkpoint(NANO), folder, both, backend())
    assert [part.prompt for part in found] == [str(reading), str(TEXT), "all"]
    exact, model = load_model(NANO, dtype=torch.float32), EngineModel.from_folder(folder, backend())
    placeholder = nano().media_placeholder_token_id
    every = []
    for prompt, part in zip(both, found, strict=False):
        x = model.embed(prompt.ids).clone()
        counted = prompt.ids != placeholder
        if prompt.pixel_values is not None:
            h, w = prompt.image_grid_hws[0].tolist()
            x[~counted] = model.image_features(prompt.pixel_values, (h, w))
        pages = tuple(range(-(-len(x) // 64)))
        states = model.run(x, [Segment(pages, 0, len(x), True)], model.new_cache(len(pages)))
        q = model.logits(states[counted].contiguous()).log_softmax(-1)
        with torch.inference_mode():
            output = exact(prompt.ids, [len(x)], pixel_values=prompt.pixel_values, image_grid_hws=prompt.image_grid_hws)
        p = output.logits[counted].log_softmax(-1)
        kl = (p.exp() * (p - q)).sum(-1)
        every.append(kl)
        assert part.tokens == len(kl)
        assert part.kl_mean == pytest.approx(float(kl.mean()), rel=0.01)
        assert part.top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()), abs=0.005)
    together = torch.cat(every)
    assert found[-1].tokens == len(together)
    assert found[-1].kl_99 == pytest.approx(float(together.quantile(0.99)), rel=0.05)


def test_four_bits_of_nano_stay_near_on_a_real_picture(folder: Path, reading: Path) -> None:
    *_, together = compare(Checkpoint(NANO), folder, prompts(reading), backend())
    assert 0 < together.kl_mean < 0.15 and together.kl_mean < together.kl_99
    assert together.top1 > 0.75


def test_each_kind_of_file_is_a_prompt(tmp_path: Path, reading: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / "long.txt"
    long.write_text("word " * 5000)
    picture, text, messages = prompts(LINE, long, reading)
    content = [{"type": "image", "image": str(LINE)}, {"type": "text", "text": QUESTION}]
    alone = PROCESSOR([{"role": "user", "content": content}])
    assert torch.equal(picture.ids, alone.input_ids)
    assert text.pixel_values is None and len(text.ids) == MOST_TOKENS_OF_A_TEXT
    assert torch.equal(messages.ids, PROCESSOR(READING, add_generation_prompt=False).input_ids)
    monkeypatch.setattr(agreement, "MOST_TOKENS", 1500)
    with pytest.raises(ValueError, match=r"have 2,\d\d\d tokens, which is more than 1,500"):
        prompts(long, long)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.txt", None, "none.txt cannot be read: No such file"),
        ("empty.txt", b"", "empty.txt holds no text"),
        ("noise.png", b"\x89PNG\0\0", "noise.png: .*"),
        ("broken.json", b"[", "broken.json is not JSON"),
        ("object.json", b"{}", "object.json must hold a list of messages"),
        ("wrong.json", b'[{"role": "nobody", "content": "x"}]', r"wrong.json: messages\[0\]"),
    ],
)
def test_what_cannot_be_checked_is_named(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        prompts(tmp_path / name)


def ended(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def test_the_command_writes_what_it_found(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "nano4"
    shutil.copytree(folder, target)
    assert json.loads((target / "report.json").read_text())["agreement"] == []
    before = {path.name: path.stat().st_mtime_ns for path in target.glob("*.safetensors")}
    # the folder is there: it is not written again
    assert ended("quantize", "nano", target, "--check", LINE) == 0
    assert {path.name: path.stat().st_mtime_ns for path in target.glob("*.safetensors")} == before
    report = json.loads((target / "report.json").read_text())
    assert report["kinds"]["experts"]["relative_error"] < 0.09
    line, together = report["agreement"]
    assert (line["prompt"], together["prompt"]) == (str(LINE), "all")
    assert line["kl_mean"] == together["kl_mean"] and line["tokens"] == together["tokens"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].split()[:3] == ["all", str(line["tokens"]), f"{line['kl_mean']:.4f}"]
    assert f"{100 * line['top1']:.1f} %" in shown[-1]


def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = replace(nano().text_config, num_hidden_layers=2)
    write_random_checkpoint(replace(nano(), text_config=text), tmp_path / "other", seed=0)
    PROCESSOR.save_pretrained(tmp_path / "other")
    for arguments, reason in (
        (("nano", tmp_path / "new", "--check", tmp_path / "none.txt"), "none.txt cannot be read"),
        ((tmp_path / "other", folder, "--check", LINE), "is of another model: name another folder"),
        (("nano", folder), "exists: name another folder"),
    ):
        assert ended("quantize", *arguments) == 2
        assert reason in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
