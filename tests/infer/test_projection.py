"""Projections: indices and drought counted as by hand, trends as known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framecast.data.cube import open_cube
from framecast.data.vegetation_indices import Climatology, condition, drought_class, vhi
from framecast.infer.map_forecaster import MapForecaster
from framecast.infer.projection import least_squares, project, theil_sen
from framecast.recipes.build import build_task, get_recipe
from framecast.train.config import apply_overrides
from framecast.train.loop import train
from map_cube import SHAPE, simulate, write_map_cube

YEARS = np.arange(2000, 2030)
NETWORK = "model.config={widths: [4, 8], depths: [1, 1], decoder: cnn, focal_levels: [1, 1], \
focal_windows: [3, 3]}"


@pytest.mark.parametrize("by", [theil_sen, least_squares])
def test_a_known_trend(by) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 3, 4))
    values[:, 0] += 0.3 * np.arange(30)[:, None]  # 3 per decade
    values[:, 1] -= 0.3 * np.arange(30)[:, None]
    values[::3, :, 0] = np.nan
    values[3:, 2, 3] = np.nan
    found = by(values, YEARS)
    np.testing.assert_allclose(found.slope[0], 3, atol=0.6)
    np.testing.assert_allclose(found.slope[1], -3, atol=0.6)
    assert (found.p_value[:2] < 1e-3).all()
    assert (found.p_value[2, :3] > 0.01).all()
    assert np.isnan(found.slope[2, 3])
    assert np.isnan(found.p_value[2, 3])


def test_p_values_are_those_of_scipy() -> None:
    from scipy.stats import kendalltau, linregress

    values = np.round(np.random.default_rng(1).standard_normal((30, 1, 6)), 1)
    values[:, 0, 0] = 1.0
    sen, line = theil_sen(values, YEARS), least_squares(values, YEARS)
    assert sen.p_value[0, 0] == 1
    for column in range(1, 6):
        fitted = linregress(YEARS / 10, values[:, 0, column])
        assert line.slope[0, column] == pytest.approx(fitted.slope)
        assert line.p_value[0, column] == pytest.approx(fitted.pvalue)
        tau = kendalltau(YEARS, values[:, 0, column], method="asymptotic").pvalue
        assert sen.p_value[0, column] == pytest.approx(tau, abs=0.03)  # Mann-Kendall corrects for continuity


def test_trends_of_noise_are_rarely_significant() -> None:
    noise = np.random.default_rng(2).standard_normal((30, 20, 20))
    for by in (theil_sen, least_squares):
        assert 0.02 < (by(noise, YEARS).p_value < 0.05).mean() < 0.09


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[MapForecaster, Path, Path]:
    """A model from rain to vegetation and temperature, its cube, and a drying simulation without either."""
    folder = tmp_path_factory.mktemp("world")
    cube = write_map_cube(folder / "cube")
    given = [f"data.root={cube}", "epochs=1", "data.periods=24", "data.vegetation=ndvi", NETWORK]
    recipe = apply_overrides(get_recipe("downscaling"), [*given, "data.temperature=bt"])
    train(recipe, build_task(recipe), folder / "run")
    rain = simulate(12 * 24, seed=5)["rain"]
    future = write_map_cube(folder / "future", steps=12 * 24, first_year=2095, maps={"rain": rain}, splits={})
    return MapForecaster(folder / "run"), cube, future


def test_a_simulation_of_the_future(world: tuple[MapForecaster, Path, Path]) -> None:
    forecaster, cube, future = world
    found = project(forecaster, future, reference=cube)
    assert found.years.tolist() == list(range(2095, 2107))
    assert found.decades.tolist() == [2090, 2100]
    assert set(found.means) == {"ndvi", "VCI", "TCI", "VHI"}
    shares = found.frequency("JJA")
    assert shares.shape == (2, *SHAPE)
    assert np.isnan(shares[:, -1, 0]).all()  # sea
    assert np.nanmin(shares) >= 0
    assert np.nanmax(shares) <= 1
    maps = found.forecast()
    assert set(maps.values) == {"drought_frequency"} | {
        f"drought_frequency_{s}" for s in ("DJF", "MAM", "JJA", "SON")
    }
    trends = found.trend_maps()
    assert trends.values["VHI_trend"].shape == (1, *SHAPE)
    # every step of a year counts once, in its season
    assert (
        sum(found.steps[s][0, 0, 0] for s in ("DJF", "MAM", "JJA", "SON"))
        == found.steps["year"][0, 0, 0]
        == 24
    )


def test_counts_are_those_by_hand(
    world: tuple[MapForecaster, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the truth as prediction the projection counts what the definitions say of the observations."""
    forecaster, path, _ = world
    cube = open_cube(path)

    def truth(series, issues):
        return np.stack([series.target_maps(int(issue)) for issue in issues])[None]

    monkeypatch.setattr(forecaster, "members", truth)
    found = project(forecaster, cube, train="train")
    everything, times = np.arange(len(cube.times)), cube.split("train")[0]
    observed = {name: cube.target(name, everything) for name in ("ndvi", "bt")}
    usual = {name: Climatology.fit(v[times], cube.times[times], 24) for name, v in observed.items()}
    health = vhi(
        condition(observed["ndvi"], cube.times, usual["ndvi"]),
        condition(observed["bt"], cube.times, usual["bt"], inverted=True),
    )
    years = cube.times.astype("datetime64[Y]").astype(int) + 1970
    dry = drought_class(health) <= 2
    for index, year in enumerate(found.years):
        np.testing.assert_array_equal(found.drought["year"][index], dry[years == year].sum(0))
        np.testing.assert_allclose(found.means["VHI"][index], health[years == year].mean(0), rtol=1e-4)


def test_what_cannot_be_projected(world: tuple[MapForecaster, Path, Path], tmp_path: Path) -> None:
    forecaster, cube, future = world
    with pytest.raises(ValueError, match="it has none; write `splits:`"):
        project(forecaster, future)
    with pytest.raises(ValueError, match="has no lead 3; it has 0"):
        project(forecaster, future, reference=cube, lead=3)
    with pytest.raises(ValueError, match="no season 'summer'"):
        project(forecaster, future, reference=cube).frequency("summer")
