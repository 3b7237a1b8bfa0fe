"""Scores of maps are those of the textbook, whatever the order and the cuts in which maps come."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.metrics.maps import MapMetrics


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = 280 + 5 * rng.standard_normal((6, 4, 5))
    predicted, reference = target + rng.standard_normal(target.shape), target.mean(0) + 0 * target
    target[:, 0, 0] = np.nan
    return predicted, target, reference


def test_against_the_definitions(maps: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    predicted, target, reference = maps
    metrics = MapMetrics()
    for p, t, r in zip(predicted, target, reference, strict=True):
        metrics.update("tas", p, t, r)
    found = metrics.compute()
    known = np.isfinite(target)
    p, t, r = predicted[known], target[known], reference[known]
    assert found["tas: mae"] == pytest.approx(np.abs(p - t).mean())
    assert found["tas: rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))
    assert found["tas: bias"] == pytest.approx((p - t).mean())
    assert found["tas: r2"] == pytest.approx(1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum())
    assert found["tas: correlation"] == pytest.approx(np.corrcoef(p, t)[0, 1])
    assert found["tas: skill"] == pytest.approx(1 - ((p - t) ** 2).sum() / ((r - t) ** 2).sum())
    assert found["tas: anomaly_correlation"] == pytest.approx(np.corrcoef(p - r, t - r)[0, 1])


def test_merged_parts_are_the_whole(maps: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    predicted, target, reference = maps
    whole, parts = MapMetrics(), [MapMetrics(), MapMetrics()]
    north = np.zeros(target.shape[1:], dtype=bool)
    north[:2] = True
    for i, (p, t, r) in enumerate(zip(predicted, target, reference, strict=True)):
        for metrics in (whole, parts[i % 2]):
            metrics.update("tas", p, t, r, groups={"DJF" if i < 3 else "JJA": None, "north": north})
    restored = MapMetrics()
    restored.load_state_dict(parts[1].state_dict())
    assert parts[0].merge(restored).compute() == pytest.approx(whole.compute())
    assert set(whole.compute(groups=("north",))) < set(whole.compute())
    sums = {g: whole._sums["tas", g][0] for g in ("", "DJF", "JJA", "north")}
    assert sums["DJF"] + sums["JJA"] == sums[""]
    assert sums["north"] == 6 * (2 * 5 - 1)


def test_known_values() -> None:
    """Perfect maps and the reference itself; what does not vary has no correlation."""
    metrics, target = MapMetrics(), np.array([[1.0, 2.0], [3.0, 5.0]])
    reference = np.full_like(target, 2.0)
    metrics.update("perfect", target, target, reference)
    metrics.update("usual", reference, target, reference)
    metrics.update("unknown", target, target * np.nan)
    found = metrics.compute()
    assert found["perfect: skill"] == 1
    assert found["perfect: r2"] == pytest.approx(1)
    assert found["usual: skill"] == 0
    assert np.isnan(found["usual: correlation"])
    assert np.isnan(found["unknown: rmse"])
    assert "unknown: skill" not in found
    with pytest.raises(ValueError, match="differ"):
        metrics.update("x", target, target[0])
