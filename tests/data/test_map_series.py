"""Maps ahead: what a sample may see, where its numbers come from, and how it is put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framecast.data.cube import Cube, open_cube
from framecast.data.map_scaling import MapScaling, MapWindow, fit_scaling, window_notes, window_of
from framecast.data.map_series import MapSeries
from framecast.data.vegetation_indices import Climatology
from map_cube import SHAPE, STEPS, half_months, simulate, write_map_cube

FORECAST = MapWindow(
    targets=("ndvi", "bt"),
    steps=3,
    leads=(1, 3),
    past_targets=True,
    season=True,
    place=True,
    anomalies=True,
    corrects=True,
    periods=24,
)
DOWNSCALING = MapWindow(targets=("ndvi",), steps=2, past_targets=True, anomalies=True, periods=24)


@pytest.fixture
def cube(tmp_path: Path) -> Cube:
    return open_cube(write_map_cube(tmp_path / "cube"))


def changed_after(folder: Path, step: int) -> Cube:
    """The same cube with other values after a time step."""
    maps = simulate(STEPS)
    for values in maps.values():
        values[step + 1 :] = values[step + 1 :] * 3 + 1
    return open_cube(write_map_cube(folder, maps=maps))


@pytest.mark.parametrize("window", [FORECAST, DOWNSCALING], ids=["forecast", "downscaling"])
@pytest.mark.parametrize("keep_mb", [512, 0])
def test_what_comes_after_the_issue_time_is_not_seen(
    window: MapWindow, keep_mb: int, cube: Cube, tmp_path: Path
) -> None:
    scaling = fit_scaling(cube, window)
    issue = int(MapSeries(cube, window, scaling, split="test").issues[3])
    later = changed_after(tmp_path / "later", issue)
    # nothing of training lies after a test sample's issue time
    again = fit_scaling(later, window)
    assert again.channels == scaling.channels
    assert all(np.array_equal(again.damping[o], d) for o, d in scaling.damping.items())
    ours, theirs = (
        MapSeries(c, window, s, split="test", keep_mb=keep_mb).inputs(issue)
        for c, s in ((cube, scaling), (later, again))
    )
    for key in ours:
        assert np.array_equal(ours[key], theirs[key])


def test_target_of_the_present_is_not_read(cube: Cube, tmp_path: Path) -> None:
    """With a lead of 0 the target's past ends one step before the map that is asked for."""
    scaling = fit_scaling(cube, DOWNSCALING)
    issue = int(MapSeries(cube, DOWNSCALING, scaling, split="test").issues[3])
    maps = simulate(STEPS)
    maps["ndvi"][issue] += 1
    other = open_cube(write_map_cube(tmp_path / "other", maps=maps))
    before, after = (
        MapSeries(c, DOWNSCALING, scaling, split="test").inputs(issue)["dynamic"] for c in (cube, other)
    )
    assert np.array_equal(before, after)


def test_statistics_are_those_of_training(cube: Cube, tmp_path: Path) -> None:
    scaling = fit_scaling(cube, FORECAST)
    times = cube.split("train")[0]
    other = changed_after(tmp_path / "other", int(times[-1]))
    again = fit_scaling(other, FORECAST)
    assert again.channels == scaling.channels
    assert again.targets == scaling.targets
    assert np.array_equal(again.climatology["ndvi"].total, scaling.climatology["ndvi"].total)
    rain = cube.values("rain", times).astype(np.float64)
    assert scaling.channels["rain"] == pytest.approx((rain.mean(), rain.std()))
    departures = (
        cube.target("bt", times)
        - Climatology.fit(cube.target("bt", times), cube.times[times], 24).at(cube.times[times])[2]
    )
    assert scaling.targets["bt"] == pytest.approx((0.0, np.nanstd(departures)), rel=1e-3)


def test_splits_do_not_share_what_is_asked(cube: Cube) -> None:
    scaling = fit_scaling(cube, FORECAST)
    asked: dict[str, set[int]] = {}
    for split in ("train", "val", "test"):
        series = MapSeries(cube, FORECAST, scaling, split=split)
        asked[split] = {int(i) + lead for i in series.issues for lead in FORECAST.leads}
        assert asked[split] <= set(cube.split(split)[0].tolist())
    assert not asked["train"] & (asked["val"] | asked["test"])
    assert not asked["val"] & asked["test"]


@pytest.mark.parametrize("window", [FORECAST, DOWNSCALING], ids=["forecast", "downscaling"])
def test_perfect_outputs_give_the_truth(window: MapWindow, cube: Cube) -> None:
    series = MapSeries(cube, window, fit_scaling(cube, window), split="test")
    issue = int(series.issues[5])
    valid = series.times(issue + np.array(window.leads))
    back = series.in_units(series.standardised_targets(issue), issue, valid)
    np.testing.assert_allclose(back, series.target_maps(issue), rtol=1e-5, atol=1e-4)
    assert np.isnan(back[:, -1, 0]).all()  # sea, south first in the file


