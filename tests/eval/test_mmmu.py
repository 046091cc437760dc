"""MMMU and MMMU-Pro: in its official format, what each way asks, and how it marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_vl.eval.scoring import letters
from kimi_vl.eval.task import Verdict
from kimi_vl.eval.tasks import (
    mmmu,
    mmmu_pro,
)
from tests.eval.pictures import asked, mark, rows_of, write_parquet


def mmmu_row(**changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": "validation_Accounting_1",
        "question": "See <image 1> and again <image 1>: which?",
        "options": "['$6', '<image 2>', 'it\\'s both']",
        "answer": "B",
        "question_type": "multiple-choice",
        "image_1": "red",
        "image_2": "green",
        **{f"image_{number}": None for number in range(3, 8)},
    }
    return row | changed


OPEN = mmmu_row(
    id="validation_Math_15",
    question="What is it?",
    options="[]",
    answer="['24/7', '3.429']",
    question_type="open",
    image_1="blue",
    image_2=None,
)
MMMU_IMAGES = [f"image_{number}" for number in range(1, 8)]


@pytest.fixture
def mmmu_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mmmu, "_DOMAINS", {"Business": ("Accounting",), "Science": ("Math",)})
    monkeypatch.setattr(mmmu, "_COUNT", 2)
    write_parquet(tmp_path / "Accounting/validation-00000-of-00001.parquet", [mmmu_row()], MMMU_IMAGES)
    write_parquet(tmp_path / "Math/validation-00000-of-00001.parquet", [OPEN], MMMU_IMAGES)
    return tmp_path


def test_mmmu_has_its_30_subjects() -> None:
    subjects = [subject for some in mmmu._DOMAINS.values() for subject in some]
    stored = {row["id"].removeprefix("validation_").rpartition("_")[0] for row in rows_of("mmmu_val_qwen_vl")}
    assert len(subjects) == 30
    assert set(subjects) == stored


def test_mmmu_shows_pictures_at_their_tags(mmmu_folder: Path) -> None:
    item, opened = mmmu.MMMU.load(mmmu_folder)
    assert asked(mmmu.MMMU, "official", item) == [
        "See ",
        "[red]",
        " and again ",
        "[red]",
        ": which?\n(A) $6\n(B) ",
        "[green]",
        "\n(C) it's both\n\nAnswer with the option's letter from the given choices directly.",
    ]
    assert asked(mmmu.MMMU, "lmms-eval", item) == [
        "See",
        "[red]",
        "and again",
        "[red]",
        ": which?\nA. $6\nB.",
        "[green]",
        "C. it's both\n\nAnswer with the option's letter from the given choices directly.",
    ]
    assert asked(mmmu.MMMU, "vlmevalkit", item) == [
        "Question: See ",
        "[red]",
        " and again ",
        "[red]",
        ": which?\nOptions:\nA. $6\nB. ",
        "[green]",
        "\nC. it's both\nPlease select the correct answer from the options above. \n",
    ]
    in_words = "Answer the question using a single word or phrase."
    assert asked(mmmu.MMMU, "official", opened) == ["[blue]", f"What is it?\n{in_words}"]
    assert asked(mmmu.MMMU, "lmms-eval", opened) == ["[blue]", f"What is it?\n\n{in_words}"]
    assert asked(mmmu.MMMU, "vlmevalkit", opened) == ["[blue]", "Question: What is it?\n"]


def test_mmmu_groups_by_subject_and_domain(mmmu_folder: Path) -> None:
    item, opened = mmmu.MMMU.load(mmmu_folder)
    assert mmmu.MMMU.groups(item) == ("Accounting", "Business")
    assert mmmu.MMMU.groups(opened) == ("Math", "Science")


def test_mmmu_draws_lots_where_nothing_is_read(mmmu_folder: Path) -> None:
    item, _ = mmmu.MMMU.load(mmmu_folder)
    assert mark(mmmu.MMMU, "official", item, "I think (A), no, (B)") == Verdict(1.0, "B")
    # Neither of these is a lone B by the official rule.
    for said in ("The answer is B. Because", "**B**", ""):
        drawn = [mark(mmmu.MMMU, "official", item, said, lots=seed) for seed in range(30)]
        assert all(one.by_lot and one.read is None and one.fixed == 0.0 for one in drawn)
        assert {one.score for one in drawn} == {0.0, 1.0}
        assert drawn[0] == mark(mmmu.MMMU, "official", item, said, lots=0)
    assert mark(mmmu.MMMU, "lmms-eval", item, "The answer is B. Because") == Verdict(1.0, "B")
    assert mark(mmmu.MMMU, "vlmevalkit", item, "the second one") == Verdict(0.0, None)


def test_mmmu_open_answers(mmmu_folder: Path) -> None:
    _, opened = mmmu.MMMU.load(mmmu_folder)
    assert opened.answers == ("24/7", "3.429")
    assert mark(mmmu.MMMU, "official", opened, "So it is 3.43") == Verdict(1.0, "3.43")
    assert mark(mmmu.MMMU, "official", opened, "So it is 24/7").score == 1.0
    assert mark(mmmu.MMMU, "official", opened, "So it is 24").score == 0.0
    assert mark(mmmu.MMMU, "official", opened, "") == Verdict(0.0, None)


def test_mmmu_open_answers_are_options_for_vlmevalkit(mmmu_folder: Path) -> None:
    _, opened = mmmu.MMMU.load(mmmu_folder)
    assert mark(mmmu.MMMU, "vlmevalkit", opened, "['24/7', '3.429']") == Verdict(1.0, "A")
    assert mark(mmmu.MMMU, "vlmevalkit", opened, "B") == Verdict(0.0, "B")
    capital = mmmu.Question("x", "Pharmacy", "?", (), ("B",), ())
    # Its answer is the letter B, which then names the option of all other answers.
    assert mark(mmmu.MMMU, "vlmevalkit", capital, "Other Answers") == Verdict(1.0, "B")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "D"}, "validation_Accounting_1: the answer 'D' is none of 3 options"),
        ({"options": "A, B"}, "validation_Accounting_1: 'A, B' is no list"),
        ({"image_2": None}, "validation_Accounting_1: there is no picture in image_2"),
        ({"question": "See <image 9>"}, "validation_Accounting_1: there is no picture in image_9"),
        ({"id": "validation_Math_15"}, "has 'validation_Math_15' 2 times, and must have it once"),
    ],
)
def test_mmmu_refuses_broken_rows(mmmu_folder: Path, changed: dict[str, Any], message: str) -> None:
    write_parquet(mmmu_folder / "Accounting/validation-00000-of-00001.parquet", [mmmu_row(**changed)], MMMU_IMAGES)
    with pytest.raises(ValueError, match=message):
        mmmu.MMMU.load(mmmu_folder)


def test_mmmu_refuses_what_is_not_whole(mmmu_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmmu, "_COUNT", 900)
    with pytest.raises(ValueError, match="has 2 items, and the benchmark 900"):
        mmmu.MMMU.load(mmmu_folder)
    (mmmu_folder / "Math/validation-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no Math/validation-\*.parquet"):
        mmmu.MMMU.load(mmmu_folder)


def test_mmmu_refuses_a_table_without_a_column(mmmu_folder: Path) -> None:
    row = mmmu_row()
    del row["options"]
    write_parquet(mmmu_folder / "Accounting/validation-00000-of-00001.parquet", [row], MMMU_IMAGES)
    with pytest.raises(ValueError, match=r"Accounting.*options missing; there are id, question"):
        mmmu.MMMU.load(mmmu_folder)


@pytest.mark.parametrize(("model", "right"), [("qwen_vl", 309), ("llava1.5_13b", 329)])
def test_mmmu_marks_stored_answers_as_its_own_code_did(model: str, right: int) -> None:
    verdicts = []
    for row in rows_of(f"mmmu_val_{model}"):
        answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        options = tuple(row.get("index2ans", {}).values()) if row["question_type"] == "multiple-choice" else ()
        question = mmmu.Question(row["id"], "", "", options, tuple(answers), ())
        verdicts.append(mark(mmmu.MMMU, "official", question, row["response"]))
    assert sum(one.without_faults for one in verdicts) == right
    lucky = sum(one.by_lot and one.score for one in verdicts)
    assert sum(one.score for one in verdicts) == right + lucky


# ---- MMMU-Pro ----


@pytest.fixture
def mmmu_pro_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mmmu_pro, "_COUNT", 1)
    row = mmmu_row(id="test_History_1", subject="History", options="['<image 2>', 'an age', '<image 1>']")
    write_parquet(tmp_path / "standard (10 options)/test-00000-of-00002.parquet", [row], MMMU_IMAGES)
    return tmp_path


def test_mmmu_pro_asks(mmmu_pro_folder: Path) -> None:
    (item,) = mmmu_pro.MMMU_PRO.load(mmmu_pro_folder)
    before = ["See ", "[red]", " and again ", "[red]", ": which?\nA. ", "[green]", "\nB. an age\nC. ", "[red]"]
    assert asked(mmmu_pro.MMMU_PRO, "official", item) == [
        *before,
        "\nAnswer with the option letter from the given choices directly.",
    ]
    assert asked(mmmu_pro.MMMU_PRO, "step-by-step", item) == [
        *before,
        "\nAnswer the preceding multiple choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before "
        "answering.",
    ]
    told = asked(mmmu_pro.MMMU_PRO, "vlmevalkit", item)
    assert (told[0], told[4]) == ("Question: See ", ": which?\nOptions:\nA. ")
    assert told[-1] == "\nAnswer directly with the option letter from the given choices. "
    assert mmmu_pro.MMMU_PRO.groups(item) == ("History", "Humanities and Social Science")


def test_mmmu_pro_marks(mmmu_pro_folder: Path) -> None:
    (item,) = mmmu_pro.MMMU_PRO.load(mmmu_pro_folder)
    assert mark(mmmu_pro.MMMU_PRO, "official", item, "(A) is near.\nAnswer: B") == Verdict(1.0, "B")
    assert mark(mmmu_pro.MMMU_PRO, "official", item, "B. an age") == Verdict(1.0, "B")
    assert mark(mmmu_pro.MMMU_PRO, "official", item, "hm").by_lot
    assert mark(mmmu_pro.MMMU_PRO, "vlmevalkit", item, "hm") == Verdict(0.0, None)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Answer: A\nNo. Answer: B", "B"),
        ("Answer: A or B (C)", "C"),  # several letters are none, and the whole is read
        ("DNA is meant", "A"),
        ("B. Because", "B"),
        ("First A then B here", "B"),
        ("CA and DB ", "A"),  # none stands alone
        ("it must be an old vase then", "C"),
        ("a vase", None),
    ],
)
def test_mmmu_pro_rule(said: str, read: str | None) -> None:
    assert letters.mmmu_pro(said, {"A": "pot", "B": "jar", "C": "vase"}) == read


def test_mmmu_pro_refuses_broken_data(mmmu_pro_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmmu_pro, "_COUNT", 1730)
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 1730"):
        mmmu_pro.MMMU_PRO.load(mmmu_pro_folder)
    row = mmmu_row(id="test_History_1", subject="History", answer="J")
    write_parquet(mmmu_pro_folder / "standard (10 options)/test-00000-of-00002.parquet", [row], MMMU_IMAGES)
    with pytest.raises(ValueError, match="test_History_1: the answer 'J' is none of 3 options"):
        mmmu_pro.MMMU_PRO.load(mmmu_pro_folder)
