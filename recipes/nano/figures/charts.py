"""(seed, index, split) -> a picture of a chart, and questions about it with their answers.

Comes in: the tables and books that fetch.py laid down. Goes out: `Conversation`. Held-out charts are of ten tables
that training never sees, in held-out fonts, asked in the first wording of each question.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from PIL import Image

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.figures.asking import Query, worded
from recipes.nano.figures.chart_drawing import draw_chart
from recipes.nano.figures.chart_pieces import Chart
from recipes.nano.figures.chart_questions import ask
from recipes.nano.figures.numbers import draw_view
from recipes.nano.figures.views import said
from recipes.nano.figures.wordings import AS_TABLE, BETWEEN
from recipes.nano.fonts import Split

HELDOUT_SEED = 2026
TOLERANCE = 0.05


class ChartQuestion(NamedTuple):
    """One held-out question."""

    image: Image.Image
    question: str
    answer: str
    kind: str


def chart_sample(seed: int, index: int, split: Split) -> Conversation:
    """One chart and 2 to 5 turns about it, in training up to 8."""
    _, image, asked = chart_and_questions(seed, index, split)
    return Conversation((image,), tuple(Turn(one.question, one.answer) for one in asked))


def chart_table_sample(seed: int, index: int, split: Split) -> Conversation:
    """One chart, and all its numbers as a table: the names of the series if there are several, then each category."""
    random = Random(f"chart table/{seed}/{split}/{index}")
    chart, image = draw_chart(random, draw_view(random, split), split)
    view = chart.view
    rows = [view.series] if len(view.series) > 1 else []
    for name, *values in zip(view.categories, *view.values, strict=True):
        rows.append((name, *(said(value) + chart.sign for value in values)))
    return Conversation((image,), (Turn(worded(random, AS_TABLE, split), "\n".join(map(BETWEEN.join, rows))),))


def chart_and_questions(seed: int, index: int, split: Split) -> tuple[Chart, Image.Image, list[Query]]:
    """What `chart_sample` shows and asks, with the numbers behind it."""
    random = Random(f"chart/{seed}/{split}/{index}")
    while True:
        chart, image = draw_chart(random, draw_view(random, split), split)
        if asked := ask(random, chart, split, random.randint(2, 5 if split == "heldout" else 8)):
            return chart, image, asked


def heldout_charts(count: int = 500) -> list[ChartQuestion]:
    """Questions about charts of the held-out tables, one a chart."""
    found = []
    for index in range(count):
        _, image, asked = chart_and_questions(HELDOUT_SEED, index, "heldout")
        one = Random(f"chart question/{index}").choice(asked)
        found.append(ChartQuestion(image, one.question, one.answer, one.kind))
    return found


def relaxed_match(answer: str, wanted: str) -> bool:
    """Numbers within 5 % of what is wanted; all else the same but for case and a full stop.

    Whole numbers from 1500 to 2100 must be exact: as years they would pass for any other.
    """
    answer, wanted = (" ".join(text.strip().rstrip(".").casefold().split()) for text in (answer, wanted))
    if answer == wanted:
        return True
    given, right = _number(answer), _number(wanted)
    if given is None or right is None or _like_a_year(right):
        return False
    return abs(given - right) <= TOLERANCE * abs(right) * (1 + 1e-9)


def best_guess(questions: Sequence[ChartQuestion]) -> float:
    """The share that is right when each kind gets the one answer that suits it most often, without any picture."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for one in questions:
        # What is absent is asked for like a value: only the picture tells them apart.
        by_kind["value" if one.kind == "absent" else one.kind].append(one.answer)
    right = sum(
        max(sum(relaxed_match(guess, answer) for answer in answers) for guess, _ in Counter(answers).most_common(40))
        for answers in by_kind.values()
    )
    return right / max(1, len(questions))


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").removeprefix("$").removesuffix("%").strip())
    except ValueError:
        return None


def _like_a_year(number: float) -> bool:
    return 1500 <= number <= 2100 and number == int(number)
