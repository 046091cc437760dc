"""A recipe's sources -> the mixture of a run: what each source names is looked up or read, and checked.

In: :class:`Recipe`, its stage, and the processor of the model that learns. Out: :class:`Mixture`; and exams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from kimi_vl.processor import KimiVLProcessor
from kimi_vl.train.data.conversations import Conversations
from kimi_vl.train.data.mixture import Mixture, Source
from kimi_vl.train.data.packing import Batch, Sample
from kimi_vl.train.data.resolution import Resolution
from kimi_vl.train.functions import function
from kimi_vl.train.recipe import Recipe, SourceRecipe
from kimi_vl.train.stage import Stage
from kimi_vl.train.watching.examining import Exam, Question


def mixture_of(
    recipe: Recipe,
    stage: Stage,
    processor: KimiVLProcessor,
    *,
    share: tuple[int, int] = (0, 1),
    cut: Callable[[Batch], Batch] | None = None,
) -> Mixture:
    """What the recipe's run learns from; see :class:`Mixture` for ``share`` and ``cut``.

    The contents of a JSONL file are told apart by the digest of its bytes and by ``context``, which decides where its
    conversations are cut; of pictures that it names by path, only the path counts. What a function draws from is not
    known here. Raises ``ValueError`` for anything that cannot be.
    """
    resolution = None
    if recipe.resolution < 1:
        if not stage.captions:
            raise ValueError(
                f"resolution: stage {recipe.stage} has conversations, whose pictures keep their size: leave it out"
            )
        resolution = Resolution(recipe.resolution, recipe.growth, processor.image_config)
    return Mixture(
        [_opened(source, processor, recipe.context) for source in recipe.sources],
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        pieces=recipe.pieces,
        passes=recipe.passes,
        steps=recipe.steps,
        resolution=resolution,
        share=share,
        cut=cut,
    )


def _opened(source: SourceRecipe, processor: KimiVLProcessor, context: int) -> Source:
    if source.jsonl is not None:
        conversations = Conversations(Path(source.jsonl), processor, context=context)
        contents = f"SHA-256 {conversations.report.digest} at a context of {context}"
        return Source(source.name, source.weight, conversations.draw, source.weight_end, contents)
    assert source.draw is not None
    draw: Callable[[int, int], Sample] = function(f"source {source.name}", source.draw)
    return Source(source.name, source.weight, draw, source.weight_end)


def exams_of(recipe: Recipe) -> list[Exam]:
    """What is asked at every save. Raises ``ValueError`` for functions that there are not, and for no questions."""
    exams = []
    for exam in recipe.exams:
        draw: Callable[[int], Iterable[Question]] = function(f"exam {exam.name}", exam.draw)
        questions = list(draw(exam.count))
        if not questions:
            raise ValueError(f"exam {exam.name}: {exam.draw} gives no question for a count of {exam.count}")
        exams.append(Exam(exam.name, questions))
    return exams
