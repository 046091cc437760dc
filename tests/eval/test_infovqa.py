"""InfographicVQA: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kimi_vl.eval.tasks import (
    infovqa,
)
from tests.eval.pictures import asked, mark, write_images, write_parquet

GRAPHIC = {
    "questionId": "98313",
    "question": "Which brand leads?",
    "answers": ["Google Maps", "Google"],
    "answer_type": ["Image-Span"],
}


@pytest.fixture(params=["table", "json"])
def infovqa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setattr(infovqa, "_COUNT", 1)
    if request.param == "table":
        path = tmp_path / "InfographicVQA/validation-00000-of-00001.parquet"
        write_parquet(path, [GRAPHIC | {"image": "red"}], ["image"])
    else:
        write_images(tmp_path / "infographicsvqa_images", **{"70321": "red"})
        told = {"dataset_split": "val", "data": [GRAPHIC | {"questionId": 98313, "image_local_name": "70321.png"}]}
        (tmp_path / "infographicsVQA_val_v1.0_withQT.json").write_text(json.dumps(told))
    return tmp_path


def test_infovqa(infovqa_folder: Path) -> None:
    (item,) = infovqa.INFOVQA.load(infovqa_folder)
    assert item.id == "98313"
    assert asked(infovqa.INFOVQA, "official", item) == [
        "[red]",
        "Which brand leads?\nAnswer the question using a single word or phrase.",
    ]
    assert infovqa.INFOVQA.groups(item) == ("Image-Span",)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (" google\n", 1.0),
        ("Goggle", 1 - 1 / 6),
        ("Goo", 0.5),  # half of it stays
        ("Go", 0.0),
        # Blanks are no edits, but make the text longer.
        ("gogle    maps", 1 - 1 / 13),
        ("", 0.0),
    ],
)
def test_infovqa_marks(said: str, score: float) -> None:
    item = infovqa.Question("1", "?", ("Google Maps", "Google"), (), Path("1.png"))
    verdict = mark(infovqa.INFOVQA, "official", item, said)
    assert verdict.score == pytest.approx(score)
    assert verdict.read == (said.strip() or None)


@pytest.mark.parametrize("name", ["InfographicVQA/test-00000-of-00001.parquet", "infographicsVQA_test_v1.0.json"])
def test_infovqa_has_no_answers_of_its_test(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="the answers of the test questions are hidden: take the validation"):
        infovqa.INFOVQA.load(tmp_path)


def test_infovqa_refuses_broken_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has no infographicsVQA_val_v1\.0_withQT\.json"):
        infovqa.INFOVQA.load(tmp_path)
    path = tmp_path / "InfographicVQA/validation-00000-of-00001.parquet"
    write_parquet(path, [GRAPHIC | {"image": "red"}], ["image"])
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2801"):
        infovqa.INFOVQA.load(tmp_path)
    write_parquet(path, [GRAPHIC | {"image": "red"}] * 2, ["image"])
    with pytest.raises(ValueError, match="has '98313' 2 times"):
        infovqa.INFOVQA.load(tmp_path)
    write_parquet(path, [GRAPHIC | {"image": "red", "answers": []}], ["image"])
    with pytest.raises(ValueError, match="98313: there are no answers; the answers of the test questions are hidden"):
        infovqa.INFOVQA.load(tmp_path)
