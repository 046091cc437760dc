"""What all benchmarks of pictures share: folders and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kimi_vl.eval.files import Cell, Parquet, checked_unique, shown, tables
from kimi_vl.eval.task import Task
from kimi_vl.eval.tasks import (
    ai2d,
    blink,
    infovqa,
    mathvista,
    mmbench,
    mmmu,
    mmmu_pro,
    mmstar,
    ocrbench,
    realworldqa,
)
from tests.eval.pictures import IMAGE

TASKS = (
    mmmu.MMMU,
    mmmu_pro.MMMU_PRO,
    mathvista.MATHVISTA,
    mmbench.MMBENCH,
    mmstar.MMSTAR,
    ai2d.AI2D,
    ai2d.AI2D_NO_MASK,
    blink.BLINK,
    realworldqa.REALWORLDQA,
    infovqa.INFOVQA,
    ocrbench.OCRBENCH,
)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_folder_with_nothing_in_it_names_what_it_lacks(tmp_path: Path, task: Task[Any]) -> None:
    with pytest.raises(ValueError, match=r"has no .*(parquet|json|tsv).*official format"):
        task.load(tmp_path)
    assert next(iter(task.ways)) == "official"


def test_a_picture_that_is_only_a_link(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "elsewhere.png"}], IMAGE)}), path)
    with pytest.raises(ValueError, match="the picture in image is not in its table"):
        shown(Cell(Parquet([path], ["image"]), (0, 0, 0), "image"))


def test_tables_are_of_the_first_pattern_in_order(tmp_path: Path) -> None:
    for name in ("b-1.parquet", "b-0.parquet", "a-0.parquet"):
        (tmp_path / name).touch()
    assert [path.name for path in tables(tmp_path, "c-*", "b-*", "a-*")] == ["b-0.parquet", "b-1.parquet"]
    checked_unique([], "nothing")
