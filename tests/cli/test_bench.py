"""``kimi-vl bench`` on nano in 4 bits: every figure that is asked for, and what is refused; no size matters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kimi_vl.cli import main
from kimi_vl.engine.backend import backend
from kimi_vl.engine.quantize import quantize
from kimi_vl.hub import NANO

Run = Callable[..., tuple[int, str, str]]
FEW = ("--prompt", "48", "--answer", "3", "--repeat", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "nano4"
    quantize(NANO, folder, backend())
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["bench", *map(str, arguments)])
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    return run


def test_every_figure_is_measured(folder: Path, run: Run) -> None:
    depths = ("--depth", "0", "--depth", "128", "--depth", "640")
    code, out, _ = run(folder, *FEW, *depths, "--requests", "3", "--size", "64x96", "--threads", "1", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["threads"] == 1
    found = {(row["name"], row["at"]): row for row in report["figures"]}
    at_depth = ("prefill", "decode", "resident", "anonymous", "file-backed")
    of_picture = ("picture encoder", "first question", "second question")
    assert set(found) == {
        ("ready", ""),
        *((name, at) for name in at_depth for at in ("0", "128", "640")),
        ("decode together", "3"),
        *((name, "64x96") for name in of_picture),
    }
    for (name, _), row in found.items():
        once = name in ("ready", "resident", "anonymous", "file-backed")
        assert len(row["values"]) == (1 if once else 2)
        assert once or all(0 <= share <= 1 for share in row["others"])
        assert all(value > 0 for value in row["values"])
        assert min(row["values"]) <= row["median"] <= max(row["values"])
        assert row["unit"] == ("s" if name == "ready" or name in of_picture else "bytes" if once else "tokens/s")


def test_the_table_has_a_line_for_each(folder: Path, run: Run) -> None:
    code, out, _ = run(folder, *FEW, "--depth", "64", "--requests", "2", "--threads", "1")
    assert code == 0
    lines = out.splitlines()
    assert [line[:40].strip() for line in lines] == [
        "ready",
        "prefill, depth 64",
        "decode, depth 64",
        "resident, depth 64",
        "anonymous, depth 64",
        "file-backed, depth 64",
        "decode together, 2 requests",
    ]
    assert lines[2].count("tokens/s") == 3  # the median, least and most


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--depth 100", "multiple of 64"),
        ("--depth -64", "multiple of 64"),
        ("--depth 131072", "but the context is 131072"),
        ("--repeat 0", "repeat must be at least 1"),
        ("--patience -1", "patience must be 0"),
        ("--size big", "--size big is no size"),
        ("--threads 0", "'--threads'"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments: str, reason: str, folder: Path, run: Run) -> None:
    code, out, err = run(folder, *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


def test_weights_of_16_bits_are_refused(run: Run) -> None:
    code, out, err = run("nano")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "kimi-vl quantize nano" in err
