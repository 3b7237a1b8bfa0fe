"""Weeks of TerrSysMP-NET become samples: order, orientation, gaps; scores of a perfect prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from framecast.data import drought_weeks
from framecast.data.drought_weeks import (
    SIMULATED,
    STATIC,
    YEARS,
    DroughtWeek,
    augment,
    channel_names,
    destandardise,
    judge_week,
    read_week,
)
from framecast.metrics.drought import DroughtMetrics

SHAPE = (12, 14)


def raw_week(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "tas": rng.normal(size=(7, *SHAPE)),
        "sgw": rng.normal(size=(7, 15, *SHAPE)),
        "SMN": rng.random(SHAPE),
        "SMT": 280 + rng.random(SHAPE),
        "mask_cold_surface": np.zeros(SHAPE, dtype=np.uint8),
    }


def read(week: dict[str, np.ndarray], **changes: Any) -> DroughtWeek:
    names = channel_names(("tas", "sgw"))
    arguments: dict[str, Any] = {
        "variables": ("tas", "sgw"),
        "static": {"HSURF": np.arange(np.prod(SHAPE)).reshape(SHAPE)},
        "statistics": {"mean": dict.fromkeys(names, 1.0), "std": dict.fromkeys(names, 2.0)},
        "climatology": np.zeros((10, *SHAPE)),
        "sea": np.zeros(SHAPE),
        "no_vegetation": np.zeros(SHAPE),
        "rim": 2,
    }
    return read_week(week, **(arguments | changes))


def test_published_channels() -> None:
    assert len(SIMULATED) == 51
    assert len(channel_names(SIMULATED, STATIC)) == 71
    assert channel_names(("pr", "sgw", "tas"))[:3] == ["pr", "sgw_1", "sgw_2"]
    years = [year for split in YEARS.values() for year in split]
    assert sorted(years) == list(range(1989, 2020))


def test_north_comes_first_and_the_rim_goes() -> None:
    raw = raw_week(np.random.default_rng(0))
    week = read(raw)
    assert week.variables.shape == (17, 8, 10)
    np.testing.assert_allclose(week.ndvi, raw["SMN"][::-1][2:-2, 2:-2].astype(np.float32))
    tas = (raw["tas"].mean(0) - 1) / 2
    np.testing.assert_allclose(week.variables[0], tas[::-1][2:-2, 2:-2], rtol=1e-5, atol=1e-6)
    assert (np.diff(week.variables[-1], axis=0) < 0).all()  # HSURF rises towards the north here


def test_gaps() -> None:
    raw = raw_week(np.random.default_rng(0))
    raw["tas"][0, 5, 5] = np.nan  # a day
    raw["tas"][:, 6, 6] = np.nan  # all days
    raw["tas"][1, 7, 7] = np.inf
    raw["sgw"][2, 0, 5, 5] = -9999
    raw["SMN"] = np.stack([raw["SMN"], np.full(SHAPE, np.nan)])
    raw["mask_cold_surface"] = np.zeros((2, *SHAPE), dtype=np.uint8)
    raw["mask_cold_surface"][1, 4, 4] = 1
    week = read(raw)

    def at(image: np.ndarray, row: int, column: int) -> float:
        return float(image[::-1][row - 2, column - 2])

    assert at(week.variables[0], 5, 5) == pytest.approx((raw["tas"][1:, 5, 5].mean() - 1) / 2, rel=1e-4)
    assert at(week.variables[0], 6, 6) == at(week.variables[0], 7, 7) == 0
    level = np.delete(raw["sgw"][:, 0, 5, 5], 2).mean()
    assert at(week.variables[1], 5, 5) == pytest.approx((level - 1) / 2, rel=1e-4)
    assert np.isfinite(week.ndvi).all()
    assert week.cold.sum() == at(week.cold, 4, 4) == 1


def test_chosen_days() -> None:
    raw = raw_week(np.random.default_rng(0))
    week = read(raw, days=(2, 4))
    expected = ((raw["tas"][2] + raw["tas"][4]) / 2 - 1) / 2
    np.testing.assert_allclose(week.variables[0], expected[::-1][2:-2, 2:-2], rtol=1e-4, atol=1e-6)


def test_what_is_missing_is_named() -> None:
    raw = raw_week(np.random.default_rng(0))
    del raw["SMT"]
    with pytest.raises(ValueError, match=r"no variables \['SMT'\] and the statistics none of \[\]"):
        read(raw)
    with pytest.raises(ValueError, match=r"none of \['tas', 'sgw_1'"):
        read(raw_week(np.random.default_rng(0)), statistics={"mean": {}, "std": {}})


def test_augmentation_moves_all_maps_together() -> None:
    week = read(raw_week(np.random.default_rng(0)))
    seen = set()
    for seed in range(20):
        new = augment(week, np.random.default_rng(seed), noise=0.0)
        where = np.argwhere(new.ndvi == week.ndvi[0, 0])[0]
        seen.add(tuple(int(i) for i in where))
        np.testing.assert_array_equal(new.variables[:, *where], week.variables[:, 0, 0])
        assert new.bt[*where] == week.bt[0, 0]
    assert seen == {(0, 0), (0, 9), (7, 0), (7, 9)}
    noisy = augment(week, np.random.default_rng(3), noise=0.5)
    assert np.isfinite(noisy.variables).all()


def some_week(rng: np.random.Generator) -> DroughtWeek:
    climatology = np.zeros((10, 20, 20), dtype=np.float32)
    climatology[[0, 1, 2, 5, 6, 7]] = np.array([0.1, 0.7, 0.4, 270, 310, 290])[:, None, None]
    return DroughtWeek(
        variables=np.zeros((0, 20, 20), dtype=np.float32),
        ndvi=rng.uniform(0.1, 0.7, (20, 20)).astype(np.float32),
        bt=rng.uniform(270, 310, (20, 20)).astype(np.float32),
        climatology=climatology,
        cold=(rng.random((20, 20)) < 0.1).astype(np.float32),
        sea=(rng.random((20, 20)) < 0.2).astype(np.float32),
        no_vegetation=np.zeros((20, 20), dtype=np.float32),
    )


def test_a_perfect_prediction_is_perfect() -> None:
    week, metrics = some_week(np.random.default_rng(0)), DroughtMetrics()
    week.ndvi[0] = np.nan
    maps = judge_week(week, week.ndvi, week.bt)
    metrics.update(maps.values, classes=maps.classes)
    scores = metrics.compute()
    assert scores["accuracy"] == 1
    for name in ("NDVI", "BT", "NDVI_a", "BT_a", "VCI", "TCI", "VHI"):
        assert scores[f"{name}_MAE"] == 0
        assert scores[f"{name}_R2"] == pytest.approx(1)
        assert scores[f"{name}_Rs"] == pytest.approx(1)


def test_sea_and_gaps_do_not_count_cold_counts_for_values_only() -> None:
    week = some_week(np.random.default_rng(0))
    week.bt[3] = np.nan
    maps = judge_week(week, week.ndvi + 0.1, week.bt)
    gap = np.isnan(week.bt) & (week.cold == 0)
    for name, (predicted, target) in maps.values.items():
        counts = np.isfinite(predicted) & np.isfinite(target)
        assert not counts[gap].any()
        assert not counts[(week.sea > 0) & (week.cold == 0)].any()
        land = (week.sea == 0) & (week.cold > 0) & np.isfinite(week.bt)
        assert counts[land].all() == (name not in ("VCI", "TCI", "VHI"))


def test_scaling() -> None:
    assert destandardise(0.0, "BT") == pytest.approx(289.30905)
    assert destandardise(1.0, "NDVI") == pytest.approx(0.14982702 + 0.20188083)
    assert destandardise(99.0, "BT") == destandardise(drought_weeks.FAR_OFF, "BT")
