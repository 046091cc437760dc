"""Worked solutions say nothing wrong, lead to answers that are right, and what is held out is not seen in training."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from kimi_vl.train.rewards import Choice, Inside, Parts, parts
from kimi_vl.train.rl.rollouts import Answer
from recipes.nano import samples
from recipes.nano.fonts import Split
from recipes.nano.reasoning import expressions, geometry, goals, measure, nlvr, own, paths, posed, shapes, stories
from recipes.nano.reasoning.kinds import KINDS, problem
from recipes.nano.reasoning.numbers import is_held_out
from recipes.nano.reasoning.problem import LEVELS, Problem
from recipes.nano.reasoning.shapes import HELDOUT_KINDS, Shape
from tests.nano import needs_data

pytestmark = needs_data
SPLITS: tuple[Split, Split] = ("train", "heldout")
LEVELS_OF = [(kind, level) for kind in KINDS for level in range(1, LEVELS + 1)]
_STATED = re.compile(r"(No, )?((?:\d+ [-+x/] )+\d+) = (-?\d+)")


def some(kind: str, split: Split, level: int, count: int = 25, *, slips: float = 0.0) -> list[Problem]:
    return [problem(kind, split, level, number, slips=slips) for number in range(count)]


def wrong(one: Problem) -> str:
    """Another answer of the same form."""
    return "click(x=0.010, y=0.010)" if one.kind == "goals" else f"{one.answer}1"


def stated(thought: str) -> list[tuple[bool, bool]]:
    """Of each equation, whether it mends one, and whether it holds."""
    return [(bool(mends), value(left) == int(right)) for mends, left, right in _STATED.findall(thought)]


def value(expression: str) -> Fraction:
    """From left to right, products first."""
    sums = Fraction(0)
    for term in re.split(r" (?=[-+])", expression):
        sign, numbers = (-1 if term.startswith("-") else 1), term.lstrip("+- ")
        product, *rest = re.split(r" ([x/]) ", numbers)
        found = Fraction(product)
        for operator, number in zip(rest[::2], rest[1::2], strict=True):
            found = found * int(number) if operator == "x" else found / int(number)
        sums += sign * found
    return sums


@pytest.mark.parametrize(("kind", "level"), LEVELS_OF)
def test_what_a_solution_says_is_so(kind: str, level: int) -> None:
    for split in ("train", "heldout"):
        for one in some(kind, split, level):
            assert (one.kind, one.level) == (kind, level)
            assert one.rule.is_right(one.answer)
            assert not one.rule.is_right(wrong(one)) and not one.rule.is_right("")
            assert all(holds and not mends for mends, holds in stated(one.thought)), one.thought
            # The last thing that is said is the answer, or where it is.
            last = re.findall(r"\w+", one.thought)[-1].casefold()
            assert last == one.answer.casefold() or one.level == 1 or kind == "goals"
            assert len(one.thought) < 500
            assert one.picture.mode == "RGB" and one.picture.width % 28 == one.picture.height % 28 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_slip_is_noticed_and_mended(kind: str) -> None:
    slipped = 0
    for level in range(1, LEVELS + 1):
        for careful, careless in zip(some(kind, "train", level), some(kind, "train", level, slips=0.5), strict=True):
            told = stated(careless.thought)
            for (_, holds), (mends, _) in pairwise(told):
                assert holds != mends, careless.thought
            assert all(holds for mends, holds in told if mends)
            slipped += "No, " in careless.thought
            assert careless.rule.is_right(careless.answer)
            assert "No, " not in careful.thought
    assert slipped > 20 or kind == "shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_is_the_same_every_time(kind: str) -> None:
    for one, again in zip(some(kind, "heldout", 3, 5), some(kind, "heldout", 3, 5), strict=True):
        assert (one.question, one.thought, one.answer) == (again.question, again.thought, again.answer)
        assert one.picture.tobytes() == again.picture.tobytes()


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_answers_are_not_told_by_their_level_alone(level: int) -> None:
    """No answer is right more often than 60 of 100 times."""
    for kind in KINDS:
        answers = [one.answer for one in some(kind, "heldout", level, 100)]
        most = max(map(answers.count, answers))
        assert most <= 60, (kind, level, most)


def test_held_out_numbers_are_in_no_training_problem() -> None:
    for level in range(1, LEVELS + 1):
        for kind in ("expressions", "stories"):
            for split in ("train", "heldout"):
                for one in some(kind, split, level):
                    first = re.split(r"\. |\.$", one.thought)[0]
                    found = any(is_held_out(int(number)) for number in re.findall(r"\d+", first))
                    assert found == (split == "heldout"), one.thought


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_questions_are_worded_as_in_no_training_problem(kind: str) -> None:
    """But for what stands in them: numbers, names, sentences about shapes."""
    lists = {
        "expressions": expressions.QUESTIONS,
        "stories": stories.QUESTIONS,
        "paths": paths.QUESTIONS,
        "geometry": [*geometry._RIM, *geometry._AREA, *geometry._ANGLE, *geometry._SIDE],
    }
    for level in range(1, LEVELS + 1):
        seen, unseen = ({one.question for one in some(kind, split, level, 60)} for split in SPLITS)
        if kind in lists:
            assert seen | unseen <= set(lists[kind])
        assert not seen & unseen, (kind, level)


def test_a_goal_is_served_by_one_button_of_those_shown() -> None:
    """No goal stands with two words, and each has one that only what is held out says."""
    told = [goal for known in goals.GOALS.values() for goal in known]
    assert len(set(told)) == len(told) and all(len(known) >= 3 for known in goals.GOALS.values())
    for level in range(2, LEVELS + 1):
        for one in some("goals", "heldout", level):
            assert isinstance(one.rule, Inside)
            assert any(known[-1] in one.question for known in goals.GOALS.values())
            # The middle of the box that it asks for, and of no other.
            assert one.rule.is_right(one.answer)


def test_trends_are_read_from_their_values() -> None:
    for number in range(40):
        for level in (1, 2, 3, 4):
            one = problem("trends", "train", level, number)
            values = [int(value) for value in re.findall(r": (\d+)", one.thought.split(". ")[0] + ".")]
            if level == 3:
                assert one.answer == str(sum(a < b for a, b in pairwise(values)))
            elif level == 4:
                assert one.answer == str(max(b - a for a, b in pairwise(values)))
            elif level == 1:
                assert one.answer == ("yes" if values[-1] > values[0] else "no")


def test_nlvr_is_read_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of two sentences in its own layout, boxes in the orders by which its pictures are numbered."""
    corpus(tmp_path)
    monkeypatch.setattr(nlvr, "FOLDER", tmp_path)
    nlvr.sentences.cache_clear()
    assert nlvr.is_there()
    (one,) = nlvr.heldout()
    assert one.question.startswith("There is a tower with two blocks.") and one.answer == "false"
    assert one.rule == Choice("false") and one.picture.size == (400, 100)
    sentence = nlvr.sentences("train")[0]
    told = nlvr.problem_of(Random(0), "train", 1, sentence, 3)  # boxes 2, 3, 1
    assert told.thought == (
        "Box 1: small yellow circle, large black square at the edge. "
        "Box 2: medium blue triangle. Box 3: tower of 2, yellow, black. So it is true."
    )
    assert told.picture.getpixel((0, 0)) == (3, 3, 3)
    (tmp_path / "test" / "test.json").unlink()
    assert not nlvr.is_there()
    nlvr.sentences.cache_clear()
    with pytest.raises(ValueError, match=r"test\.json is missing: put the folder nlvr of the repository lil-lab/nlvr"):
        nlvr.sentences("heldout")
    nlvr.sentences.cache_clear()


