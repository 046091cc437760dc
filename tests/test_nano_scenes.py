"""nano's scenes, series of pictures, captions, paragraphs and chats: repeatable, and true of what was drawn."""

import re
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest
from PIL import Image

from recipes.nano import captioned, chats, evaluation, facts, paragraphs, pointing, questions, scenes, several
from recipes.nano.compose import Scene, Shape, apart, cells, coarsest, deck
from recipes.nano.conversation import Conversation
from recipes.nano.facts import Kind, Seen
from recipes.nano.fonts import Split
from recipes.nano.questions import COLOURS, NUMBERS, SHAPES
from recipes.nano.text import CHARACTERS
from tests.nano import needs_data

Talk = Callable[[int, int, Split], Conversation]
PICTURED: tuple[Talk, ...] = (
    scenes.emoji_conversation,
    scenes.counting_conversation,
    scenes.colour_conversation,
    scenes.comparing_conversation,
    scenes.side_conversation,
    scenes.listing_conversation,
    pointing.things_sample,
    pointing.words_sample,
    pointing.icons_sample,
    several.several_sample,
    paragraphs.paragraph_drawn,
)
TALKS: tuple[Talk, ...] = (*PICTURED, chats.chat_sample)


def _row(*names: str, colours: Sequence[str] = (), sides: Sequence[float] = ()) -> list[Seen]:
    return [
        Seen(name, colours[i] if colours else "", 0, i, sides[i] if sides else 30.0) for i, name in enumerate(names)
    ]


def _same(left: Image.Image, right: Image.Image) -> bool:
    return left.size == right.size and left.tobytes() == right.tobytes()


# Words --------------------------------------------------------------------------------------------------


def test_articles_and_lists() -> None:
    found = [questions.article(name) for name in ("owl", "unicorn", "hourglass", "cat", "cherries", "bus", "euro")]
    assert found == ["an owl", "a unicorn", "an hourglass", "a cat", "cherries", "a bus", "a euro"]
    assert questions.listed(["a"]) == "a"
    assert questions.listed(["a", "b"]) == "a and b"
    assert questions.listed(["a", "b", "c"]) == "a, b and c"


def test_every_wording_can_be_drawn_and_typed() -> None:
    for module in (questions, several, paragraphs, chats):
        for wording in module.every_wording():
            assert set(wording) <= set(CHARACTERS), wording


def test_the_first_wording_is_asked_held_out() -> None:
    asked = questions.ask(questions.MORE, "cats", first="cats", second="dogs")
    assert asked.turn(Random(0), "heldout").question == "Are there more cats or dogs?"
    seen = {asked.turn(Random(seed), "train").question for seed in range(50)}
    assert "Cats or dogs: which are more?" in seen
    assert len(seen) == len(questions.MORE)


# Questions about a layout -------------------------------------------------------------------------------


def test_kinds_are_counted_by_name_colour_or_both() -> None:
    seen = _row("star", "star", "ring", colours=("red", "blue", "red"))
    kinds = (Kind("star"), Kind("", "red"), Kind("star", "red"), Kind("heart"))
    found = [(kind.many, facts.count(kind, seen).answer) for kind in kinds]
    assert found == [("stars", "2"), ("red shapes", "2"), ("red stars", "1"), ("hearts", "0")]


@pytest.mark.parametrize("cats", range(1, 5))
def test_comparisons_of_numbers(cats: int) -> None:
    seen = _row(*["cat"] * cats, "dog", "dog")
    for seed in range(60):
        asked = facts.more(Random(seed), seen, Kind("boat"))
        if asked is None:
            continue
        question = asked.wordings[0]
        here = {"cats": cats, "dogs": 2, "boats": 0}
        first, second = (here[word] for word in re.findall("cats|dogs|boats", question))
        if first == second:
            assert asked.answer == "equally many"
        else:
            assert here[asked.answer] == (min if "fewer" in question else max)(first, second)
        same = facts.as_many(Random(seed), seen, Kind("boat"))
        if same is not None:
            first, second = (here[word] for word in re.findall("cats|dogs|boats", same.wordings[0]))
            assert same.answer == ("yes" if first == second else "no")


