"""OCRBench: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.task import Marked, Verdict
from kimi_vl.eval.tasks import (
    ocrbench,
)
from tests.eval.pictures import PNGS, TOTALS, asked, mark, rows_of, write_images, write_parquet

SIGN = {
    "dataset_name": "svt",
    "id": 1,
    "image_path": "svt/1.png",
    "question": "what is written in the image?",
    "answers": "CENTRE",
    "type": "Regular Text Recognition",
}
FORMULA = {
    "dataset_name": "HME100k",
    "id": 1,
    "image_path": "2.png",
    "question": "Write it.",
    "answers": ["x ^ 2", "X^{2}"],
    "type": "Handwritten Mathematical Expression Recognition",
}


@pytest.fixture(params=["table", "json"])
def ocrbench_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setattr(ocrbench, "_COUNT", 2)
    if request.param == "table":
        rows = [
            {
                "dataset": row["dataset_name"],
                "question": row["question"],
                "question_type": row["type"],
                "answer": [row["answers"]] if isinstance(row["answers"], str) else row["answers"],
                "image": colour,
            }
            for row, colour in ((SIGN, "red"), (FORMULA, "blue"))
        ]
        write_parquet(tmp_path / "data/test-00000-of-00001.parquet", rows, ["image"])
    else:
        write_images(tmp_path / "OCRBench_Images/svt", **{"1": "red"})
        (tmp_path / "OCRBench_Images/2.png").write_bytes(PNGS["blue"])
        (tmp_path / "OCRBench.json").write_text(json.dumps([SIGN, FORMULA]))
    return tmp_path


def test_ocrbench(ocrbench_folder: Path) -> None:
    sign, formula = ocrbench.OCRBENCH.load(ocrbench_folder)
    assert asked(ocrbench.OCRBENCH, "official", sign) == ["[red]", "what is written in the image?"]
    assert asked(ocrbench.OCRBENCH, "official", formula) == ["[blue]", "Write it."]
    assert ocrbench.OCRBENCH.groups(sign) == ("Regular Text Recognition", "Text Recognition")
    assert ocrbench.OCRBENCH.groups(formula) == ("Handwritten Mathematical Expression Recognition",)
    assert mark(ocrbench.OCRBENCH, "official", sign, "It says\nCentreville.") == Verdict(1.0, "It says\nCentreville.")
    assert mark(ocrbench.OCRBENCH, "official", sign, "C E N T R E") == Verdict(0.0, "C E N T R E")
    assert mark(ocrbench.OCRBENCH, "official", formula, "x^ 2").score == 1.0
    # Of formulae blanks do not count, but case does.
    assert mark(ocrbench.OCRBENCH, "official", formula, "X^2").score == 0.0
    assert mark(ocrbench.OCRBENCH, "official", formula, "") == Verdict(0.0, None)


def test_ocrbench_comes_to_what_its_own_code_gives() -> None:
    marked = []
    for place, row in enumerate(rows_of("ocrbench_items_and_preds")):
        answers = [row["answers"]] if isinstance(row["answers"], str) else row["answers"]
        item = ocrbench.Question(str(place), "", tuple(answers), row["dataset_name"], row["type"], Path("1.png"))
        marked.append(Marked(item, mark(ocrbench.OCRBENCH, "official", item, row["predict"])))
    points = TOTALS["ocrbench_synthetic_preds"]["total"]
    assert ocrbench.OCRBENCH.ways["official"].total(marked) == points / 1000
    recognised = [one for one in marked if "Text Recognition" in ocrbench.OCRBENCH.groups(one.item)]
    assert len(recognised) == 300


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([SIGN], "has 1 items, and the benchmark 2"),
        ([SIGN, FORMULA | {"answers": [" "]}], "item 1: an answer is empty, and any text would hold it"),
        ([SIGN, FORMULA | {"answers": []}], "item 1: an answer is empty"),
        ([SIGN, FORMULA | {"image_path": "3.png"}], r"item 1: there is no picture .*3\.png"),
        ([SIGN, {"type": "x"}], "item 1: dataset_name, question, answers, image_path missing; there are type"),
    ],
)
def test_ocrbench_refuses_broken_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], message: str
) -> None:
    monkeypatch.setattr(ocrbench, "_COUNT", 2)
    write_images(tmp_path / "OCRBench_Images/svt", **{"1": "red"})
    (tmp_path / "OCRBench_Images/2.png").write_bytes(PNGS["blue"])
    (tmp_path / "OCRBench.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        ocrbench.OCRBENCH.load(tmp_path)