def corpus(folder: Path) -> None:
    def shape(colour: str, form: str, x: int, y: int, size: int) -> dict[str, object]:
        return {"color": colour, "type": form, "x_loc": x, "y_loc": y, "size": size}

    boxes = [
        [shape("Black", "square", 40, 80, 20), shape("Yellow", "square", 40, 59, 20)],
        [shape("Black", "square", 70, 69, 30), shape("Yellow", "circle", 30, 30, 10)],
        [shape("#0099ff", "triangle", 40, 40, 20)],
    ]
    for part, label in (("dev", "true"), ("hidden", "true"), ("test", "false")):
        (folder / part / "images" / "0").mkdir(parents=True)
        told = {"sentence": "there is a tower with two blocks", "label": label, "identifier": "7-0"}
        (folder / part / f"{part}.json").write_text(json.dumps(told | {"structured_rep": boxes}))
        for number in range(6):
            Image.new("RGB", (400, 100), (number,) * 3).save(
                folder / part / "images" / "0" / f"{part}-7-0-{number}.png"
            )


def test_problems_are_posed_and_solved_as_a_model_sees_them() -> None:
    one = problem("shapes", "train", 2, 5)
    put = posed.posed_of(one)
    assert put.rule == one.rule and put.wanted == one.answer
    sample = posed.solved(one)
    inputs = samples.processor()(put.messages)
    # The very ids and patches that a rollout begins with.
    start = len(inputs.input_ids)
    assert sample.input_ids[:start].tolist() == inputs.input_ids.tolist()
    assert not sample.answer_mask[:start].any() and sample.answer_mask[start:].all()
    said = samples.tokenizer().decode(sample.input_ids[start:-1].tolist())
    found = parts(said)
    assert found is not None and (found.thought, found.said) == (one.thought, one.answer)
    assert posed.expressions(1, 2, 3).wanted == posed.expressions(1, 2, 3).wanted
    with pytest.raises(AttributeError, match="there is no kind 'poems'"):
        posed.poems  # noqa: B018