def test_a_sample(cube: Cube) -> None:
    series = MapSeries(cube, FORECAST, fit_scaling(cube, FORECAST), split="train")
    sample = series[0]
    assert sample["dynamic"].shape == (3, 3, *SHAPE)
    assert sample["still"].shape == (1 + 2 + 2 + 2, *SHAPE)
    assert sample["target"].shape == (4, *SHAPE)
    assert FORECAST.output_names == ("ndvi+1", "ndvi+3", "bt+1", "bt+3")
    assert FORECAST.num_channels(cube.dynamic_names, cube.static_names) == (3, 7)
    issue = sample["issue"]
    offset, factor = series.scaling.channels["rain"]
    rain = cube.values("rain", [issue])[0]
    np.testing.assert_allclose(sample["dynamic"][0, -1], (rain - offset) / factor, rtol=1e-5)
    assert np.isfinite(sample["dynamic"]).all()
    assert np.isfinite(sample["still"]).all()


def test_kept_and_read_maps_are_the_same(cube: Cube) -> None:
    scaling = fit_scaling(cube, FORECAST)
    kept, read = (MapSeries(cube, FORECAST, scaling, split="val", keep_mb=mb) for mb in (512, 0))
    for key, values in kept[2].items():
        assert np.array_equal(values, read[2][key], equal_nan=True), key


def test_augmentation_moves_everything_alike(cube: Cube) -> None:
    window = MapWindow(targets=("ndvi",), leads=(1,), past_targets=True)
    scaling = fit_scaling(cube, window)
    plain = MapSeries(cube, window, scaling, split="train")[4]
    cut = MapSeries(cube, window, scaling, split="train", crop=4, flip=True)[4]
    assert cut["target"].shape == (1, 4, 4)
    places = [
        (top, left, step)
        for top in range(3)
        for left in range(4)
        for step in (1, -1)
        if np.array_equal(
            plain["target"][:, top : top + 4, left : left + 4][..., ::step], cut["target"], equal_nan=True
        )
    ]
    top, left, step = places[0]
    for key in ("dynamic", "still", "land"):
        assert np.array_equal(plain[key][..., top : top + 4, left : left + 4][..., ::step], cut[key])
    noisy = MapSeries(cube, window, scaling, split="train", noise=0.1)[4]
    assert np.std(noisy["dynamic"] - plain["dynamic"]) == pytest.approx(0.1, rel=0.3)


def test_gaps_in_time_are_not_bridged(tmp_path: Path) -> None:
    """Winters only: the first days of a winter have no past, and no sample spans a summer."""
    import xarray as xr

    path = write_map_cube(tmp_path / "cube")
    kept = [i for i, day in enumerate(half_months(1991, STEPS)) if str(day)[5:7] in ("12", "01", "02")]
    store = tmp_path / "cube" / "maps.nc"
    with xr.open_dataset(store, engine="h5netcdf") as whole:
        winters = whole.isel(time=kept).load()
    winters.to_netcdf(store, engine="h5netcdf")
    cube = open_cube(path)
    window = MapWindow(targets=("ndvi",), steps=3, leads=(1, 2), past_targets=True)
    series = MapSeries(cube, window, fit_scaling(cube, window), split="train")
    assert len(series)
    for issue in series.issues:
        span = cube.times[issue - 2 : issue + 3]
        assert np.ptp(span.astype("datetime64[D]").astype(int)) < 75


def test_card_tells_the_window(cube: Cube) -> None:
    scaling = fit_scaling(cube, FORECAST)
    notes = window_notes(FORECAST, scaling)
    assert window_of(notes) == FORECAST
    again = MapScaling.from_json(notes["scaling"])
    assert (again.channels, again.targets) == (scaling.channels, scaling.targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "asks for no targets"),
        ({"leads": (1, 1)}, "different leads"),
        ({"steps": 0}, "read one step or more"),
        ({"periods": 7}, "a year has 12, 24"),
        ({"corrects": True}, "set anomalies and past_targets too"),
    ],
)
def test_windows_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapWindow(**({"targets": ("ndvi",)} | change))


def test_other_variables_are_refused(cube: Cube, tmp_path: Path) -> None:
    window = MapWindow(targets=("ndvi",), leads=(1,))
    scaling = fit_scaling(cube, window)
    changed = {"rain": {"role": "dynamic"}, "ndvi": {"role": "target"}}
    other = open_cube(write_map_cube(tmp_path / "other", variables=changed))
    with pytest.raises(ValueError, match=r"the model reads rain, height \(differing: \['height'\]\)"):
        MapSeries(other, window, scaling, split="test")


def test_a_target_that_is_read_at_the_same_time_is_refused(tmp_path: Path) -> None:
    variables = {
        "rain": {"role": "dynamic"},
        "seen": {"role": "dynamic", "name": "ndvi"},
        "ndvi": {"role": "target"},
    }
    cube = open_cube(write_map_cube(tmp_path / "cube", variables=variables))
    window = MapWindow(targets=("ndvi",))
    with pytest.raises(ValueError, match="seen, which is read, holds the ndvi that is asked for"):
        MapSeries(cube, window, fit_scaling(cube, window), split="train")
