"""Reading cubes: order, units, scaling, splits, and that only what is asked is read."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cube_factory as factory
from framecast.data.cube import Cube, open_cube
from framecast.data.cube_settings import (
    CubeSettings,
    dump_cube_settings,
    parse_cube_settings,
    read_cube_settings,
)
from framecast.data.cube_units import converter, implausible, unit_name

xr: Any = pytest.importorskip("xarray")

RANGES = {
    "variables.t2m.least": 273.0,
    "variables.t2m.largest": 313.0,
    "variables.rain.mean": 2.0,
    "variables.rain.std": 4.0,
    "variables.dem.least": 0.0,
    "variables.dem.largest": 1000.0,
}


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    return open_cube(factory.save_cube(tmp_path_factory.mktemp("cube"), None, RANGES))


def test_values_come_in_their_units(cube: Cube) -> None:
    data = factory.dataset()
    raw = cube.dynamic(slice(3, 8), slice(2, 7), slice(1, 6), scaled=False)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw[0], data.t2m[3:8, 2:7, 1:6])
    np.testing.assert_array_equal(raw[1], data.rain[3:8, 2:7, 1:6])
    assert cube.dynamic_names == ("t2m", "rain")
    assert cube.static_names == ("dem", "cover_0", "cover_1", "cover_2", "crop", "wood")
    assert cube.units["t2m"] == "K"
    np.testing.assert_array_equal(cube.land, np.isfinite(data.dem))


def test_scaling_and_filling(cube: Cube) -> None:
    data = factory.dataset()
    scaled = cube.dynamic([5])
    np.testing.assert_allclose(scaled[0, 0], (data.t2m[5] - 273) / 40, rtol=1e-5)
    np.testing.assert_allclose(scaled[1, 0], (data.rain[5] - 2) / 4, rtol=1e-5, atol=1e-6)
    static = cube.static()
    np.testing.assert_allclose(static[0], np.nan_to_num(data.dem / 1000), rtol=1e-6)
    np.testing.assert_array_equal(static[1:4].argmax(0), data.cover)
    np.testing.assert_array_equal(static[1:4].sum(0), 1)
    assert np.isnan(cube.static(scaled=False)[0]).any()


def test_times_in_any_order(cube: Cube) -> None:
    whole = cube.values("t2m", slice(None))
    chosen = [7, 3, 4, 5, 39, -2]
    np.testing.assert_array_equal(cube.values("t2m", chosen), whole[chosen])
    np.testing.assert_array_equal(cube.target("burnt", np.array([2, 9])), cube.values("burnt", [2, 9]))
    with pytest.raises(ValueError, match=r"the cube has 0\.\.39"):
        cube.values("t2m", [40])
    with pytest.raises(ValueError, match="did you mean 'burnt'"):
        cube.target("burn", slice(1))


def test_dates(cube: Cube) -> None:
    assert cube.times.dtype == np.dtype("datetime64[D]")
    assert cube.time_index("2020-06-11") == cube.time_index(np.datetime64("2020-06-11")) == 10
    with pytest.raises(ValueError, match=r"from 2020-06-01 to 2020-07-10, the nearest is 2020-07-10"):
        cube.time_index("2021-01-01")
    with pytest.raises(ValueError, match="is no date"):
        cube.time_index("tomorrow")


def test_splits(tmp_path: Path) -> None:
    path = factory.save_cube(tmp_path, None, {"splits.test.region": [21.02, 39.95, 21.05, 39.99]})
    cube = open_cube(path)
    times, rows, columns = cube.split("test")
    assert (times[0], times[-1]) == (24, 39)
    assert (rows, columns) == (slice(1, 6), slice(2, 6))
    with pytest.raises(ValueError, match="no split 'tset', did you mean 'test'"):
        cube.split("tset")


@pytest.mark.parametrize("order", ["y", "x", "dims", "names"])
def test_order_on_disk_does_not_matter(order: str, cube: Cube, tmp_path: Path) -> None:
    data, changes = factory.dataset(), dict(RANGES)
    if order in ("y", "x"):
        data = data.isel({order: slice(None, None, -1)})
    elif order == "dims":
        data = data.transpose("x", "time", "y")
    else:
        data = data.rename(y="latitude", x="longitude")  # found without being told
    other = open_cube(factory.save_cube(tmp_path, data, changes))
    part: Any = (slice(2, 5), slice(1, 4), slice(3, 9))
    np.testing.assert_array_equal(other.y, cube.y)
    np.testing.assert_array_equal(other.x, cube.x)
    np.testing.assert_array_equal(other.dynamic(*part), cube.dynamic(*part))
    np.testing.assert_array_equal(other.static(*part[1:]), cube.static(*part[1:]))
    np.testing.assert_array_equal(other.land, cube.land)


def test_units_are_converted_and_marks_taken_away(cube: Cube, tmp_path: Path) -> None:
    data = factory.dataset()
    data["t2m"] = (data.t2m - 273.15).assign_attrs(units="degrees_celsius")
    data["rain"] = (data.rain / 1000).assign_attrs(units="m")
    data["t2m"][4, 5, 6] = -9999
    other = open_cube(factory.save_cube(tmp_path, data, {"variables.t2m.missing": -9999}))
    ours, theirs = (c.dynamic(slice(3, 6), scaled=False) for c in (cube, other))
    assert np.isnan(theirs[0, 1, 5, 6])
    assert np.isnan(theirs).sum() == 1
    theirs[0, 1, 5, 6] = ours[0, 1, 5, 6]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_packed_integers_with_fill_value(tmp_path: Path) -> None:
    data = factory.dataset()
    data["t2m"][2, 3, 4] = np.nan
    encoding = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 290.0, "_FillValue": -32768}}
    cube = open_cube(factory.save_cube(tmp_path, data, RANGES, encoding=encoding))
    values = cube.values("t2m", slice(None))
    np.testing.assert_allclose(values, data.t2m, atol=0.006)
    assert np.isnan(values[2, 3, 4])
    assert cube.dynamic([2])[0, 0, 3, 4] == 0


def test_nearest_year(tmp_path: Path) -> None:
    data = factory.dataset()
    for year in (2012, 2018):
        data[f"POP_{year}"] = ("y", "x"), np.full((factory.ROWS, factory.COLUMNS), float(year))
    changes = {
        "variables.people": {"role": "static", "name": "POP_{year}", "per_year": True, "scale": "none"}
    }
    cube = open_cube(factory.save_cube(tmp_path, data, {**RANGES, **changes}))
    assert [cube.static(year=year)[-1, 0, 0] for year in (2009, 2014, 2016, 2030)] == [2012, 2012, 2018, 2018]
    assert cube.static()[-1, 0, 0] == 2018


def test_a_level_is_chosen_by_its_value(tmp_path: Path) -> None:
    data = factory.dataset()
    data["ta"] = xr.concat([data.t2m, data.t2m - 30], dim="plev").assign_coords(plev=[1000.0, 850.0])
    good = {"variables.ta": {"role": "dynamic", "at": {"plev": 850}, "scale": "none"}}
    cube = open_cube(factory.save_cube(tmp_path / "a", data, good))
    np.testing.assert_allclose(cube.values("ta", [3])[0], data.t2m[3] - 30)
    bad = {"variables.ta": {"role": "dynamic", "at": {"plev": 700}}}
    with pytest.raises(ValueError, match=r"has no plev 700\.0; it has 1000\.0, 850\.0"):
        open_cube(factory.save_cube(tmp_path / "b", data, bad))


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(calendar: str, tmp_path: Path) -> None:
    times = xr.date_range("2001-02-20", periods=factory.DAYS, calendar=calendar, use_cftime=True)
    changes = {"splits.train": {"years": [2001]}, "splits.test": None}
    cube = open_cube(factory.save_cube(tmp_path, factory.dataset().assign_coords(time=times), changes))
    assert cube.time_index("2001-02-28") == 8
    assert len(cube.split("train")[0]) == factory.DAYS
    assert cube.without_gap(slice(None), before=1)[1:].all()
    with pytest.raises(ValueError, match="the nearest is 2001-02-20"):
        cube.time_index("2001-01-01")


def test_without_statistics_scaling_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run `framecast prepare`"):
        open_cube(factory.save_cube(tmp_path)).dynamic([0])


def _read(cube: Cube, step: int) -> float:
    return float(cube.dynamic([step]).sum())


@pytest.mark.parametrize("store", ["cube.nc", "cube.zarr"])
def test_threads_and_processes(store: str, tmp_path: Path) -> None:
    cube = open_cube(factory.save_cube(tmp_path, None, RANGES, store=store))
    expected = [_read(cube, step) for step in range(6)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda step: _read(cube, step), range(6))) == expected
    assert _read(pickle.loads(pickle.dumps(cube)), 3) == expected[3]
    with multiprocessing.get_context("fork").Pool(1) as workers:
        assert workers.starmap(_read, [(cube, step) for step in range(6)]) == expected


def test_yaml_round_trip(tmp_path: Path) -> None:
    settings = read_cube_settings(factory.save_cube(tmp_path, None, RANGES))
    path = tmp_path / "again.yaml"
    path.write_text(dump_cube_settings(settings))
    assert read_cube_settings(path) == settings
    assert isinstance(parse_cube_settings({"variables": {"a": {"role": "dynamic"}}}, "here"), CubeSettings)


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("degC", "K", 20.0, 293.15),
        ("K", "celsius", 273.15, 0.0),
        ("degF", "degC", 212.0, 100.0),
        ("m", "mm", 0.012, 12.0),
        ("kg m-2", "m", 12.0, 0.012),
        ("kg m-2 s-1", "mm day-1", 1e-4, 8.64),
        ("%", "1", 45.0, 0.45),
        ("fraction", "percent", 0.45, 45.0),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("mbar", "hPa", 1000.0, 1000.0),
        ("km/h", "m s**-1", 36.0, 10.0),
        ("km", "m", 1.5, 1500.0),
    ],
)
def test_conversions(source: str, target: str, value: float, expected: float) -> None:
    for a, b, given, wanted in ((source, target, value, expected), (target, source, expected, value)):
        convert = converter(a, b)
        values = np.array([given])
        np.testing.assert_allclose(
            values if convert is None else convert(values), wanted, rtol=1e-9, atol=1e-9
        )


def test_units_that_do_not_fit() -> None:
    assert unit_name("Degrees_Celsius") == "degC"
    assert converter("kelvin", "K") is None
    for a, b in (("K", "m"), ("buckets", "mm"), ("mm", "mm d-1")):
        with pytest.raises(ValueError, match="cannot be converted"):
            converter(a, b)
    assert "look like degC" in implausible("K", -10.0, 40.0)
    assert implausible("K", 250.0, 320.0) == ""


def test_a_unit_may_look_like_a_number(tmp_path: Path) -> None:
    settings = parse_cube_settings({"variables": {"ndvi": {"role": "dynamic", "unit": 1e-08}}}, "here")
    assert settings.variables["ndvi"].unit == "1e-08"
    (tmp_path / "cube.yaml").write_text(dump_cube_settings(settings))
    assert read_cube_settings(tmp_path / "cube.yaml") == settings
    assert "'1e-08'" in dump_cube_settings(settings)
