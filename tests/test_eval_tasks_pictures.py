"""Benchmarks of single questions: tiny ones in the official formats, what each way asks of them, and how it marks."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("latex2sympy2_extended", reason="scorers need the extra 'eval'")
pa = pytest.importorskip("pyarrow", reason="tables need the extra 'eval'")
import pyarrow.parquet as pq  # noqa: E402

from kimi_vl.chat import PicturePart, TextPart  # noqa: E402
from kimi_vl.eval.files import Cell, Parquet, checked_unique, shown, tables, tsv  # noqa: E402
from kimi_vl.eval.scoring import letters  # noqa: E402
from kimi_vl.eval.task import I, Marked, Task, Verdict, mean  # noqa: E402
from kimi_vl.eval.tasks import (  # noqa: E402
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

STORED = Path(__file__).parent / "evaldata"
TOTALS = json.loads((STORED / "expected_totals.json").read_text())


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(stream, "PNG")
    return stream.getvalue()


PNGS = {colour: png(colour) for colour in ("red", "green", "blue", "white")}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], images: Sequence[str]) -> None:
    """Cells of ``images`` are colours, or None."""
    columns = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if name in images:
            cells = [one and {"bytes": PNGS[one], "path": f"{one}.png"} for one in cells]
            columns[name] = pa.array(cells, IMAGE)
        else:
            columns[name] = pa.array(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_images(folder: Path, **colours: str) -> None:
    folder.mkdir(parents=True)
    for name, colour in colours.items():
        (folder / f"{name}.png").write_bytes(PNGS[colour])


def asked(task: Task[I], way: str, item: I) -> list[str]:
    """Texts as they are, pictures as [colour]."""
    (message,) = task.ways[way].ask(item)
    assert message.role == "user"
    told = []
    for part in message.parts:
        if isinstance(part, TextPart):
            told.append(part.text)
        else:
            assert isinstance(part, PicturePart)
            data = part.source.read_bytes() if isinstance(part.source, Path) else part.source
            told.append(f"[{next(colour for colour, picture in PNGS.items() if picture == data)}]")
    return told


def mark(task: Task[I], way: str, item: I, said: str, *, lots: int = 0) -> Verdict:
    return task.ways[way].mark(item, said, Random(lots))


def rows_of(name: str) -> list[dict[str, Any]]:
    with gzip.open(STORED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# ---- MMMU ----


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


# ---- MathVista ----

MORE = {"task": "math word problem", "skills": ["arithmetic reasoning", "algebraic reasoning"]}
CHOSEN: dict[str, Any] = {
    "pid": "1",
    "question": "Is it?",
    "image": "images/1.png",
    "choices": ["Yes", "No"],
    "unit": None,
    "precision": None,
    "answer": "No",
    "question_type": "multi_choice",
    "answer_type": "text",
    "metadata": MORE,
}
COUNTED = CHOSEN | {
    "pid": "2",
    "question": "How heavy?",
    "choices": None,
    "unit": "g",
    "precision": 1.0,
    "answer": "1.2",
    "question_type": "free_form",
    "answer_type": "float",
}


def problem(answer: str, answer_type: str, *, precision: int | None = None, choices: Sequence[str] = ()) -> Any:
    return mathvista.Problem(
        "1", "?", "", tuple(choices), answer, answer_type, precision, "a task", ("a skill",), Path("1.png")
    )


@pytest.fixture(params=["table", "json"])
def mathvista_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.setattr(mathvista, "_COUNT", 2)
    rows = [CHOSEN, COUNTED]
    if request.param == "table":
        pictures = [row | {"decoded_image": colour} for row, colour in zip(rows, ("red", "blue"), strict=True)]
        write_parquet(tmp_path / "data/testmini-00000-of-00001.parquet", pictures, ["decoded_image"])
    else:
        write_images(tmp_path / "data/images", **{"1": "red", "2": "blue"})
        told = {row["pid"]: row | {"image": f"images/{row['pid']}.png"} for row in rows}
        (tmp_path / "data/testmini.json").write_text(json.dumps(told))
    return tmp_path


def test_mathvista_asks(mathvista_folder: Path) -> None:
    chosen, counted = mathvista.MATHVISTA.load(mathvista_folder)
    assert asked(mathvista.MATHVISTA, "official", chosen) == [
        "[red]",
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: Is it?\nChoices:\n(A) Yes\n(B) No",
    ]
    assert asked(mathvista.MATHVISTA, "vlmevalkit", counted) == [
        "[blue]",
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the "
        "final value, e.g., 1.2, 1.3, 1.4, at the end.\nQuestion: How heavy? (Unit: g)",
    ]
    assert mathvista.MATHVISTA.groups(chosen) == ("math word problem", "arithmetic reasoning", "algebraic reasoning")


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("No", Verdict(1.0, "No", fixed=1.0)),
        ("It is (A), no, it is (B).", Verdict(1.0, "No", fixed=1.0)),
        ('The answer is "B".', Verdict(1.0, "No", fixed=1.0)),
        ("Answer: A", Verdict(0.0, "Yes", fixed=0.0)),
        # Nothing is most like "No", which has the fewest letters.
        ("", Verdict(1.0, None, by_lot=True, fixed=0.0)),
    ],
)
def test_mathvista_marks_choices(said: str, verdict: Verdict) -> None:
    asked_of = problem("No", "text", choices=["Yes", "No"])
    assert mark(mathvista.MATHVISTA, "official", asked_of, said) == verdict


@pytest.mark.parametrize(
    ("answer", "answer_type", "precision", "said", "verdict"),
    [
        ("14", "integer", None, "14", Verdict(1.0, "14", fixed=1.0)),
        ("14", "integer", None, "There were 20, so 14 are left.", Verdict(1.0, "14", fixed=1.0)),
        ("-3", "integer", None, "x = -3", Verdict(1.0, "-3", fixed=1.0)),
        ("2008", "integer", None, "2007-2008", Verdict(1.0, "2008", fixed=1.0)),
        ("1234", "integer", None, "That is $1,234.00", Verdict(1.0, "1234", fixed=1.0)),
        ("14", "integer", None, "none", Verdict(0.0, None, fixed=0.0)),
        # Its own number with a comma, or a sign, is no number to the official rule.
        ("1234", "integer", None, 'The answer is "1,234".', Verdict(0.0, None, fixed=1.0)),
        ("45", "integer", None, 'The answer is "45%".', Verdict(0.0, None, fixed=1.0)),
        ("1.2", "float", 1, "about 1.23 g", Verdict(1.0, "1.2", fixed=1.0)),
        # Two digits are wanted, and a rounded number has no zero at its end.
        ("1.20", "float", 2, "1.2", Verdict(0.0, "1.2", fixed=1.0)),
        ("1.20", "float", 2, "1.3", Verdict(0.0, "1.3", fixed=0.0)),
        ("[2014, 2016]", "list", None, "Between [1, 2] it is [2014, 2016].", Verdict(1.0, "[2014, 2016]", fixed=1.0)),
        ("[2014, 2016]", "list", None, "[2014,2016]", Verdict(0.0, "[2014,2016]", fixed=1.0)),
        ("[2014, 2016]", "list", None, "2014", Verdict(0.0, None, fixed=0.0)),
    ],
)
def test_mathvista_marks_numbers(
    answer: str, answer_type: str, precision: int | None, said: str, verdict: Verdict
) -> None:
    asked_of = problem(answer, answer_type, precision=precision)
    assert mark(mathvista.MATHVISTA, "official", asked_of, said) == verdict


def test_mathvista_marks_as_vlmevalkit() -> None:
    chosen = problem("No", "text", choices=["Yes", "No"])
    assert mark(mathvista.MATHVISTA, "vlmevalkit", chosen, "It is (B)") == Verdict(1.0, "B")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", chosen, "") == Verdict(0.0, None)
    counted = problem("1.20", "float", precision=2)
    assert mark(mathvista.MATHVISTA, "vlmevalkit", counted, "1.2") == Verdict(1.0, "1.2")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", counted, "It is 1.2") == Verdict(0.0, None)
    whole = problem("14", "integer")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", whole, "14") == Verdict(1.0, "14")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", whole, "14.0") == Verdict(0.0, None)
    several = problem("[1, 2]", "list")
    assert mark(mathvista.MATHVISTA, "vlmevalkit", several, "[1, 2]") == Verdict(0.0, "[1, 2]", fixed=1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "Maybe"}, "1: the answer 'Maybe' is none of 2 choices"),
        ({"answer_type": "colour"}, "1: an answer of the type 'colour'; known are text, integer, float 1"),
        ({"choices": None}, "1: a question of the type multi_choice with 0 choices"),
        ({"pid": "2"}, "has '2' 2 times"),
        ({"metadata": {"task": "x"}}, "1: skills missing; there are task"),
        ({"image": "images/9.png"}, r"1: there is no picture .*9\.png"),
    ],
)
def test_mathvista_refuses_broken_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(mathvista, "_COUNT", 2)
    write_images(tmp_path / "images", **{"1": "red"})
    path = tmp_path / "testmini.json"
    path.write_text(json.dumps({"1": CHOSEN | changed, "2": COUNTED}))
    with pytest.raises(ValueError, match=message):
        mathvista.MATHVISTA.load(tmp_path)


def test_mathvista_refuses_what_is_not_whole(mathvista_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathvista, "_COUNT", 1000)
    with pytest.raises(ValueError, match="has 2 items, and the benchmark 1000"):
        mathvista.MATHVISTA.load(mathvista_folder)


# ---- MMBench ----


def base64_of(colour: str) -> str:
    return base64.b64encode(PNGS[colour]).decode()


def rotated(number: int, options: Sequence[str], right: str, *, hint: str = "") -> list[dict[str, str]]:
    """A question as the circular table has it, with ``nan`` for the options that it lacks."""
    rows = []
    for turn in range(len(options)):
        turned = [*options[turn:], *options[:turn]]
        cells = [*turned, *["nan" if turn else ""] * (4 - len(options))]
        rows.append(
            {
                "index": str(number + turn * 1_000_000),
                "question": f"Question {number}?",
                "hint": hint,
                **dict(zip("ABCD", cells, strict=True)),
                "answer": "ABCD"[turned.index(right)],
                "category": "image_scene",
                "l2-category": "coarse_perception",
                "image": str(number) if turn else base64_of("red" if number == 1 else "green"),
            }
        )
    return rows


TWO = rotated(1, ["yes", "no"], "no", hint="Look.")
FOUR = rotated(7, ["cat", "dog", "cow", "hen"], "cow")


@pytest.fixture
def mmbench_folder(tmp_path: Path) -> Path:
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", [*TWO, *FOUR])
    return tmp_path


def test_mmbench_asks(mmbench_folder: Path) -> None:
    first, second, third, *_ = mmbench.MMBENCH.load(mmbench_folder)
    end = "Please select the correct answer from the options above. \n"
    assert asked(mmbench.MMBENCH, "official", first) == [
        "[red]",
        f"Hint: Look.\nQuestion: Question 1?\nOptions:\nA. yes\nB. no\n{end}",
    ]
    assert asked(mmbench.MMBENCH, "vanilla", second) == [
        "[red]",
        f"Hint: Look.\nQuestion: Question 1?\nOptions:\nA. no\nB. yes\n{end}",
    ]
    assert asked(mmbench.MMBENCH, "official", third) == [
        "[green]",
        f"Question: Question 7?\nOptions:\nA. cat\nB. dog\nC. cow\nD. hen\n{end}",
    ]
    assert mmbench.MMBENCH.groups(first) == ("coarse_perception", "image_scene")


def test_mmbench_counts_questions_and_not_rows(mmbench_folder: Path) -> None:
    items = mmbench.MMBENCH.load(mmbench_folder)
    assert [item.id for item in items] == ["1", "1000001", "7", "1000007", "2000007", "3000007"]
    official, vanilla = mmbench.MMBENCH.ways["official"], mmbench.MMBENCH.ways["vanilla"]

    def marked(answers: Sequence[str]) -> list[Marked[mmbench.Rotation]]:
        return [Marked(item, official.mark(item, said, Random(0))) for item, said in zip(items, answers, strict=True)]

    assert [one.verdict.score for one in marked("BACBAD")] == [1.0] * 6
    assert official.total(marked("BACBAD")) == 1.0
    always_b = marked("BBBBBB")
    assert official.total(always_b) == 0.0
    assert vanilla.total(always_b) == pytest.approx(2 / 6)
    # One rotation that cannot be read makes its question wrong.
    unread = marked([*"BACBA", "the one with horns"])
    assert unread[-1].verdict == Verdict(0.0, None)
    assert official.total(unread) == 0.5
    assert vanilla.total(unread) == pytest.approx(5 / 6)
    # A question that is drawn twice counts twice, however many rotations it has.
    assert official.total([*unread[:2], *unread]) == pytest.approx(2 / 3)
    assert {mmbench.MMBENCH.together(item) for item in items} == {"1", "7"}


def broken_mmbench() -> list[Any]:
    def changed(number: int, **cells: str) -> list[dict[str, str]]:
        return [row | cells if place == number else row for place, row in enumerate([*TWO, *FOUR])]

    return [
        pytest.param([*TWO, *FOUR[:2], FOUR[3]], r"index 7: of 4 rotations.*there are \[1, 2, 4\]", id="a rotation"),
        pytest.param([*TWO, *FOUR[1:]], r"there is no picture, nor one at index '7'", id="the first rotation"),
        pytest.param(changed(0, answer="C"), "index 1: the answer 'C' is none of 2 options", id="an answer"),
        pytest.param(changed(1, index="1"), "has '1' 2 times", id="an index twice"),
        pytest.param(changed(1, index="one"), "'one' is no number of a row", id="an index"),
        pytest.param(changed(0, image="!" * 80), "index 1: a picture is not base64", id="a picture"),
        pytest.param([{key: row[key] for key in row if key != "B"} for row in TWO], "row 2: B missing", id="a column"),
    ]


@pytest.mark.parametrize(("rows", "message"), broken_mmbench())
def test_mmbench_refuses_broken_data(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", rows)
    with pytest.raises(ValueError, match=message):
        mmbench.MMBENCH.load(tmp_path)


def test_tables_of_text_that_are_cut(mmbench_folder: Path) -> None:
    path = mmbench_folder / "MMBench_DEV_EN_V11.tsv"
    path.write_text(path.read_text().rstrip().rpartition("\t")[0])
    with pytest.raises(ValueError, match="row 7: it has more or fewer cells than the head"):
        mmbench.MMBENCH.load(mmbench_folder)
    path.write_text(path.read_text().partition("\n")[0])
    with pytest.raises(ValueError, match="has no rows"):
        tsv(path, ["index"])


# ---- MMStar ----

STAR = {
    "index": "0",
    "question": "Where is it?\nOptions: A: On a bed, B: On a mat, B-side up, C: nan, D: nan",
    "image": base64_of("red"),
    "answer": "A",
    "category": "math",
    "l2_category": "geometry",
    "bench": "MMBench",
}
STAR_IN_LINES = STAR | {"index": "1", "question": "Hint: Say it.\nQuestion: How many?\nChoices:\n(A) 7\n(B)8"}


@pytest.fixture
def mmstar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mmstar, "_COUNT", 2)
    write_tsv(tmp_path / "MMStar.tsv", [STAR, STAR_IN_LINES])
    return tmp_path


def test_mmstar_asks(mmstar_folder: Path) -> None:
    item, in_lines = mmstar.MMSTAR.load(mmstar_folder)
    assert asked(mmstar.MMSTAR, "official", item) == ["[red]", f"{STAR['question']}\nAnswer the question directly."]
    end = "Please select the correct answer from the options above. \n"
    assert asked(mmstar.MMSTAR, "vlmevalkit", item) == [
        "[red]",
        f"Question: Where is it?\nOptions:\nA. On a bed\nB. On a mat, B-side up\n{end}",
    ]
    assert asked(mmstar.MMSTAR, "vlmevalkit", in_lines) == [
        "[red]",
        f"Question: Hint: Say it.\nQuestion: How many?\nOptions:\nA. 7\nB. 8\n{end}",
    ]
    assert mmstar.MMSTAR.groups(item) == ("math", "math: geometry")


@pytest.mark.parametrize(
    ("said", "official", "vlmevalkit"),
    [
        ("A", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("(a) on a bed", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("The answer is A.", Verdict(1.0, "A", fixed=1.0), Verdict(1.0, "A")),
        ("The correct answer is A", Verdict(0.0, "T", fixed=1.0), Verdict(1.0, "A")),
        ("a man lies there", Verdict(1.0, "A", fixed=0.0), Verdict(0.0, None)),
        ("", Verdict(0.0, None, fixed=0.0), Verdict(0.0, None)),
    ],
)
def test_mmstar_marks(mmstar_folder: Path, said: str, official: Verdict, vlmevalkit: Verdict) -> None:
    item, _ = mmstar.MMSTAR.load(mmstar_folder)
    assert mark(mmstar.MMSTAR, "official", item, said) == official
    assert mark(mmstar.MMSTAR, "vlmevalkit", item, said) == vlmevalkit


def test_mmstar_marks_stored_answers_as_its_own_code_did() -> None:
    marked = []
    for row in rows_of("mmstar_llava_next_yi_34b"):
        question = mmstar.Question(str(row["index"]), "", "", (), row["answer"], "", "", b"")
        verdict = mark(mmstar.MMSTAR, "official", question, str(row["prediction"]))
        marked.append(Marked(question, verdict))
    assert mmstar.MMSTAR.ways["official"].total(marked) == 781 / 1500


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "Where is it?"}, "index 1: the question has no options in it"),
        ({"question": "Where?\nOptions: A: here, C: there"}, "index 1: the question has no options in it"),
        ({"answer": "C"}, "index 1: the answer 'C' is none of 2 options"),
        ({"index": "0"}, "has '0' 2 times"),
        ({"image": "?"}, "index 1: a picture is not base64"),
    ],
)
def test_mmstar_refuses_broken_rows(mmstar_folder: Path, changed: dict[str, str], message: str) -> None:
    write_tsv(mmstar_folder / "MMStar.tsv", [STAR, STAR_IN_LINES | changed])
    with pytest.raises(ValueError, match=message):
        mmstar.MMSTAR.load(mmstar_folder)


def test_mmstar_refuses_what_is_not_whole(mmstar_folder: Path) -> None:
    write_tsv(mmstar_folder / "MMStar.tsv", [STAR])
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        mmstar.MMSTAR.load(mmstar_folder)


# ---- AI2D ----

DIAGRAM = {"question": "What is D?", "options": ["frog", "fly", "hawk", "algae"], "answer": "1", "image": "red"}


@pytest.fixture
def ai2d_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ai2d, "_COUNT", 2)
    other = DIAGRAM | {"answer": "0", "image": "blue"}
    write_parquet(tmp_path / "data/test-00000-of-00002.parquet", [DIAGRAM], ["image"])
    write_parquet(tmp_path / "data/test-00001-of-00002.parquet", [other], ["image"])
    return tmp_path


@pytest.mark.parametrize("task", [ai2d.AI2D, ai2d.AI2D_NO_MASK], ids=lambda task: task.name)
def test_ai2d_asks(ai2d_folder: Path, task: Task[ai2d.Question]) -> None:
    item, other = task.load(ai2d_folder)
    assert (item.id, item.answer, other.id, other.answer) == ("0", "B", "1", "A")
    assert asked(task, "official", item) == [
        "[red]",
        "What is D?\nA. frog\nB. fly\nC. hawk\nD. algae\nAnswer with the option's letter from the given choices "
        "directly.",
    ]
    assert asked(task, "vlmevalkit", other) == [
        "[blue]",
        "Question: What is D?\nOptions:\nA. frog\nB. fly\nC. hawk\nD. algae\n"
        "Please select the correct answer from the options above. \n",
    ]


def test_ai2d_is_two_tasks() -> None:
    assert (ai2d.AI2D.name, ai2d.AI2D_NO_MASK.name) == ("ai2d", "ai2d-no-mask")
    assert ai2d.AI2D.source != ai2d.AI2D_NO_MASK.source


@pytest.mark.parametrize(
    ("said", "official", "vlmevalkit"),
    [
        ("B", Verdict(1.0, "B"), Verdict(1.0, "B")),
        ("(b)\n", Verdict(1.0, "B"), Verdict(0.0, None)),
        (" B. fly", Verdict(1.0, "B"), Verdict(1.0, "B")),
        ("C. fly", Verdict(0.0, "C"), Verdict(0.0, "C")),
        # Only at the very beginning, and only with a stop.
        ("The answer is B.", Verdict(0.0, None), Verdict(1.0, "B")),
        ("fly", Verdict(0.0, None), Verdict(1.0, "B")),
    ],
)
def test_ai2d_marks(ai2d_folder: Path, said: str, official: Verdict, vlmevalkit: Verdict) -> None:
    item, _ = ai2d.AI2D.load(ai2d_folder)
    assert mark(ai2d.AI2D, "official", item, said) == official
    assert mark(ai2d.AI2D, "vlmevalkit", item, said) == vlmevalkit


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "4"}, "item 1: the answer '4' is no number of 4 options, from 0"),
        ({"answer": "B"}, "item 1: the answer 'B' is no number"),
        ({"image": None}, "item 1: there is no picture in image"),
    ],
)
def test_ai2d_refuses_broken_rows(ai2d_folder: Path, changed: dict[str, Any], message: str) -> None:
    write_parquet(ai2d_folder / "data/test-00001-of-00002.parquet", [DIAGRAM | changed], ["image"])
    with pytest.raises(ValueError, match=message):
        ai2d.AI2D.load(ai2d_folder)


def test_ai2d_refuses_what_is_not_whole(ai2d_folder: Path) -> None:
    (ai2d_folder / "data/test-00001-of-00002.parquet").write_bytes(b"PAR1 but cut")
    with pytest.raises(ValueError, match=r"test-00001-of-00002\.parquet"):
        ai2d.AI2D.load(ai2d_folder)
    (ai2d_folder / "data/test-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        ai2d.AI2D.load(ai2d_folder)


# ---- BLINK ----


def blink_row(task: str, number: int, **changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "idx": f"val_{task}_{number}",
        "question": "Which is nearer?",
        "prompt": "Which is nearer?\n(A) Point A\n(B) Point B",
        "sub_task": task,
        "image_1": "red",
        "image_2": "green",
        "image_3": None,
        "image_4": None,
        "choices": ["Point A", "Point B"],
        "answer": "(B)",
    }
    return row | changed


BLINK_IMAGES = [f"image_{number}" for number in range(1, 5)]


@pytest.fixture
def blink_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blink, "_TASKS", ("Jigsaw", "Relative_Depth"))
    monkeypatch.setattr(blink, "_COUNT", 4)
    write_parquet(tmp_path / "Jigsaw/val-00000-of-00001.parquet", [blink_row("Jigsaw", 1)], BLINK_IMAGES)
    several = [blink_row("Relative_Depth", number) for number in (1, 2, 3)]
    write_parquet(tmp_path / "Relative_Depth/val-00000-of-00001.parquet", several, BLINK_IMAGES)
    return tmp_path


def test_blink_asks(blink_folder: Path) -> None:
    jigsaw, item, *_ = blink.BLINK.load(blink_folder)
    assert asked(blink.BLINK, "official", item) == [item.prompt, "[red]", "[green]"]
    assert asked(blink.BLINK, "official", jigsaw) == [
        "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give "
        "your assessment on this question. You don't need to identify the real people. You just need to analyze based "
        f"on the information I gave you.\n\n{jigsaw.prompt}",
        "[red]",
        "[green]",
    ]
    assert asked(blink.BLINK, "lmms-eval", item) == [
        "[red]",
        "[green]",
        f"Note: You only need to respond with A, B without providing any additional information.\n{item.prompt}",
    ]
    assert asked(blink.BLINK, "vlmevalkit", item) == [
        "[red]",
        "[green]",
        "Question: Which is nearer?\nOptions:\nA. Point A\nB. Point B\n"
        "Please select the correct answer from the options above. \n",
    ]
    assert blink.BLINK.groups(item) == ("Relative_Depth",)


@pytest.mark.parametrize(
    ("said", "official", "lmms_eval", "vlmevalkit"),
    [
        ("B", Verdict(1.0, "B"), Verdict(1.0, "B", fixed=1.0), Verdict(1.0, "B")),
        ("(B) Point B", Verdict(1.0, "B"), Verdict(1.0, "B", fixed=1.0), Verdict(1.0, "B")),
        ("The answer is B", Verdict(0.0, None), Verdict(0.0, "T", fixed=1.0), Verdict(1.0, "B")),
        ("(A) is far.\n(B) it is", Verdict(1.0, "B"), Verdict(0.0, "A", fixed=1.0), Verdict(0.0, None)),
        ("both", Verdict(0.0, None), Verdict(1.0, "B", fixed=0.0), Verdict(0.0, None)),
        ("", Verdict(0.0, None), Verdict(0.0, None, fixed=0.0), Verdict(0.0, None)),
    ],
)
def test_blink_marks(blink_folder: Path, said: str, official: Verdict, lmms_eval: Verdict, vlmevalkit: Verdict) -> None:
    item, *_ = blink.BLINK.load(blink_folder)
    assert mark(blink.BLINK, "official", item, said) == official
    assert mark(blink.BLINK, "lmms-eval", item, said) == lmms_eval
    assert mark(blink.BLINK, "vlmevalkit", item, said) == vlmevalkit


def test_blink_counts_tasks_alike(blink_folder: Path) -> None:
    items = blink.BLINK.load(blink_folder)
    marked = [Marked(item, mark(blink.BLINK, "official", item, said)) for item, said in zip(items, "BABA", strict=True)]
    assert blink.BLINK.ways["official"].total(marked) == pytest.approx((1 + 1 / 3) / 2)
    assert blink.BLINK.ways["vlmevalkit"].total(marked) == 0.5
    assert blink.BLINK.ways["lmms-eval"].total is mean


def test_blink_comes_to_what_is_published() -> None:
    marked = []
    for row in rows_of("blink_val_predictions"):
        task = row["idx"].removeprefix("val_").rpartition("_")[0]
        question = blink.Question(row["idx"], task, "", "", (), row["answer"].strip("()"), ())
        marked.append(Marked(question, mark(blink.BLINK, "official", question, row["GPT4o"])))
    assert blink.BLINK.ways["official"].total(marked) == pytest.approx(TOTALS["blink"]["GPT4o"]["macro"], abs=1e-12)
    assert {one.item.task for one in marked} == set(blink._TASKS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "(C)"}, r"val_Jigsaw_1: the answer '\(C\)' is none of 2 choices"),
        ({"answer": "hidden"}, "val_Jigsaw_1: the answer 'hidden' is none of 2 choices"),
        ({"sub_task": "Counting"}, "val_Jigsaw_1: a question of Counting in the folder of Jigsaw"),
        ({"image_1": None}, "val_Jigsaw_1: there is no picture in image_1"),
        ({"idx": "val_Relative_Depth_2"}, "has 'val_Relative_Depth_2' 2 times"),
    ],
)
def test_blink_refuses_broken_rows(blink_folder: Path, changed: dict[str, Any], message: str) -> None:
    row = blink_row("Jigsaw", 1, **changed)
    write_parquet(blink_folder / "Jigsaw/val-00000-of-00001.parquet", [row], BLINK_IMAGES)
    with pytest.raises(ValueError, match=message):
        blink.BLINK.load(blink_folder)


def test_blink_refuses_what_is_not_whole(blink_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blink, "_COUNT", 1901)
    with pytest.raises(ValueError, match="has 4 items, and the benchmark 1901"):
        blink.BLINK.load(blink_folder)
    (blink_folder / "Jigsaw/val-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no Jigsaw/val-\*.parquet"):
        blink.BLINK.load(blink_folder)


# ---- RealWorldQA ----

LETTER_ONLY = "Please answer directly with only the letter of the correct option and nothing else."
STREET = {"question": f"Where to?\nA. Left\nB. Right\n{LETTER_ONLY} ", "answer": "B", "image": "red"}
SLOPE = {"question": "Which way is it steep?", "answer": "Downhill", "image": "blue"}


@pytest.fixture
def realworldqa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(realworldqa, "_COUNT", 2)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [STREET, SLOPE], ["image"])
    return tmp_path


def test_realworldqa_asks(realworldqa_folder: Path) -> None:
    street, slope = realworldqa.REALWORLDQA.load(realworldqa_folder)
    assert asked(realworldqa.REALWORLDQA, "official", street) == [
        "[red]",
        f"Where to?\nA. Left\nB. Right\n{LETTER_ONLY}",
    ]
    assert asked(realworldqa.REALWORLDQA, "official", slope) == ["[blue]", "Which way is it steep?"]
    assert (street.id, slope.id) == ("0", "1")


def test_realworldqa_marks(realworldqa_folder: Path) -> None:
    street, slope = realworldqa.REALWORLDQA.load(realworldqa_folder)
    assert mark(realworldqa.REALWORLDQA, "official", street, "The answer is B.") == Verdict(1.0, "B")
    # The article is taken for a letter.
    assert mark(realworldqa.REALWORLDQA, "official", street, "A man goes right") == Verdict(0.0, "A")
    assert mark(realworldqa.REALWORLDQA, "official", street, "right") == Verdict(0.0, None)
    assert mark(realworldqa.REALWORLDQA, "official", slope, " downhill. ") == Verdict(1.0, "downhill")
    assert mark(realworldqa.REALWORLDQA, "official", slope, "It is downhill") == Verdict(0.0, "it is downhill")
    assert mark(realworldqa.REALWORLDQA, "official", slope, "") == Verdict(0.0, None)
    # Letters that follow one another are no letter.
    word = realworldqa.Question("0", "?", "AB", slope.picture)
    assert mark(realworldqa.REALWORLDQA, "official", word, "ab") == Verdict(1.0, "ab")


def test_realworldqa_refuses_broken_data(realworldqa_folder: Path) -> None:
    path = realworldqa_folder / "data/test-00000-of-00001.parquet"
    write_parquet(path, [STREET], ["image"])
    with pytest.raises(ValueError, match="has 1 items, and the benchmark 2"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)
    write_parquet(path, [STREET, SLOPE | {"answer": " "}], ["image"])
    with pytest.raises(ValueError, match="item 1: there is no answer"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)
    write_parquet(path, [STREET, SLOPE | {"image": None}], ["image"])
    with pytest.raises(ValueError, match="item 1: there is no picture in image"):
        realworldqa.REALWORLDQA.load(realworldqa_folder)


# ---- InfographicVQA ----

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


# ---- OCRBench ----

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


# ---- all ----

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


def test_items_do_not_tell_their_pictures(ai2d_folder: Path, mmbench_folder: Path) -> None:
    """Their sum is of what they say, and stays the same wherever the data lies."""
    diagram, *_ = ai2d.AI2D.load(ai2d_folder)
    rotation, *_ = mmbench.MMBENCH.load(mmbench_folder)
    assert "What is D?" in repr(diagram)
    assert not any(word in repr(one) for one in (diagram, rotation) for word in ("PNG", "Parquet", "parquet"))


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
