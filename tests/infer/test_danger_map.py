"""A danger map in one pass gives every cell the numbers of its own window, whatever the tiles."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.infer.danger_map import DangerMapper, DayMaps, dropout_masks, working_mb

DAY = 200
NEAR: dict[str, Any] = {"rtol": 0, "atol": 1e-5, "equal_nan": True}


def region(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dynamic, static = (
        torch.rand(shape, generator=generator) for shape in ((10, 10, height, width), (15, height, width))
    )
    dynamic[..., : height // 3, : width // 2] = 0  # as filled sea is
    return dynamic, static


def random_model(name: str = "loan_cnn", seed: int = 0, **config: Any) -> Any:
    """Weights and running statistics far from any special value; what cells and borders hold matters."""
    torch.manual_seed(seed)
    model = fc.create_model(name, **config)
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in key:
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point() and ("running_mean" in key or "modulate" in key):
                tensor.normal_(std=0.1)
            if tensor.ndim > 1:
                tensor.mul_(2)  # as they are made, a whole region would have nearly one answer
    return model.eval()


@pytest.mark.parametrize("tile", [1, 3, 5, 8, 64])
@pytest.mark.parametrize("name", ["loan_cnn", "loan_cnn_no_time"])
def test_one_pass_gives_the_numbers_of_single_windows(name: str, tile: int) -> None:
    side = 26 if tile == 1 else 31
    model, maps = random_model(name, seed=tile), region(side + 2, side, seed=tile)
    day = DAY if model.config.time_encoding else None
    alone = DangerMapper(model, impl="per-patch").log_prob(*maps, day=day)
    assert torch.isfinite(alone[:, 12:-12, 12:-12]).all()
    assert alone[:, 12:-12, 12:-12].std(dim=(1, 2)).max() > 0.02
    assert_close(DangerMapper(model, impl="dense", tile=tile).log_prob(*maps, day=day), alone, **NEAR)


@pytest.mark.parametrize("config", [{"window_cells": 29}, {"num_days": 13}, {"num_classes": 3}])
def test_other_windows_days_and_classes(config: dict[str, Any]) -> None:
    model = random_model(**config)
    dynamic, static = region(35, 32)
    dynamic = torch.cat([dynamic, dynamic.flip(1)], dim=1)[:, : model.config.num_days]
    alone = DangerMapper(model, impl="per-patch").log_prob(dynamic, static, day=DAY)
    assert_close(DangerMapper(model, impl="dense").log_prob(dynamic, static, day=DAY), alone, **NEAR)


def test_windows_whose_last_rows_count_are_judged_one_by_one() -> None:
    model = random_model(window_cells=30)
    assert DangerMapper(model).impl == "per-patch"
    with pytest.raises(ValueError, match="windows of 4 k \\+ 1 cells"):
        DangerMapper(model, impl="dense").log_prob(*region(32, 32), day=DAY)


def test_threads_land_and_repetition_change_no_number() -> None:
    model, maps = random_model(), region(41, 38)
    mapper = DangerMapper(model, tile=6)
    whole = mapper.log_prob(*maps, day=DAY)
    assert torch.equal(mapper.log_prob(*maps, day=DAY).nan_to_num(), whole.nan_to_num())
    assert_close(DangerMapper(model, tile=6, threads=2).log_prob(*maps, day=DAY), whole, **NEAR)
    land = np.random.default_rng(0).random((41, 38)) < 0.1
    for impl in ("dense", "per-patch"):
        masked = DangerMapper(model, tile=6, impl=impl).log_prob(*maps, day=DAY, land=land)
        expected = whole.masked_fill(~torch.from_numpy(land), torch.nan)
        assert_close(masked, expected, **NEAR)


def test_a_cell_far_away_changes_nothing() -> None:
    model, (dynamic, static) = random_model(), region(40, 40)
    before = DangerMapper(model).log_prob(dynamic, static, day=DAY)
    dynamic[:, :, 36:, 36:] += 1.0
    after = DangerMapper(model).log_prob(dynamic, static, day=DAY)
    assert_close(after[:, 12:24, 12:24], before[:, 12:24, 12:24], rtol=0, atol=1e-6)
    assert (after[:, 27, 27] - before[:, 27, 27]).abs().max() > 0


def test_misfits_are_named() -> None:
    mapper = DangerMapper(random_model())
    with pytest.raises(ValueError, match="20x40 cells holds no window of 25"):
        mapper.log_prob(*region(20, 40), day=DAY)
    with pytest.raises(ValueError, match=r"1\.\.366, got 0"):
        mapper.log_prob(*region(30, 30), day=0)
    with pytest.raises(ValueError, match="pass day"):
        mapper.log_prob(*region(30, 30))
    with pytest.raises(ValueError, match="land mask has shape"):
        mapper.log_prob(*region(30, 30), day=DAY, land=np.ones((3, 3), bool))


class Kept(torch.nn.Module):
    """One member's masks in the place of dropout, in turn."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks, self.calls = masks, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.masks[(self.calls - 1) % 2]


@pytest.mark.parametrize("impl", ["dense", "per-patch"])
def test_members_are_the_whole_model_with_their_masks(impl: Any) -> None:
    model, maps = random_model(), region(28, 30)
    masks = dropout_masks(model, 3, seed=5)
    (found,) = DangerMapper(model, impl=impl, tile=3).maps(
        [DayMaps(maps[0], DAY)], maps[1], samples=3, seed=5, keep=True
    )
    assert found.members is not None
    for member in range(3):
        whole = copy.deepcopy(model)
        whole.drop = Kept([kept[member] for kept in masks])
        alone = DangerMapper(whole, impl="per-patch").probability(*maps, day=DAY)
        np.testing.assert_allclose(found.members[member], alone, rtol=0, atol=1e-5)
    assert np.nanmin(found.spread) > 0


def test_days_share_what_the_place_says() -> None:
    model, (dynamic, static) = random_model(), region(30, 29)
    other = dynamic.flip(1)
    together = DangerMapper(model, tile=4).maps([DayMaps(dynamic, DAY), DayMaps(other, 10)], static)
    for found, maps, day in zip(together, (dynamic, other), (DAY, 10), strict=True):
        alone = DangerMapper(model).probability(maps, static, day=day)
        np.testing.assert_allclose(found.probability, alone, rtol=0, atol=1e-5)


def test_a_memory_limit_chooses_the_tile() -> None:
    model = random_model()
    tiles = [DangerMapper(model, memory_mb=limit).tile for limit in (60, 120, 300, 5000)]
    assert tiles == sorted(set(tiles))
    for tile, limit in zip(tiles, (60, 120, 300, 5000), strict=True):
        assert working_mb(model, "dense", tile) <= limit
    with pytest.raises(ValueError, match="too few for a danger map"):
        DangerMapper(model, memory_mb=5)