def test_comparisons_of_sizes() -> None:
    seen = _row("cat", "dog", "boat", sides=(50, 20, 35))
    for seed in range(60):
        asked = facts.largest(Random(seed), seen, Kind("star"))
        assert asked is not None
        assert asked.answer == ("cat" if "largest" in asked.wordings[0] else "dog")
        asked = facts.larger(Random(seed), seen, Kind("star"))
        assert asked is not None
        sides = {s.name: s.side for s in seen}
        names = re.findall(r"the (\w+)", asked.wordings[0])
        if "star" in names:
            assert asked.answer == questions.CANNOT_TELL
        else:
            pick = max if "larger" in asked.wordings[0] else min
            assert asked.answer == pick(names, key=sides.__getitem__)
    assert facts.largest(Random(0), _row("cat", "dog", sides=(30, 31)), Kind("star")) is None


def test_the_left_of_two_is_larger() -> None:
    seen = _row("cat", "cat", sides=(50, 20))
    found = {}
    for seed in range(40):
        asked = facts.pair_larger(Random(seed), seen, Kind("star"))
        assert asked is not None
        found[asked.wordings[0]] = asked.answer
    assert found == {
        "Is the left cat larger than the right one?": "yes",
        "Is the left cat smaller than the right one?": "no",
        "Is the right cat larger than the left one?": "no",
        "Is the right cat smaller than the left one?": "yes",
    }


