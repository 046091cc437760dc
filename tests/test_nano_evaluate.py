"""How nano's answers are scored: the likeliest name is found without asking for all of them."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kimi_vl import KimiVL, KimiVLProcessor
from kimi_vl.engine.model import EngineModel
from recipes.nano import evaluate, questions
from tests.engines import noise


@pytest.mark.parametrize("seed", range(20))
def test_the_likeliest_name_is_the_one_with_the_greatest_sum(seed: int) -> None:
    """And a name that cannot be it any more is not asked for."""
    generator = torch.Generator().manual_seed(seed)
    names = torch.randint(0, 50, (40, 3), generator=generator).tolist()
    first = 3 * torch.randn(50, generator=generator)
    table = 3 * torch.randn(50, 50, generator=generator)
    asked: list[Sequence[int]] = []

    def after(seen: Sequence[int]) -> Tensor:
        asked.append(seen)
        return table[list(seen)]

    best = evaluate.likeliest(first, names, after)
    begins, then = first.log_softmax(-1), table.log_softmax(-1)
    sums = [float(begins[a] + then[a, b] + then[b, c]) for a, b, c in names]
    assert sums[best] == max(sums)
    wanted = {a for a, _, _ in names if float(begins[a]) > max(sums)}
    assert {seen[0] for seen in asked} == wanted | {names[best][0]}


def test_exact_and_in_4_bits_the_likeliest_is_what_scoring_each_alone_finds(nano4: EngineModel) -> None:
    model, processor = KimiVL.from_pretrained("nano", dtype="float32"), KimiVLProcessor.from_pretrained("nano")
    tokenizer = processor.tokenizer
    names = [[*tokenizer.encode(name), tokenizer.im_end_id] for name in ("red apple", "green car", "red car", "dog")]
    inputs = evaluate.asked([noise(0, 40, 40)], questions.NAME[0], processor)
    scores = []
    for name in names:
        ids = torch.cat((inputs.input_ids, torch.tensor(name)))
        with torch.inference_mode():
            logits = model.model(
                ids, [len(ids)], pixel_values=inputs.pixel_values, image_grid_hws=inputs.image_grid_hws
            ).logits
        chances = logits.float().log_softmax(-1)[-len(name) - 1 : -1]
        scores.append(float(chances[torch.arange(len(name)), torch.tensor(name)].sum()))
    best = max(range(len(names)), key=scores.__getitem__)
    assert evaluate.likeliest_name(model.model, inputs, names) == best
    assert evaluate.likeliest_name_in_4_bits(nano4, inputs, names) == best