def test_what_is_known_is_said_after_a_short_thought() -> None:
    for index in range(8):
        sample = posed.known(3, index)
        said = samples.tokenizer().decode(sample.input_ids[sample.answer_mask].tolist()[:-1])
        found = parts(said)
        assert found is not None and found.thought == posed._PLAIN and found.said


def test_what_is_measured_is_told_and_compared() -> None:
    def marked(number: int, right: bool, tokens: int) -> measure.Marked:
        return measure.Marked(number, "sums" if number % 2 else "nlvr", 1 + number % 3, right, tokens, True, "x", "y")

    one = [marked(number, number < 4, 10) for number in range(12)]
    other = [marked(number, number < 8 and number != 1, 8) for number in range(12)]
    table = measure.told(one)
    assert re.search(r"all\s+33\.3% \(13\.8% to 60\.9%\)", table) and "6 problems, 0 cut" in table
    assert measure.compared(one, other) == "+25.0% of 12 problems (4 gained, 1 lost, p = 0.38), -20.0% tokens"
    with pytest.raises(ValueError, match="answers to different problems"):
        measure.compared(one, other[::-1])


def test_ones_own_right_answers_are_kept_the_shortest_first() -> None:
    one = problem("expressions", "train", 1, 1)

    def answer(text: str) -> Answer:
        ids = torch.tensor(samples.tokenizer().encode(text))
        return Answer(ids, torch.zeros(len(ids)), text, ended=True)

    given = [answer("a long way round to it"), answer("short"), answer("not so short")]
    assert own.kept(one, given, [True, False, True], 0.9) == "not so short"
    assert own.kept(one, given, [True, True, True], 0.9) is None
    assert own.kept(one, given, [True, True, True], 0.2) == "short"
    assert own.kept(one, given, [False] * 3, 0.9) is None
    worked = own.kept(one, given, [False] * 3, 0.2)
    assert worked is not None and parts(worked) == Parts(one.thought, one.answer)


def test_held_out_shapes_and_stories_are_in_no_training_problem() -> None:
    apart = {Shape(*kind) for kind in HELDOUT_KINDS}
    for level in range(1, LEVELS + 1):
        for number in range(50):
            train, heldout = (
                {one for row in shapes._drawn(Random(f"{level}/{number}"), split, level) for one in row}
                for split in ("train", "heldout")
            )
            assert not train & apart and heldout & apart
    assert not {one.told for one in stories.TRAINING} & {one.told for one in stories.HELDOUT}
    for level in range(1, LEVELS + 1):
        for known in (stories.TRAINING, stories.HELDOUT):
            assert any(one.signs in stories._STEPS[level] for one in known)
