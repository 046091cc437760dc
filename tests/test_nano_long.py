"""nano's long documents, texts and chats: repeatable, within their window, and what is asked is there once."""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from kimi_vl.chat import PicturePart, TextPart
from kimi_vl.train.data.packing import Sample
from kimi_vl.train.recipe import read_recipe
from recipes.nano import heldout, long_chats, long_facts, long_pages, long_text, sources
from recipes.nano.conversation import Conversation, Turn
from recipes.nano.evaluate import right_answers
from recipes.nano.fonts import HELDOUT_FAMILIES, TRAINING_FAMILIES, Split
from recipes.nano.long_facts import KINDS, Fact
from recipes.nano.long_pages import Document, Look
from recipes.nano.questions import CANNOT_TELL
from recipes.nano.samples import messages_of, of_conversation, question_of, tokenizer, tokens_of, whole_text
from recipes.nano.text import CHARACTERS
from tests.nano import needs_full_data

SPLITS: tuple[Split, ...] = ("train", "heldout")
WINDOWS = (1024, 2048, 4096)
NANO = Path(__file__).parents[1] / "recipes" / "nano"
LOOK = Look(Path("none.ttf"), size=14, pitch=20, margin=6, rows=4, width=224, paper=0)


def _pages(seed: int, index: int, split: Split, window: int) -> tuple[Conversation, ...]:
    return (long_pages.pages_drawn(seed, index, split, window=window),)


def _text(seed: int, index: int, split: Split, window: int) -> tuple[Conversation, ...]:
    return (long_text.text_drawn(seed, index, split, window=window),)


def _chat(seed: int, index: int, split: Split, window: int) -> tuple[Conversation, ...]:
    return long_chats.chat_drawn(seed, index, split, window=window)


DRAWS: tuple[Callable[[int, int, Split, int], tuple[Conversation, ...]], ...] = (_pages, _text, _chat)


