"""The planner: its arithmetic against real files and a real process, and what it says when something does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from kimi_vl.cli import main
from kimi_vl.config import KimiVLConfig, a3b, nano
from kimi_vl.engine import engine as serving
from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.fitting import check_start, smaller
from kimi_vl.engine.layout import layer_file, planned_bytes, stored_bytes
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.plan import EXACT_STEP, Demand, Limits, Plan, Weights, exact_weights, int4_weights, plan
from kimi_vl.engine.quantize import quantize
from kimi_vl.generate import PREFILL_CHUNK
from kimi_vl.hub import NANO
from kimi_vl.machine import Machine
from kimi_vl.patches import ImageProcessorConfig
from tests.conftest import GOLDEN_CONFIG

LAPTOP = Machine(memory=16 * 10**9, available=14 * 10**9, cores=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "nano4"
    quantize(NANO, folder, backend())
    return folder


def a3b_in_4_bits() -> Weights:
    return int4_weights(planned_bytes(a3b()))


def needed(demand: Demand) -> Plan:
    return plan(a3b(), a3b_in_4_bits(), demand)


# --- bytes of the format ------------------------------------------------------------------------------------------


def test_every_file_is_as_large_as_planned(folder: Path) -> None:
    held = {path.name: sum(t.nbytes for t in load_file(path).values()) for path in folder.glob("*.safetensors")}
    assert planned_bytes(nano()) == held == stored_bytes(folder, nano())


def test_sizes_that_fill_no_block_are_planned_too(tmp_path: Path) -> None:
    from kimi_vl.checkpoint import write_random_checkpoint

    write_random_checkpoint(GOLDEN_CONFIG, tmp_path / "golden", seed=0)
    quantize(tmp_path / "golden", tmp_path / "golden4", backend())
    assert planned_bytes(GOLDEN_CONFIG) == stored_bytes(tmp_path / "golden4", GOLDEN_CONFIG)


def test_a_file_that_is_not_there_yet_is_taken_as_planned(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_bytes((8).to_bytes(8, "little") + bytes(8) + bytes(100))
    sizes = stored_bytes(tmp_path, nano())
    assert sizes["head.safetensors"] == 100
    assert sizes[layer_file(2)] == planned_bytes(nano())[layer_file(2)]


# --- against a process --------------------------------------------------------------------------------------------

# A context of 100,000 tokens, written to its end by the engine's own functions: the first 512 tokens, 64 at the far
# end, one answer behind them. What has been imported, and run once, counts as the program. Pages of no file are what
# the process took; with those of files they are all that is resident.
MEASURE = """
import sys, torch
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.weights import Segment

def resident(*names):
    with open("/proc/self/status") as file:
        numbers = dict(line.split(":") for line in file)
    return [1024 * int(numbers[name].split()[0]) for name in names]

torch.ones(64, 64) @ torch.ones(64, 64)
before = sum(resident("RssAnon", "RssShmem"))
engine = Engine.from_pretrained(sys.argv[1], options=EngineOptions(context=100_000))
engine._cache.zero_()
pages = tuple(range(engine.pages))
for start, tokens, is_prompt in ((0, 512, True), (99_000, 64, True), (99_999, 1, False)):
    x = torch.randn(tokens, engine.config.text_config.hidden_size)
    x = engine.model.run(x, [Segment(pages, start, tokens, is_prompt)], engine._cache)
    assert engine.model.logits(x[-1:].contiguous()).isfinite().all()
