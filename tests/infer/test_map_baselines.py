"""Baselines of maps ahead: what they know, what they reach on a cube whose law is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framecast.data.cube import open_cube
from framecast.data.map_scaling import MapWindow, fit_scaling
from framecast.data.map_series import MapSeries
from framecast.infer.map_baselines import BASELINES, fit_baseline, score_baseline
from map_cube import STEPS, simulate, write_map_cube

WINDOW = MapWindow(
    targets=("ndvi", "bt"), steps=3, leads=(1, 2), past_targets=True, season=True, anomalies=True, periods=24
)


def sides(folder: Path, maps: dict[str, np.ndarray] | None = None) -> dict[str, MapSeries]:
    cube = open_cube(write_map_cube(folder, maps=maps))
    scaling = fit_scaling(cube, WINDOW)
    return {split: MapSeries(cube, WINDOW, scaling, split=split) for split in ("train", "val", "test")}


def test_skill_on_a_known_law(tmp_path: Path) -> None:
    series = sides(tmp_path)
    found = {
        name: score_baseline(fit_baseline(name, series["train"], series["val"]), series["test"]).compute()
        for name in BASELINES
    }
    assert found["climatology"]["skill"] == 0
    assert found["persistence"]["skill"] < found["anomaly_persistence"]["skill"]
    assert found["anomaly_persistence"]["ndvi+1: skill"] > 0.2  # 0.7 of a departure is left after a step
    assert found["linear"]["ndvi+1: skill"] > 0.2
    for name in ("linear", "gradient_boosting"):
        assert found[name]["ndvi+1: skill"] > found[name]["ndvi+2: skill"] - 0.05


@pytest.mark.parametrize("name", BASELINES)
def test_the_future_is_not_seen(name: str, tmp_path: Path) -> None:
    series = sides(tmp_path / "ours")
    issue = int(series["test"].issues[5])
    maps = simulate(STEPS)
    for values in maps.values():
        values[issue + 1 :] += 5
    later = sides(tmp_path / "later", maps)
    ours, theirs = (
        fit_baseline(name, s["train"], s["val"]).predict(s["test"], [issue]) for s in (series, later)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_unknown_baseline(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        fit_baseline("linea", sides(tmp_path)["train"])
