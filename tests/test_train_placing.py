"""The placing head: where each of MoonViT's tokens lies in its picture."""

from __future__ import annotations

import pytest
import torch

from kimi_vl.train.learning.placing import SHARES, PlacingHead

GRIDS = [(4, 8), (2, 2), (2, 160)]


def head() -> PlacingHead:
    torch.manual_seed(0)
    return PlacingHead(6, (2, 2))


def test_a_token_lies_where_its_middle_lies() -> None:
    """By rows; one alone lies in the middle of its picture; of 80 in a row each is in a hundredth of its own."""
    places = head().targets(GRIDS, torch.device("cpu"))
    assert places[:8].tolist() == [[y, x] for y in (25, 75) for x in (12, 37, 62, 87)]
    assert places[8].tolist() == [50, 50]
    across = places[9:, 1].tolist()
    assert len(set(across)) == 80
    assert across == sorted(across)
    assert set(places[9:, 0].tolist()) == {50}


@torch.no_grad()
def test_who_knows_nothing_guesses_and_who_knows_is_right() -> None:
    placer = head()
    places = placer.targets(GRIDS, torch.device("cpu"))
    torch.nn.init.zeros_(placer.proj.weight)
    torch.nn.init.zeros_(placer.proj.bias)
    blind = placer.loss(torch.randn(len(places), 6), GRIDS)
    assert float(blind) == pytest.approx(2 * len(places) * torch.tensor(float(SHARES)).log().item(), rel=1e-5)
    knowing = PlacingHead(2 * SHARES, (2, 2))
    torch.nn.init.eye_(knowing.proj.weight)
    torch.nn.init.zeros_(knowing.proj.bias)
    told = 50 * torch.nn.functional.one_hot(places, SHARES).flatten(1).float()
    assert float(knowing.loss(told, GRIDS)) < 1e-3
    assert float(knowing.loss(told.roll(1, 0), GRIDS)) > 100


@torch.no_grad()
def test_pictures_together_cost_what_they_cost_alone() -> None:
    placer = head()
    features = torch.randn(sum(h * w // 4 for h, w in GRIDS), 6)
    parts = features.split([h * w // 4 for h, w in GRIDS])
    alone = sum(float(placer.loss(part, [grid])) for part, grid in zip(parts, GRIDS, strict=True))
    assert float(placer.loss(features, GRIDS)) == pytest.approx(alone, rel=1e-5)