print(sum(resident("RssAnon", "RssShmem")) - before, *resident("VmHWM"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read where Linux tells it")
def test_a_context_of_100_000_tokens_takes_what_was_planned(folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True)
    growth, peak = map(int, ran.stdout.split())
    files = stored_bytes(folder, nano())
    planned = plan(nano(), int4_weights(files), Demand(context=100_000))
    assert growth == pytest.approx(planned.peak - planned.program - sum(files.values()), rel=0.1)
    assert peak == pytest.approx(planned.peak, rel=0.1)


def test_the_planner_knows_what_others_do() -> None:
    options, demand = EngineOptions(), Demand(context=1)
    assert (demand.step_tokens, demand.feature_tokens) == (options.step_tokens, options.feature_tokens)
    assert EXACT_STEP == PREFILL_CHUNK


# --- what is asked, and what fits ---------------------------------------------------------------------------------


def test_the_published_model_in_numbers() -> None:
    """27 layers of 512 + 64 bfloat16 numbers for each token; 2,048 float32 for each token of a picture."""
    one = needed(Demand(context=16384, pictures=3))
    assert one.cache == 27 * 576 * 2 * 16384
    assert one.features == 3 * 1024 * 2048 * 4
    assert one.pixels == 3 * 4096 * 3 * 14 * 14 * 4
    assert one.weights + one.picture_weights == sum(planned_bytes(a3b()).values())
    two = needed(Demand(context=16384, pictures=3, batch=2))
    assert (two.cache, two.features, two.encoder) == (2 * one.cache, 2 * one.features, one.encoder)
    # pages of 64 tokens are taken whole
    assert needed(Demand(context=65)).cache == needed(Demand(context=128)).cache
    # of many pictures only some are kept
    assert needed(Demand(context=131072, pictures=100)).features == (16384 + 1024) * 2048 * 4


def test_the_original_needs_its_own_width() -> None:
    for form, width in (("bfloat16", 2), ("float32", 4)):
        held = plan(a3b(), exact_weights(a3b(), form), Demand(context=2048, batch=8))
        assert held.weights + held.picture_weights == pytest.approx(width * 16.41e9, rel=0.001)
        assert held.cache == 27 * 576 * width * 2048


@pytest.mark.parametrize(
    "demand",
    [
        Demand(context=131072, batch=4),
        Demand(
            context=40960, pictures=4, batch=3, size=(1792, 1792), settings=ImageProcessorConfig(in_token_limit=16384)
        ),
        Demand(context=16384, pictures=8, size=(800, 400)),
    ],
)
def test_what_is_offered_instead_fits_and_a_little_more_does_not(demand: Demand) -> None:
    free = needed(demand).peak - 30 * 10**6

    def fits(other: Demand) -> bool:
        return needed(other).peak <= free

    offered = smaller(demand, fits)
    assert offered and all(map(fits, offered))
    for other in offered:
        if other.context < demand.context:
            assert not fits(replace(other, context=other.context + 64))
        if other.batch < demand.batch:
            assert not fits(replace(other, batch=other.batch + 1))
        if other.pictures < demand.pictures:
            assert not fits(replace(other, pictures=other.pictures + 1))
        if other.size != demand.size:
            assert not fits(
                replace(other, size=(other.size[0] + 28, other.size[1] + 28 * other.size[1] // other.size[0]))
            )


def test_if_nothing_alone_is_enough_all_shrink_together() -> None:
    free = needed(Demand(context=4096)).peak
    demand = Demand(context=131072, batch=2, pictures=100)
    assert smaller(demand, lambda other: needed(other).peak <= free) == [
        replace(demand, batch=1, pictures=0, context=4096)
    ]
    assert smaller(demand, lambda _: False) == []


# --- refusing -----------------------------------------------------------------------------------------------------


def start(config: KimiVLConfig, context: int, available: int | None) -> None:
    machine = replace(LAPTOP, available=available)
    weights = int4_weights(planned_bytes(config))
    limits = Limits(context, step_tokens=512, most_running=16, feature_tokens=16384)
    check_start("a3b4", config, weights, limits, ImageProcessorConfig(), machine)


def test_an_engine_that_would_not_fit_is_refused_with_what_would() -> None:
    start(a3b(), 16384, available=12 * 10**9)
    with pytest.raises(
        ValueError, match=r"a3b4 needs 1[34]\.\d GB .* 4\.1 GB for a context of 131,072 .*12\.0 GB are free"
    ):
        start(a3b(), 131072, available=12 * 10**9)
    with pytest.raises(ValueError, match=r"a context of ([\d,]+) would fit") as refused:
        start(a3b(), 131072, available=12 * 10**9)
    offered = int(str(refused.value).split("a context of ")[-1].split(" would")[0].replace(",", ""))
    start(a3b(), offered, available=12 * 10**9)
    with pytest.raises(ValueError, match="free some memory"):
        start(a3b(), 131072, available=9 * 10**9)


def test_where_nobody_knows_what_is_free_an_engine_starts() -> None:
    start(a3b(), 131072, available=None)


def test_an_engine_asks_before_it_reads_a_weight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "this_machine", lambda: replace(LAPTOP, available=300 * 10**6))
    monkeypatch.setattr(EngineModel, "from_folder", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(
        ValueError, match=r"needs .* for a context of 1,000,000 tokens.* 300\.0 MB are free: a context of"
    ):
        Engine.from_pretrained(folder, options=EngineOptions(context=1_000_000))


# --- the command --------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kimi_vl.cli.plan.this_machine", lambda: LAPTOP)


@pytest.mark.usefixtures("on_a_laptop")
def test_a_config_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(a3b().to_dict()))
    found = json.loads(shown(capsys, "plan", tmp_path, "--context", "32768", "--size", "640x480", "--json"))
    assert found["demand"] == {
        "context": 32768,
        "batch": 1,
        "pictures": 1,
        "size": [640, 480],
        "tokens_per_picture": 414,
    }
    int4, bfloat16, _ = found["ways"]
    assert (int4["weights"], int4["fits"], int4["instead"]) == ("int4", True, [])
    assert (bfloat16["weights"], bfloat16["fits"], bfloat16["instead"]) == ("bfloat16", False, [])
    assert int4["bytes"] == {**vars(needed(Demand(32768, pictures=1, size=(640, 480)))), "peak": int4["bytes"]["peak"]}
    text = shown(capsys, "plan", tmp_path, "--context", "65536", "--batch", "2", "--pictures", "2")
    assert "int4: does not fit" in text and "--batch 1, or --context " in text
    assert "bfloat16: does not fit" in text and "nothing smaller fits either" in text


@pytest.mark.usefixtures("on_a_laptop")
def test_a_4_bit_folder_has_one_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (way,) = json.loads(shown(capsys, "plan", folder, "--json"))["ways"]
    assert way["bytes"]["weights"] + way["bytes"]["picture_weights"] == sum(stored_bytes(folder, nano()).values())
    assert "int4: fits, with 13.7 GB to spare" in shown(capsys, "plan", folder)


def test_picture_limits_are_those_of_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(a3b().to_dict()))
    settings = ImageProcessorConfig(in_token_limit=16384)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings.to_dict()))
    demand = json.loads(shown(capsys, "plan", tmp_path, "--pictures", "2", "--json"))["demand"]
    assert (demand["size"], demand["tokens_per_picture"]) == ([1792, 1792], 4096)
