"""Scores of drought maps, against cases computed by hand and the laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.metrics.drought import DroughtMetrics, correlation, map_scores, mean_ranks


def test_scores_by_hand() -> None:
    scores = map_scores(np.array([1.0, 2.0, 6.0]), np.array([1.0, 3.0, 5.0]))
    assert scores["MAE"] == pytest.approx(2 / 3)
    assert scores["RMSE"] == pytest.approx((2 / 3) ** 0.5)
    assert scores["R2"] == pytest.approx(1 - 2 / 8)
    assert scores["Rs"] == pytest.approx(1)
    assert scores["Rp"] == pytest.approx(10 / np.sqrt(14 * 8))


def test_equal_values_share_their_rank() -> None:
    assert mean_ranks(np.array([5.0, 1, 5, 0, 5])).tolist() == [4, 2, 4, 1, 4]


def test_nothing_known_is_nan() -> None:
    assert all(np.isnan(value) for value in map_scores(np.array([]), np.array([])).values())
    assert np.isnan(correlation(np.ones(3), np.arange(3.0)))


def test_every_map_weighs_the_same() -> None:
    metrics = DroughtMetrics()
    metrics.update({"NDVI": (np.zeros(1000), np.ones(1000))})
    few = np.full(1000, np.nan)
    few[:2] = 3
    metrics.update({"NDVI": (np.zeros(1000), few)})
    assert metrics.compute()["NDVI_MAE"] == pytest.approx(2)
    assert metrics.compute()["num_maps"] == 2


def test_classes_by_hand() -> None:
    metrics = DroughtMetrics()
    target = np.array([0, 1, 2, 5, 5, 6, np.nan])
    predicted = np.array([0, 2, 5, 5, 0, 0, 0])
    metrics.update({}, classes=(predicted, target))
    scores = metrics.compute()
    assert scores["accuracy"] == pytest.approx(2 / 5)  # cold cells and gaps do not count
    assert scores["drought_precision"] == pytest.approx(2 / 3)
    assert scores["drought_recall"] == pytest.approx(2 / 3, rel=1e-5)
    assert scores["drought_iou"] == pytest.approx(2 / 4)
    assert scores["normal_recall"] == pytest.approx(1 / 2, rel=1e-5)
    assert scores["exceptional_precision"] == pytest.approx(1 / 2)
    assert np.isnan(scores["moderate_precision"])
    assert scores["mean_recall"] == pytest.approx((1 + 0 + 0 + 0.5) / 4, rel=1e-5)


def test_merging_and_repeating_change_nothing() -> None:
    rng = np.random.default_rng(0)
    together, parts = DroughtMetrics(), [DroughtMetrics(), DroughtMetrics()]
    for index in range(6):
        maps = rng.normal(size=(2, 30))
        classes = rng.integers(0, 7, size=(2, 30))
        for metrics in (together, parts[index % 2], parts[0]):  # part 0 sees all, part 1 half again
            metrics.update(
                {"VHI": (maps[0], maps[1])}, classes=(classes[0], classes[1]), name=f"week {index}"
            )
    merged = parts[1].merge(parts[0]).compute()
    assert merged == pytest.approx(together.compute(), nan_ok=True)
    restored = DroughtMetrics()
    restored.load_state_dict(together.state_dict())
    assert restored.compute() == pytest.approx(merged, nan_ok=True)
    restored.reset()
    assert len(restored) == 0


def test_misfits() -> None:
    with pytest.raises(ValueError, match=r"map 1, VCI: predicted \(3,\) and target \(2,\) differ"):
        DroughtMetrics().update({"VCI": (np.zeros(3), np.zeros(2))})
    with pytest.raises(ValueError, match="same classes"):
        DroughtMetrics().merge(DroughtMetrics(drought_up_to=3))