def test_places_in_a_row_and_in_a_square() -> None:
    row = _row("cat", "dog", "boat")
    square = [Seen(name, "", i // 2, i % 2, 30) for i, name in enumerate(("cat", "dog", "boat", "tree"))]
    found: dict[str, str] = {}
    for seed in range(400):
        for seen in (row, square):
            where = "row" if seen is row else "square"
            for asker in (facts.beside, facts.where, facts.is_beside, facts.at_end, facts.in_order):
                asked = asker(Random(seed), seen, Kind("star"))
                if asked is not None:
                    assert found.setdefault(f"{where}: {asked.wordings[0]}", asked.answer) == asked.answer
    assert found["row: What is left of the dog?"] == "cat"
    assert found["row: What is right of the dog?"] == "boat"
    assert "row: What is left of the boat?" not in found
    assert found["row: What is in the middle?"] == "dog"
    assert found["row: What is left of the star?"] == "I cannot tell."
    assert found["row: Is the cat left or right of the boat?"] == "left"
    assert found["row: Is the star left of the boat?"] == "no"
    assert found["row: Name the things from left to right."] == "cat, dog, boat"
    assert found["square: What is below the dog?"] == "tree"
    assert found["square: Is the boat above or below the cat?"] == "below"
    assert found["square: What is at the bottom left?"] == "boat"
    assert "square: Is the cat left or right of the tree?" not in found


def _is_true(sentence: str, seen: Sequence[Seen]) -> bool:
    """Another reading of the sentences that are judged, from their words alone."""

    def of(words: str) -> list[Seen]:
        colours = [word for word in words.split() if word in COLOURS]
        names = [name for name in SHAPES if re.search(rf"\b{name}(s|es)?\b", words)]
        return [s for s in seen if (not colours or s.colour in colours) and (not names or s.name in names)]

    if place := re.fullmatch(r"there is (.+) (left of|right of|above|below) (.+)", sentence):
        pairs = [(a, b) for a in of(place[1]) for b in of(place[3])]
        return any(
            {"left of": b.column - a.column, "right of": a.column - b.column, "above": b.row - a.row}.get(
                place[2], a.row - b.row
            )
            > 0
            for a, b in pairs
        )
    if number := re.fullmatch(r"there (?:is|are) (exactly|at least|at most) (\w+) (.+)", sentence):
        there, said = len(of(number[3])), NUMBERS.index(number[2])
        return {"exactly": there == said, "at least": there >= said, "at most": there <= said}[number[1]]
    if every := re.fullmatch(r"all (\w+) are (\w+)", sentence):
        return all(s.colour == every[2] for s in of(every[1]))
    if extreme := re.fullmatch(r"the (largest|smallest) shape is (.+)", sentence):
        ordered = sorted(seen, key=lambda s: s.side)
        return (ordered[-1] if extreme[1] == "largest" else ordered[0]) in of(extreme[2])
    none = re.fullmatch(r"there is no (.+)", sentence)
    assert none, sentence
    return not of(none[1])


def test_sentences_are_judged_by_the_layout_and_are_true_half_the_time() -> None:
    said = []
    for seed in range(2000):
        random = Random(seed)
        names, colours = random.sample(SHAPES, 3), random.sample(list(COLOURS), 3)
        places = random.sample([(row, column) for row in range(3) for column in range(3)], random.randint(3, 8))
        seen = [
            Seen(random.choice(names), random.choice(colours), row, column, random.uniform(15, 40))
            for row, column in places
        ]
        asked = facts.statement(random, seen, Kind())
        assert asked is not None
        sentence = asked.wordings[0].removesuffix(". Is this true?")
        sentence = sentence[0].lower() + sentence[1:]
        assert asked.answer == ("yes" if _is_true(sentence, seen) else "no"), sentence
        said.append(asked.answer)
    assert 0.45 < said.count("yes") / len(said) < 0.55


# Pictures of shapes, without downloads ------------------------------------------------------------------


def test_cells_cover_the_picture_and_hold_what_they_must() -> None:
    assert coarsest((112, 84), 12, 44) == 28
    assert coarsest((28, 28), 5, 44) == 0
    found = cells((112, 84), 4, 3)
    assert [(cell.row, cell.column) for cell in found[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert (found[-1].x, found[-1].y) == (98, 70)


def test_scattered_shapes_lie_apart_in_their_rows_and_are_seen() -> None:
    for seed in range(40):
        random = Random(seed)
        count = random.randint(1, 16)
        scene = scenes.scattered(random, "train", [Shape("square", "red")] * count)
        assert len({(s.row, s.column) for s in scene.seen}) == count
        assert all(14 <= s.side <= 41 for s in scene.seen)
        assert max(scene.image.size) <= 224
        assert not any(side % 28 for side in scene.image.size)
        red = np.abs(np.asarray(scene.image, np.int32) - COLOURS["red"]).max(-1) < 45
        covered = sum(s.side**2 for s in scene.seen) / red.size
        assert red.mean() == pytest.approx(covered, rel=0.3)
        assert not scene.absent.among(scene.seen)


def test_colours_are_told_and_what_is_not_there_is_not() -> None:
    absent = 0
    for index in range(150):
        shown = scenes.colour_conversation(1, index, "heldout")
        assert 1 <= len(shown.turns) <= 5
        assert len({turn.question for turn in shown.turns}) == len(shown.turns)
        absent += any(turn.answer == questions.CANNOT_TELL for turn in shown.turns)
    assert 10 < absent < 75


# With the downloads -------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("draw", TALKS, ids=lambda draw: draw.__name__)
def test_conversations_repeat_and_say_what_can_be_said(draw: Talk, split: Split) -> None:
    for index in range(40):
        shown, again = draw(5, index, split), draw(5, index, split)
        assert shown.turns == again.turns
        assert len(shown.pictures) == len(again.pictures)
        assert all(map(_same, shown.pictures, again.pictures))
        assert bool(shown.pictures) == (draw in PICTURED)
        assert all(picture.mode == "RGB" for picture in shown.pictures)
        assert shown.turns
        for turn in shown.turns:
            assert turn.question and turn.answer
            assert set(turn.question + turn.answer.replace("\n", "")) <= set(CHARACTERS)
            assert "{" not in turn.question or draw is paragraphs.paragraph_drawn


@needs_data
def test_counts_are_true_and_go_evenly_to_ten() -> None:
    counts = []
    for seed in range(300):
        scene: Scene = scenes.counting_scene(Random(seed), "train")
        main = scene.seen[0]
        counts.append(sum((s.name, s.colour) == (main.name, main.colour) for s in scene.seen))
        assert not scene.absent.among(scene.seen)
        assert all(s.side >= 14 for s in scene.seen)
    assert set(counts) == set(range(1, 11))
    assert all(12 < counts.count(number) < 55 for number in range(1, 11))
    answers = [int(scenes.counting_sample(0, index, "heldout").answer) for index in range(200)]
    assert set(answers) == set(range(11))


def test_all_is_listed_row_by_row() -> None:
    seen = [Seen("ring", "red", 2, 0, 30), Seen("star", "blue", 0, 3, 30), Seen("star", "red", 0, 1, 30)]
    assert facts.row_by_row(seen).answer == "red star, blue star\nred ring"


@needs_data
def test_things_that_stand_together_cannot_be_taken_for_each_other() -> None:
    cards = {card.name: card for card in deck("heldout").things}
    assert not apart(cards["dog"], cards["poodle"])
    assert apart(cards["dog"], cards["sailboat"])
    assert "star" not in cards


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_captions_repeat_are_short_and_differ(split: Split) -> None:
    found = [captioned.caption_sample(2, index, split) for index in range(400)]
    for index in range(0, 400, 10):
        again = captioned.caption_sample(2, index, split)
        assert again.caption == found[index].caption
        assert _same(again.image, found[index].image)
    assert all(one.image.mode == "RGB" for one in found)
    assert all(not side % 28 for one in found for side in one.image.size)
    assert all(set(one.caption) <= set(CHARACTERS) and len(one.caption.split()) <= 21 for one in found)
    assert len({one.caption for one in found}) > 350


def test_captions_of_compositions() -> None:
    seen = _row("star", "star", "ring", colours=("red", "red", "blue"))
    assert captioned.numbered_caption(seen) == "two red stars and a blue ring"
    assert captioned.placed_caption(Random(0), _row("dog", "tree"), "heldout") == "a dog left of a tree"
    square = [Seen(name, "", i // 2, i % 2, 30) for i, name in enumerate(("cat", "dog", "boat", "owl"))]
    assert captioned.placed_caption(Random(0), square, "heldout") == "a cat and a dog above a boat and an owl"


@needs_data
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_pages_say_what_is_drawn_on_them(split: Split) -> None:
    forms = set()
    for seed in range(60):
        image, page = paragraphs.page_drawn(Random(seed), split)
        assert image.width <= 448 and image.height <= 224
        assert not image.width % 28 and not image.height % 28
        assert all(2 <= len(column) <= 6 for column in page.columns)
        assert np.asarray(image).std() > 3
        forms.add((bool(page.heading), len(page.columns)))
    assert forms == {(False, 1), (True, 1), (False, 2)}


@needs_data
def test_questions_about_a_page_are_true() -> None:
    for seed in range(300):
        random = Random(seed)
        lines = ("The quick brown fox", "jumps over the lazy dog,", "twice.")
        asked = paragraphs._question(random, paragraphs.Page("", (lines,)))
        if asked is None:
            continue
        question = asked.wordings[0]
        expected = {
            "What is the first word?": "The",
            "What is the last word?": "twice",
            "How many lines are there?": "3",
            "What does line 2 say?": lines[1],
            "What does line 4 say?": questions.CANNOT_TELL,
            "What does the last line say?": "twice.",
            'Which word comes after "lazy"?': "dog",
        }
        assert asked.answer == expected.get(question, asked.answer)
        assert question != 'Which word comes after "the"?'


@needs_data
def test_answers_about_several_pictures_name_one_of_them() -> None:
    for index in range(150):
        shown = several.several_sample(3, index, "heldout")
        assert 2 <= len(shown.pictures) <= 4
        for turn in shown.turns:
            if turn.answer.rstrip(".").lower().removeprefix("the ") in several.ORDINALS:
                nth = several.ORDINALS.index(turn.answer.rstrip(".").lower().removeprefix("the "))
                assert nth < len(shown.pictures)
            if turn.question == "How many pictures are there?":
                assert turn.answer == str(len(shown.pictures))


@needs_data
def test_sums_are_right_and_held_out_ones_are_apart() -> None:
    asked: dict[str, set[str]] = {"train": set(), "heldout": set()}
    for split in asked:
        for seed in range(400):
            found = chats._sum(Random(seed), "train" if split == "train" else "heldout")
            if match := re.fullmatch(r"What is (\d+) ([-+×]) (\d+)\?", found.wordings[0]):
                a, b = int(match[1]), int(match[3])
                assert found.answer == str({"+": a + b, "-": a - b, "×": a * b}[match[2]])
                asked[split].add(found.wordings[0])
    assert asked["train"] and asked["heldout"]
    assert not asked["train"] & asked["heldout"]
    assert not {w.word for w in chats._words("train")} & {w.word for w in chats._words("heldout")}


def test_words_are_read_from_wordnet() -> None:
    index = "  1 licence\ntulip n 1 2 @ ~ 1 1 00000042\nrare n 1 1 @ 1 0 00000042\nhot_dog n 1 1 @ 1 1 00000042\n"
    data = "  1 licence\n00000042 20 n 01 tulip 0 001 @ 1 n 0 | (botany) a bulbous plant; “a red one”\n"
    assert list(chats.read_words(index, data)) == [chats.Word("tulip", "a bulbous plant")]


def test_evaluation_names_grow_from_the_first_hundred() -> None:
    assert len(evaluation.EVAL_NAMES) == len(set(evaluation.EVAL_NAMES)) == sum(evaluation.QUOTA.values()) == 200
    assert sum(evaluation.FIRST_QUOTA.values()) == 100
