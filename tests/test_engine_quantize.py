"""From a checkpoint to a 4-bit folder: what is in it, what an ended run leaves, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kimi_vl import KimiVL
from kimi_vl.checkpoint import Checkpoint, save_model
from kimi_vl.cli import main
from kimi_vl.config import nano
from kimi_vl.engine import int4, layout, store
from kimi_vl.engine import quantize as quantizing
from kimi_vl.engine.backend import Backend, backend
from kimi_vl.engine.engine import Engine
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.quantize import quantize, read_report
from kimi_vl.engine.weights import Segment
from kimi_vl.footprint import footprint
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import KimiVLProcessor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "nano4"
    quantize(NANO, folder, backend())
    return folder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kimi_vl.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_matrix_is_near_its_original(folder: Path) -> None:
    source = Checkpoint(NANO)
    decoder = store.read_decoder(folder, source.config)
    weights = dict(source.read(source.shapes))
    prefix = "language_model.model.layers.2"

    def off_by(matrix: int4.Int4Matrix, name: str) -> float:
        wanted = weights[name].float()
        return float((int4.decode(matrix) - wanted).norm() / wanted.norm())

    attention, feed_forward = decoder.layers[2]
    assert 0.03 < off_by(attention.q, f"{prefix}.self_attn.q_proj.weight") < 0.09
    assert off_by(attention.latent, f"{prefix}.self_attn.kv_a_proj_with_mqa.weight") < 0.01
    assert off_by(attention.o, f"{prefix}.self_attn.o_proj.weight") < 0.01
    assert feed_forward.routed is not None
    assert 0.03 < off_by(feed_forward.routed.experts.down[5], f"{prefix}.mlp.experts.5.down_proj.weight") < 0.09
    assert torch.equal(feed_forward.routed.router, weights[f"{prefix}.mlp.gate.weight"].float())
    assert off_by(decoder.ends.head, "language_model.lm_head.weight") < 0.01
    heads = weights[f"{prefix}.self_attn.kv_b_proj.weight"].float().unflatten(0, (8, 64))
    for h in range(8):
        assert (int4.decode(attention.key[h]).T - heads[h, :32]).norm() < 0.01 * heads[h, :32].norm()
        assert (int4.decode(attention.upright[h]) - heads[h, :32]).norm() < 0.01 * heads[h, :32].norm()
        assert (int4.decode(attention.mix[h]) - heads[h, 32:]).norm() < 0.01 * heads[h, 32:].norm()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of its pages")
def test_layers_are_mapped_and_all_there_from_the_beginning(folder: Path) -> None:
    blocks = store.read_layer(folder, nano(), 1)[1].shared.gate_up.blocks
    seen: dict[str, int] = {}
    is_here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)", line):
            is_here = int(match[1], 16) <= blocks.data_ptr() < int(match[2], 16)
            assert not is_here or Path(match[3]) == folder / "layer-01.safetensors"
        elif is_here and (match := re.match(r"(Size|Rss|Anonymous): +(\d+) kB", line)):
            seen[match[1]] = int(match[2])
    assert seen["Size"] > 0 and seen == {"Size": seen["Size"], "Rss": seen["Size"], "Anonymous": 0}


def test_what_is_written_into_a_tensor_stays_out_of_its_file(folder: Path) -> None:
    before = (folder / "layer-01.safetensors").read_bytes()
    store.read_layer(folder, nano(), 1)[1].shared.gate_up.blocks.fill_(0)
    assert (folder / "layer-01.safetensors").read_bytes() == before


@pytest.mark.parametrize(("layers", "dense", "twice"), [(4, 1, True), (27, 1, False), (27, 3, True), (10, 1, True)])
def test_dense_layers_have_more_bits_where_they_are_many(layers: int, dense: int, twice: bool) -> None:
    text = replace(nano().text_config, num_hidden_layers=layers, first_k_dense_replace=dense)
    assert layout.dense_twice(text) is twice


def test_the_report_counts_every_parameter(folder: Path) -> None:
    parameters = size = 0
    for path in folder.glob("*.safetensors"):
        for kind in read_report(path).values():
            parameters += kind.parameters
            size += kind.bytes
            assert kind.loss.relative < 0.09
    assert parameters == footprint(nano()).total
    assert size == sum(t.nbytes for path in folder.glob("*.safetensors") for t in load_file(path).values())


def test_logits_stay_near(folder: Path) -> None:
    model = EngineModel.from_folder(folder, backend())
    exact = KimiVLForConditionalGeneration(nano())
    source = Checkpoint(NANO)
    exact.load_state_dict({name: t.float() for name, t in source.read(source.shapes)})
    ids = KimiVLProcessor.from_pretrained("nano").tokenizer.encode("It is a truth universally acknowledged, that a man")
    x = model.run(model.embed(torch.tensor(ids)), [Segment((0,), 0, len(ids), True)], model.new_cache(1))
    with torch.inference_mode():
        wanted = exact(torch.tensor(ids), [len(ids)]).logits.log_softmax(-1)
    found = model.logits(x).log_softmax(-1)
    assert float((wanted.exp() * (wanted - found)).sum(-1).mean()) < 0.2
    # an output that is the same whatever was said would be far from all of them
    assert len(set(found.argmax(-1).tolist())) > len(ids) // 3


def test_an_ended_run_goes_on_where_it_stood(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make_layer = quantizing._layer

    def counted(checkpoint: Checkpoint, engine: Backend, index: int) -> quantizing.Made:
        made.append(index)
        if made == [0, 1, 2]:
            raise KeyboardInterrupt
        return make_layer(checkpoint, engine, index)

    monkeypatch.setattr(quantizing, "_layer", counted)
    target = tmp_path / "nano4"
    with pytest.raises(KeyboardInterrupt):
        quantize(NANO, target, backend())
    assert not target.exists()
    quantize(NANO, target, backend())
    assert made == [0, 1, 2, *range(2, nano().text_config.num_hidden_layers)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano4"]
    for path in folder.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
        assert (target / path.name).stat().st_mode & 0o044


def test_another_source_begins_anew(tmp_path: Path) -> None:
    target = tmp_path / "nano4"
    unfinished = tmp_path / ".nano4.unfinished"
    unfinished.mkdir()
    (unfinished / "source.json").write_text("[]")
    (unfinished / layout.layer_file(0)).write_bytes(b"of another source")
    quantize(NANO, target, backend())
    EngineModel.from_folder(target, backend())


def test_sizes_that_fill_no_block_work(tmp_path: Path) -> None:
    text = nano().text_config
    odd = KimiVLForConditionalGeneration(
        type(nano())(
            text_config=type(text)(
                **{
                    **text.__dict__,
                    "hidden_size": 72,
                    "intermediate_size": 40,
                    "moe_intermediate_size": 24,
                    "num_hidden_layers": 2,
                    "vocab_size": 4096,
                    "kv_lora_rank": 16,
                    "qk_nope_head_dim": 16,
                    "qk_rope_head_dim": 6,
                    "v_head_dim": 16,
                }
            ),
            vision_config=nano().vision_config,
            media_placeholder_token_id=3861,
        )
    )
    odd.init_weights(0)
    save_model(odd, tmp_path / "odd")
    quantize(tmp_path / "odd", tmp_path / "odd4", backend())
    model = EngineModel.from_folder(tmp_path / "odd4", backend())
    ids = torch.arange(100)
    x = model.run(model.embed(ids), [Segment((1, 0), 0, 100, True)], model.new_cache(2))
    with torch.inference_mode():
        wanted = odd(ids, [100]).logits
    found = model.logits(x)
    assert found.shape == wanted.shape
    assert float((found - wanted).norm() / wanted.norm()) < 0.5


@pytest.mark.parametrize("missing", ["layer-01.safetensors", "head.safetensors", "vision.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, folder: Path, missing: str) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        EngineModel.from_folder(tmp_path / "broken", backend())


def test_tensors_missing_left_over_or_of_a_wrong_size_are_named(tmp_path: Path, folder: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / layout.layer_file(1)
    tensors = load_file(path)
    name = "language_model.model.layers.1.self_attn.q_proj.blocks"
    for changed, reason in (
        ({k: v for k, v in tensors.items() if k != name}, f"{name} is missing"),
        ({**tensors, "more": torch.zeros(1)}, r"does not ask for: \['more'\]"),
        (
            {**tensors, name: tensors[name][:1]},
            rf"{name} is torch.uint8 \[1, 2, 1088\], not torch.uint8 \[24, 2, 1088\]",
        ),
    ):
        save_file(changed, path)
        with pytest.raises(ValueError, match=reason):
            EngineModel.from_folder(broken, backend())


LAYER = "language_model.model.layers.1"


@pytest.mark.parametrize(
    ("file", "name", "value", "says"),
    [
        (1, f"{LAYER}.self_attn.q_proj.row_scale", torch.nan, "q_proj.row_scale is not finite: .* quantise again"),
        (1, f"{LAYER}.mlp.experts.gate_up_proj.row_scale", torch.inf, "gate_up_proj.row_scale is not finite"),
        (1, f"{LAYER}.mlp.experts.down_proj.row_scale", 0.0, "experts.down_proj is zero throughout: .* quantise again"),
        (1, f"{LAYER}.mlp.gate.weight", torch.nan, "gate.weight is not finite"),
        (None, "vision_tower.encoder.final_layernorm.weight", torch.inf, "final_layernorm.weight is not finite"),
    ],
)
def test_broken_weights_are_named(
    tmp_path: Path, folder: Path, file: int | None, name: str, value: float, says: str
) -> None:
    """All answers would be one token over and over, or noise."""
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / (layout.VISION if file is None else layout.layer_file(file))
    tensors = load_file(path)
    if value == 0.0:
        tensors[name].zero_()
    else:
        tensors[name].view(-1)[3] = value
    save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"{path.name}: .*{says}"):
        EngineModel.from_folder(broken, backend())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (f"{LAYER}.self_attn.o_proj.weight", torch.nan, "o_proj is not finite"),
        (f"{LAYER}.mlp.experts.3.gate_proj.weight", torch.inf, "experts.3.gate_proj is not finite"),
        (f"{LAYER}.mlp.gate.weight", torch.nan, "gate.weight is not finite"),
        ("language_model.lm_head.weight", 0.0, "lm_head is zero throughout"),
        ("multi_modal_projector.linear_1.bias", -torch.inf, "linear_1.bias is not finite"),
    ],
)
def test_a_broken_checkpoint_is_not_quantised(tmp_path: Path, name: str, value: float, says: str) -> None:
    model = KimiVL.from_pretrained("nano")
    tensor = model.model.state_dict()[name]
    if value == 0.0:
        tensor.zero_()
    else:
        tensor.view(-1)[70] = value
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match=f"{says}: the checkpoint is broken"):
        quantize(tmp_path / "broken", tmp_path / "target", backend())
    assert not (tmp_path / "target").exists()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run("quantize", "nano", str(tmp_path / "nano4"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].split()[0] == "together" and any(line.startswith("experts ") for line in lines)
    config = json.loads((tmp_path / "nano4" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "kimi-vl-int4", "version": 4}
    picture = str(Path(__file__).parents[1] / "docs" / "line.png")
    asked = run("ask", picture, "Read the text.", "--model", str(tmp_path / "nano4"))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == "Turn left at the second street.\n"
    for arguments, reason in (
        (["quantize", "nano", str(tmp_path / "nano4")], "exists"),
        (["quantize", str(tmp_path / "nano4"), str(tmp_path / "twice")], "quantised already"),
        (["quantize", str(tmp_path / "nowhere"), str(tmp_path / "x")], "nowhere"),
        (["ask", "Hello?", "--model", str(tmp_path / "nano4"), "--dtype", "float16"], "leave --dtype and --device out"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        told = capsys.readouterr().err
        assert refused.value.code == 2 and reason in told and told.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano4"]


def test_the_exact_model_does_not_take_four_bits(folder: Path) -> None:
    with pytest.raises(ValueError, match="is quantised already: the engine runs it"):
        KimiVL.from_pretrained(folder)


def test_other_quantisations_are_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    for quantization in ({"quant_method": "awq"}, {"quant_method": "kimi-vl-int4", "version": 99}, "int4"):
        (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
        with pytest.raises(ValueError, match="quantised in a way that is not known here"):
            Engine.from_pretrained(tmp_path / "other")
