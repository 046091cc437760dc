"""Layouts for a cluster that is not there: those that fit, the fastest first, and what to ask for if none does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_vl.cli import main, plan_train
from kimi_vl.config import a3b
from kimi_vl.train.plan.choice import Wanted, fits, instead, ways
from kimi_vl.train.plan.devices import DEVICES, LINKS_REACHED, Group, all_to_all_seconds, ring_seconds
from kimi_vl.train.plan.piece import Step
from kimi_vl.train.plan.planned import Plan, plan
from kimi_vl.train.recompute import RECOMPUTE
from kimi_vl.train.scale.layout import Layout

# ---- which layout to take ----


def test_the_ways_that_fit_come_first_and_the_fastest_of_them() -> None:
    wanted = Wanted(devices=8, kind="h100", tokens=2**22, length=8192, picture_share=0.3)
    found = ways(a3b(), wanted)
    fitting = [one for one in found if fits(one, wanted.device)]
    assert 0 < len(fitting) < len(found) and fitting == found[: len(fitting)]
    speeds = [one.tokens_per_second for one in fitting]
    assert speeds == sorted(speeds, reverse=True)
    assert {one.recompute for one in found} == set(RECOMPUTE)
    for one in found:
        # What a recipe with it would be refused for.
        assert one.step.samples % (one.pieces * 8 // one.layout.context_parallel) == 0
        one.layout.check(a3b().text_config)
        if one.pieces > 1 and fits(one, wanted.device):
            fewer = max(pieces for pieces in one.step.pieces(one.layout) if pieces < one.pieces)
            other = plan(a3b(), one.step, one.layout, recompute=one.recompute, pieces=fewer, device=wanted.device)
            assert not fits(other, wanted.device)


def test_what_is_offered_where_nothing_fits_does() -> None:
    wanted = Wanted(devices=2, kind="h100", tokens=2**22, length=131072)
    assert not fits(ways(a3b(), wanted)[0], wanted.device)
    offered = instead(a3b(), wanted)
    assert offered
    for other in offered:
        assert fits(ways(a3b(), other)[0], other.device)
    (more,) = (other.devices for other in offered if other.devices > 2)
    assert not fits(ways(a3b(), replace(wanted, devices=more // 2))[0], wanted.device)


def test_more_of_anything_takes_more() -> None:
    def step_on(layout: Layout, recompute: str = "nothing", pieces: int = 1, length: int = 8192) -> Plan:
        device = DEVICES["h100"]
        return plan(a3b(), Step(64, length), layout, recompute=recompute, pieces=pieces, device=device)

    one = step_on(Layout(8))
    assert step_on(Layout(16)).memory.weights * 2 == pytest.approx(one.memory.weights, rel=0.001)
    assert step_on(Layout(8), pieces=2).memory.activations < one.memory.activations
    assert step_on(Layout(8), pieces=2).seconds.weights == 2 * one.seconds.weights
    assert step_on(Layout(8), "layers").seconds.compute > one.seconds.compute
    assert step_on(Layout(8), "layers").memory.activations < step_on(Layout(8), "cheap").memory.activations
    assert step_on(Layout(8, expert_parallel=8)).seconds.experts > step_on(Layout(8, expert_parallel=2)).seconds.experts
    finest = step_on(Layout(8), pieces=8).memory.activations
    assert step_on(Layout(8, context_parallel=2), pieces=16).memory.activations < finest
    assert step_on(Layout(8), length=16384).work.decoder_attention == pytest.approx(
        4 * one.work.decoder_attention, rel=0.001
    )


def test_a_way_out_of_the_node_is_shared() -> None:
    """Eight cards together carry a ring, one carries what goes straight to a device of another node."""
    h100 = DEVICES["h100"]
    inside = h100.inside * LINKS_REACHED
    assert ring_seconds(inside, Group(8), h100) == 1
    assert ring_seconds(inside, Group(16), h100) == pytest.approx(450 / (8 * 50))
    assert ring_seconds(inside, Group(2, apart=8), h100) == pytest.approx(450 / 50)
    assert all_to_all_seconds(inside, Group(8), h100) == 1
    assert all_to_all_seconds(inside, Group(16), h100) == pytest.approx(8 / 15 * 450 / 50)


# ---- the command ----


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(a3b().to_dict()))
    return tmp_path


def test_the_command_lists_what_fits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("plan", folder, "--train", "--devices", "16", "--context", "32768", "--picture-share", "0.2")
    text = shown(capsys, *asked, "--stage-tokens", "3e11")
    found = json.loads(shown(capsys, *asked, "--stage-tokens", "3e11", "--json"))
    first = found["ways"][0]
    assert found["wanted"]["length"] == 32768 and first["fits"] and found["instead"] == []
    assert first["bytes"]["peak"] <= 0.92 * found["device"]["memory"]
    assert f"{sum(way['fits'] for way in found['ways'])} of {len(found['ways'])} ways fit" in text
    assert f"{first['seconds']['total']:.2f} s" in text and f"{first['days']:,.1f} days" in text
    assert first["tokens_per_second"] == pytest.approx(first["batch_size"] * 32768 / first["seconds"]["total"])


def test_the_command_says_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "plan", folder, "--train", "--devices", "1")
    assert "nothing fits" in text and "are missing; try --devices 8" in text
    assert "days" not in text
    assert all(f"--device {name}" not in text for name in DEVICES)


def test_every_device_can_be_asked_for() -> None:
    assert {kind.value for kind in plan_train.Kind} == set(DEVICES)