@pytest.fixture
def made_up_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the books: paragraphs of one to four sentences, none like another."""
    paragraphs = tuple(
        " ".join(f"Sentence {n} of paragraph {place} says little." for n in range(1 + place % 4))
        for place in range(900)
    )
    monkeypatch.setattr(long_text, "prose", lambda split: paragraphs)


# Facts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_says_its_answer_once_and_its_questions_do_not(kind: str, split: Split) -> None:
    for seed in range(100):
        (fact,) = long_facts.some_facts(Random(seed), split, 1, kind=kind)
        assert long_facts.some_facts(Random(seed), split, 1, kind=kind) == [fact]
        assert fact.sentence.count(fact.value) == 1
        assert fact.sentence.lower().count(fact.subject.lower()) == 1
        for question in (*fact.asks, *fact.asked_for_page("3").wordings):
            assert fact.subject in question
            assert fact.value not in question
            assert "{" not in question
        assert (fact.asked.answer, fact.asked_in_vain.answer) == (fact.value, CANNOT_TELL)
        assert fact.asked_for_page("3").answer == "3"


def test_what_facts_are_about_is_held_out() -> None:
    for every in (long_facts.things, long_facts.people):
        train, kept = set(every("train")), set(every("heldout"))
        assert not train & kept
        assert 0.05 < len(kept) / (len(train) + len(kept)) < 0.15
    for split in SPLITS:
        subjects = {*long_facts.things(split), *long_facts.people(split)}
        drawn = {fact.subject for seed in range(300) for fact in long_facts.some_facts(Random(seed), split, 2)}
        assert drawn <= subjects
        assert len(drawn) > 100


def test_facts_of_one_text_differ_in_subject_and_value() -> None:
    for seed in range(200):
        facts = long_text.facts_for(Random(seed), "train", 7)
        assert len({fact.subject for fact in facts}) == len({fact.value for fact in facts}) == 7
        other = long_facts.another(Random(seed), "train", facts, facts[0].kind)
        assert other.kind == facts[0].kind
        assert other.subject not in {fact.subject for fact in facts}
    with pytest.raises(ValueError, match="not 8 different facts of kind day"):
        long_facts.some_facts(Random(0), "train", 8, kind="day")


def test_every_wording_is_drawn_and_the_first_is_asked_held_out() -> None:
    for name, kind in KINDS.items():
        drawn = [long_facts.some_facts(Random(seed), "train", 1, kind=name)[0] for seed in range(200)]
        beginnings = {_frame(fact.sentence, fact) for fact in drawn}
        assert len(beginnings) == len(kind.tells)
        asked = [fact.asked.turn(Random(seed), "train").question for seed, fact in enumerate(drawn)]
        frames = {_frame(question, fact) for question, fact in zip(asked, drawn, strict=True)}
        assert len(frames) == len(kind.asks)
        assert all(fact.asked.turn(Random(0), "heldout").question == fact.asks[0] for fact in drawn)


def _frame(text: str, fact: Fact) -> str:
    words = (
        fact.subject,
        fact.subject[:1].upper() + fact.subject[1:],
        f"an {fact.value}",
        f"a {fact.value}",
        fact.value,
    )
    for word in (*words, *long_facts.KEPT):
        text = text.replace(word, "_")
    return text


def test_every_wording_can_be_drawn_and_typed() -> None:
    for module in (long_facts, long_pages, long_chats):
        for wording in module.every_wording():
            assert set(wording) <= set(CHARACTERS), wording


# Pages, without downloads -------------------------------------------------------------------------------


def _document(*pages: Sequence[str], numbered: bool = True) -> Document:
    facts = long_facts.some_facts(Random(1), "train", 2)
    return Document(tuple(map(tuple, pages)), {0: facts[0], 2: facts[1]}, LOOK, numbered)


def test_pages_are_told_by_number_as_those_of_a_file() -> None:
    message = question_of([b"one", b"two"], "How many?", pages=True)
    assert message.parts == (
        TextPart("Page 1 of 2:\n"),
        PicturePart(b"one"),
        TextPart("\n"),
        TextPart("Page 2 of 2:\n"),
        PicturePart(b"two"),
        TextPart("\n"),
        TextPart("How many?"),
    )
    assert question_of([b"one"], "How many?").parts == (PicturePart(b"one"), TextPart("How many?"))


def test_pages_are_found_by_fact_by_word_and_by_number() -> None:
    read = _document(("alpha beta gamma", "delta"), ("alpha gamma",), ("Gamma, epsilon deltas",))
    found: dict[str, set[str]] = {}
    for seed in range(300):
        for asked in (
            long_pages.page_of_word(Random(seed), read),
            long_pages.page_of_fact(Random(seed), "train", read),
            long_pages.how_many(read),
            long_pages._of_page(Random(seed), read, long_pages.FIRST_LINE, [lines[0] for lines in read.pages]),
        ):
            if asked is not None:
                found.setdefault(asked.wordings[0], set()).add(asked.answer)
    words = {question: answers for question, answers in found.items() if "the word" in question}
    # alpha and gamma are on several pages, "beta" is short, "delta" is a part of another word.
    assert words == {f'On which page is the word "{word}"?': {"3"} for word in ("epsilon", "deltas")}
    assert found["How many pages are there?"] == {"3"}
    assert found["What is the first line of page 2?"] == {"alpha gamma"}
    assert found["What is the first line of page 5?"] == {CANNOT_TELL}
    for place, fact in read.told.items():
        assert found[fact.asked_for_page("").wordings[0]] == {str(place + 1)}
    told = {fact.asked_for_page("").wordings[0] for fact in read.told.values()}
    absent = [
        answers
        for question, answers in found.items()
        if question.startswith("On which page is") and question not in told
    ]
    assert {CANNOT_TELL} in absent


def test_pages_without_a_number_are_asked_for_only_while_they_can_be_counted() -> None:
    few, many = (_document(*[("word",)] * pages, numbered=False) for pages in (12, 13))
    assert few.counted and not many.counted
    facts = {question for fact in many.told.values() for question in fact.asks}
    for seed in range(200):
        asked = long_pages._question(Random(seed), "train", many)
        assert asked is not None
        assert asked.answer == CANNOT_TELL or asked.wordings[0] in facts


# Texts, without downloads -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.usefixtures("made_up_book")
def test_a_fact_stands_at_its_depth_in_a_text_of_the_length_that_is_wanted(depth: float) -> None:
    for seed in range(10):
        random = Random(seed)
        fact, *others = long_facts.some_facts(random, "train", 4, kind="code")
        told = [(depth, fact), *((random.random(), other) for other in others)]
        shown = long_text.text_asked(random, "train", told, [Turn("What?", fact.value)], 2000)
        text = shown.turns[0].question
        assert [text.count(one.sentence) for one in (fact, *others)] == [1] * 4
        assert text.endswith("\n\nWhat?")
        # A paragraph is at most a twentieth of the text.
        assert text.index(fact.sentence) / len(text) == pytest.approx(depth, abs=0.06)
        assert 1970 < tokens_of(messages_of([shown]), ()) <= 2000


@pytest.mark.usefixtures("made_up_book")
def test_plain_text_is_as_long_as_its_window_and_goes_on() -> None:
    sample = whole_text(long_text.prose, 700)(1, 2)
    assert len(sample.input_ids) == 700
    assert sample.answer_mask.all()
    pieces = tokenizer().decode(sample.input_ids.tolist()).split("paragraph ")[1:]
    places = [int(piece.split()[0]) for piece in pieces if " " in piece]
    assert all(after - before in (0, 1) for before, after in pairwise(places))


# With the downloads -------------------------------------------------------------------------------------


@needs_full_data
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("draw", DRAWS)
def test_conversations_repeat_fit_their_window_and_answers_alone_are_learned(
    draw: Callable[[int, int, Split, int], tuple[Conversation, ...]], split: Split
) -> None:
    lengths = []
    for window in WINDOWS:
        for index in range(5):
            parts, again = draw(5, index, split, window), draw(5, index, split, window)
            assert [part.turns for part in parts] == [part.turns for part in again]
            sample, other = of_conversation(*parts), of_conversation(*again)
            assert sample.input_ids.equal(other.input_ids)
            assert sample.pixels is None or (other.pixels is not None and sample.pixels.equal(other.pixels))
            assert len(sample.input_ids) <= window
            assert tokens_of(messages_of(parts), [p.size for part in parts for p in part.pictures]) == len(
                sample.input_ids
            )
            lengths.append(len(sample.input_ids))
            learned = tokenizer().decode(sample.input_ids[sample.answer_mask].tolist())
            end = tokenizer().decode([tokenizer().im_end_id])
            turns = [turn for part in parts for turn in part.turns]
            assert learned == "".join(turn.answer + end for turn in turns)
            for turn in turns:
                assert turn.question and turn.answer
                assert set((turn.question + turn.answer).replace("\n", "")) <= set(CHARACTERS)
    assert max(lengths) > 1.5 * min(lengths)


@needs_full_data
@pytest.mark.parametrize(
    ("shortest", "window", "count"), [(256, 1024, 300), (1024, 1024, 300), (1024, 4096, 100), (1024, 16384, 30)]
)
def test_there_is_always_a_question_and_it_never_leaves_the_window(
    shortest: int, window: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Look, "picture", lambda look, lines: Image.new("RGB", (look.width, look.height)))
    for index in range(count):
        shown = long_pages.pages_drawn(9, index, "train", shortest=shortest, window=window)
        assert shown.turns
        assert tokens_of(messages_of([shown]), [picture.size for picture in shown.pictures]) <= window


@needs_full_data
@pytest.mark.parametrize("split", SPLITS)
def test_each_fact_is_on_its_page_and_on_no_other(split: Split) -> None:
    families = HELDOUT_FAMILIES if split == "heldout" else TRAINING_FAMILIES
    heights = set()
    for seed in range(20):
        random = Random(seed)
        facts = long_facts.some_facts(random, split, 4)
        read = long_pages.document(random, split, facts, 1800, numbered=seed % 2 == 0, depth=random.random())
        assert [fact.sentence for fact in read.told.values()] == [fact.sentence for fact in facts[: len(read.told)]]
        assert len(read.told) == min(4, len(read.pages))
        for place, fact in read.told.items():
            assert fact.sentence in " ".join(read.pages[place])
            assert fact.subject.lower() not in " ".join(" ".join(p) for p in read.pages[:place]).lower()
            assert fact.subject.lower() not in " ".join(" ".join(p) for p in read.pages[place + 1 :]).lower()
        assert all(1 <= len(lines) <= read.look.rows for lines in read.pages)
        assert read.look.face.stem.rpartition("_")[0] in families
        heights |= {page.size[1] for page in read.asked([Turn("?", "?")]).pictures}
    assert len(heights) > 3


@needs_full_data
def test_facts_stand_above_below_and_within_the_rest_of_a_page() -> None:
    rows = []
    for seed in range(60):
        facts = long_facts.some_facts(Random(seed), "train", 1)
        read = long_pages.document(Random(seed), "train", facts, 400, numbered=True)
        (place,) = read.told
        first = next(
            i for i in range(read.look.rows) if facts[0].sentence[:12] in " ".join(read.pages[place][i : i + 2])
        )
        rows.append(first / (read.look.rows - 1))
    assert min(rows) == 0
    assert sum(0 < row < 0.6 for row in rows) > 5
    assert sum(row >= 0.6 for row in rows) > 5


@needs_full_data
def test_texts_and_documents_ask_for_what_is_told_and_now_and_then_for_more() -> None:
    answers = []
    for index in range(100):
        shown = long_text.text_drawn(2, index, "train", window=1024)
        for turn in shown.turns:
            if turn.answer != CANNOT_TELL:
                assert turn.answer in shown.turns[0].question.rpartition("\n\n")[0]
            answers.append(turn.answer)
    assert 0.02 < answers.count(CANNOT_TELL) / len(answers) < 0.2
    assert not any("that which is perceived" in paragraph for paragraph in long_text.prose("train"))


@needs_full_data
def test_chats_come_back_to_what_was_said_and_shown_first() -> None:
    seen: set[str] = set()
    for index in range(120):
        parts = long_chats.chat_drawn(4, index, "heldout", window=2048)
        *_, last = parts
        before = [turn for part in parts[:-1] for turn in part.turns]
        pictured = False
        for part in parts:
            pictured = pictured or bool(part.pictures)
            assert not (pictured and any(turn.answer == long_chats.NO_PICTURE for turn in part.turns))
        for turn in last.turns:
            if turn.question == long_chats.FIRST[0]:
                assert turn.answer == before[0].question
                seen.add("first")
            elif turn.question == long_chats.PICTURES[0]:
                assert turn.answer == str(sum(len(part.pictures) for part in parts))
                seen.add("pictures")
            elif turn.question.startswith("Back to the first picture: "):
                first = next(part for part in parts if part.pictures)
                again = [t.answer for t in first.turns if t.question == turn.question.partition(": ")[2]]
                assert again in ([], [turn.answer])
                seen.add("again" if again else "new")
            elif turn.answer != CANNOT_TELL:
                assert any(turn.answer in t.question for t in before if t.answer == long_chats.REMEMBERED)
                seen.add("fact")
            else:
                seen.add("absent")
    assert seen == {"first", "pictures", "again", "new", "fact", "absent"}


@needs_full_data
def test_pages_fill_what_they_may_and_no_more() -> None:
    nothing = [Turn("", "")]
    for seed in range(200):
        room = 800 + 9 * seed
        read = long_pages.document(Random(seed), "train", [], room, numbered=seed % 3 > 0)
        others = long_pages._tokens(nothing, read.look, 0, read.numbered)
        # One page more might have had a name of a token more, as all the others then.
        least = room - read.look.tokens - long_pages.MOST_CALLED - 2 * len(read.pages)
        assert least < read.tokens(nothing) - others <= room


@needs_full_data
@pytest.mark.parametrize("name", heldout.LONG)
def test_exams_fill_the_window_and_go_evenly_through_it(name: str) -> None:
    exams = list(heldout.LONG[name](8, 2048))
    again = list(heldout.LONG[name](8, 2048))
    assert [exam.question for exam in exams] == [exam.question for exam in again]
    kinds = [exam.kind for exam in exams]
    assert {kinds.count(kind) for kind in kinds} == {2}
    for exam in exams:
        message = question_of(exam.pictures, exam.question, pages=exam.pages)
        tokens = tokens_of([message], [picture.size for picture in exam.pictures])
        assert 2048 - 60 - 420 < tokens + 8 <= 2048
        assert bool(exam.pictures) == (name != "needle-text")
        # Answers are short: those of the question before are wrong.
        assert not exam.is_right("Not that.")
    assert right_answers(exams, [exam.blind for exam in exams])["blind"] < 0.5
    with pytest.raises(ValueError, match="at least 1024 tokens, not 100"):
        list(heldout.LONG[name](1, 100))


@needs_full_data
def test_a_needle_is_as_deep_as_its_exam_says_and_the_answer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Document] = []
    draw = long_pages.document

    def kept(*args: Any, **more: Any) -> Document:
        made.append(draw(*args, **more))
        return made[-1]

    monkeypatch.setattr(long_pages, "document", kept)
    for exam, read in zip(heldout.needle(16, 2048), made, strict=False):
        ((place, fact),) = read.told.items()
        assert exam.question == fact.asks[0]
        assert exam.is_right(f" {fact.value.upper()}\n")
        assert len(exam.pictures) == len(read.pages)
        # A page may lie in two quarters.
        quarters = {int(4 * place / len(read.pages)) + 1, int(4 * (place + 0.999) / len(read.pages)) + 1}
        assert int(exam.kind.split()[1]) in quarters
    subjects = [*long_facts.things("heldout"), *long_facts.people("heldout")]
    for exam in heldout.needle_in_text(16, 2048):
        text, _, question = exam.question.rpartition("\n\n")
        (subject,) = (subject for subject in subjects if subject in question)
        (there,) = re.finditer(re.escape(subject), text, re.IGNORECASE)
        assert abs(there.start() / len(text) - (int(exam.kind.split()[1]) - 0.5) / 4) < 0.125 + 0.25
        others = {found for other in subjects for found in re.findall(re.escape(other), text, re.IGNORECASE)}
        assert len(others) == 4


@needs_full_data
@pytest.mark.parametrize(
    ("name", "share"), [("long_1", 1 / 4), ("long_2", 1 / 4), ("sft_short", 1 / 7), ("sft_long", 1 / 5)]
)
def test_the_long_samples_of_a_recipe_have_their_share_of_the_tokens(name: str, share: float) -> None:
    recipe = read_recipe(NANO / f"{name}.toml")
    tokens = {}
    for source in recipe.sources:
        module, _, function = (source.draw or "").partition(":")
        draw: Callable[[int, int], Sample] = getattr(import_module(module), function)
        lengths = [len(draw(1, index).input_ids) for index in range(32)]
        assert max(lengths) <= recipe.context
        tokens[source.name] = source.weight * sum(lengths) / len(lengths)
    long = sum(count for source, count in tokens.items() if source.startswith("long "))
    assert long / sum(tokens.values()) == pytest.approx(share, abs=0.03)


def test_sources_have_their_windows() -> None:
    assert (sources._4K, sources._16K) == (4096, 16384)
