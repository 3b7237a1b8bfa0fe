"""Maps as files are read back as they were, say what they hold, and are there completely or not at all."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecast_maps import ROTATED, island
from framecast.data.map_systems import longitude_latitude, to_grid
from framecast.infer.map_files import (
    at_points,
    read_geotiff,
    read_netcdf,
    write_geotiff,
    write_netcdf,
    write_points_csv,
)
from framecast.structures import Forecast

xarray = pytest.importorskip("xarray")
rasterio = pytest.importorskip("rasterio")

UTM: dict[str, Any] = {
    "crs": "EPSG:32634",
    "y": 4.4e6 - 1000.0 * np.arange(12),
    "x": 3e5 + 1000.0 * np.arange(16),
}
POLE: dict[str, Any] = {"crs": ROTATED, "y": 10 - 0.11 * np.arange(12), "x": -20 + 0.11 * np.arange(16)}
HOURS = np.datetime64("2021-07-01T00", "h") + 6 * np.arange(3)


def same(one: Forecast, other: Forecast) -> None:
    for key in ("values", "spread"):
        assert list(getattr(one, key)) == list(getattr(other, key))
        for name, maps in getattr(one, key).items():
            np.testing.assert_array_equal(maps, getattr(other, key)[name])
    assert (one.times == other.times).all()
    assert one.times.dtype == other.times.dtype
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.x, other.x)
    assert (one.units, one.crs, one.attrs) == (other.units, other.crs, other.attrs)


@pytest.mark.parametrize(
    "changes",
    [{}, UTM, POLE, {"times": HOURS}, {"spread": {}}, {"crs": "a grid of our own"}],
    ids=["degrees", "UTM", "rotated pole", "hours", "no spread", "unknown system"],
)
def test_netcdf_is_read_back_exactly(changes: dict[str, Any], tmp_path: Path) -> None:
    forecast = island(**changes)
    same(read_netcdf(write_netcdf(forecast, tmp_path / "maps.nc")), forecast)


def test_other_calendars_are_read_back_exactly(tmp_path: Path) -> None:
    cftime = pytest.importorskip("cftime")
    forecast = island(times=np.array([cftime.Datetime360Day(2050, 2, day) for day in (28, 29, 30)]))
    found = read_netcdf(write_netcdf(forecast, tmp_path / "maps.nc"))
    same(found, forecast)
    assert found.dates == ("2050-02-28", "2050-02-29", "2050-02-30")


def test_netcdf_says_what_it_holds(tmp_path: Path) -> None:
    with xarray.open_dataset(write_netcdf(island(), tmp_path / "maps.nc")) as file:
        assert file["danger"].dims == ("time", "lat", "lon")
        assert file["lat"].attrs["units"] == "degrees_north"
        assert file["lon"].attrs["standard_name"] == "longitude"
        assert file["danger"].attrs["ancillary_variables"] == "danger_spread"
        assert file["crs"].attrs["grid_mapping_name"] == "latitude_longitude"
        assert file.attrs["Conventions"].startswith("CF-1")
        assert str(file["time"].values[1])[:10] == "2021-07-02"  # decoded by xarray itself
    with xarray.open_dataset(write_netcdf(island(**POLE), tmp_path / "pole.nc")) as file:
        assert file["danger"].dims == ("time", "rlat", "rlon")
        assert file["crs"].attrs["grid_mapping_name"] == "rotated_latitude_longitude"
        assert file["lon"].shape == (12, 16)
        assert set(file.coords) == {"time", "rlat", "rlon", "lat", "lon"}


def test_degrees_need_no_pyproj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.infer.map_files.known_system", lambda crs: None)
    path = write_netcdf(island(), tmp_path / "maps.nc")
    same(read_netcdf(path), island())
    with xarray.open_dataset(path) as file:
        assert file["danger"].dims == ("time", "lat", "lon")
        assert file["crs"].attrs["grid_mapping_name"] == "latitude_longitude"


@pytest.mark.parametrize("changes", [{}, UTM], ids=["degrees", "UTM"])
def test_geotiff_is_read_back(changes: dict[str, Any], tmp_path: Path) -> None:
    forecast = island(**changes)
    paths = write_geotiff(forecast, tmp_path, "_july")
    assert [path.name for path in paths] == ["danger_july.tif", "danger_spread_july.tif"]
    found = read_geotiff(paths[0])
    np.testing.assert_array_equal(found.values["danger"], forecast.values["danger"])
    np.testing.assert_allclose(found.y, forecast.y, rtol=1e-12)
    np.testing.assert_allclose(found.x, forecast.x, rtol=1e-12)
    assert (found.dates, found.crs, found.units) == (forecast.dates, forecast.crs, forecast.units)
    with rasterio.open(paths[0]) as file:
        assert file.crs.to_string() == forecast.crs
        assert file.transform.e < 0  # north up
        row, column = file.index(forecast.x[9], forecast.y[5])
        assert (row, column) == (5, 9)  # the hottest cell lies where it is
        assert file.descriptions[2] == "2021-07-03"
        assert np.isnan(file.nodata)


def test_geotiff_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rotated pole"):
        write_geotiff(island(**POLE), tmp_path)
    y = island().y.copy()
    y[0] += 0.004
    with pytest.raises(ValueError, match="y is not evenly spaced"):
        write_geotiff(island(y=y), tmp_path)
    with pytest.raises(ValueError, match="evenly spaced"):
        write_geotiff(one_row(), tmp_path)
    assert not list(tmp_path.iterdir())


def one_row() -> Forecast:
    maps = np.zeros((1, 1, 4), dtype=np.float32)
    day = np.array(["2021-07-01"], dtype="datetime64[D]")
    return Forecast({"danger": maps}, day, np.array([39.0]), np.arange(4.0), {"danger": "1"})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_netcdf(island(), tmp_path / "maps.nc")
    before = path.read_bytes()

    def full(self: Any, file: Path, **_: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xarray.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match=r"cannot write .*maps\.nc \(No space left on device\)"):
        write_netcdf(island(days=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["maps.nc"]


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("no maps")
    with pytest.raises(ValueError, match=r"text\.nc is no NetCDF file"):
        read_netcdf(tmp_path / "text.nc")
    xarray.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="written by framecast"):
        read_netcdf(tmp_path / "other.nc")
    (tmp_path / "text.tif").write_text("no maps")
    with pytest.raises(ValueError, match=r"text\.tif is no GeoTIFF"):
        read_geotiff(tmp_path / "text.tif")
    with pytest.raises(FileNotFoundError):
        read_netcdf(tmp_path / "none.nc")


# Places ---------------------------------------------------------------------------------------------


def test_points_are_those_of_their_cells(tmp_path: Path) -> None:
    forecast = island()
    path = write_points_csv(
        forecast, [("hot", 39.4504, 21.0897), ("", 39.499, 21.0)], tmp_path / "points.csv"
    )
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 6
    assert [np.float32(row["value"]) for row in rows[:3]] == forecast.values["danger"][:, 5, 9].tolist()
    assert np.float32(rows[0]["spread"]) == forecast.spread["danger"][0, 5, 9]
    assert [row["date"] for row in rows[:3]] == ["2021-07-01", "2021-07-02", "2021-07-03"]
    assert rows[0]["place"] == "hot"
    assert {row["value"] for row in rows[3:]} == {""}  # at sea
    with pytest.raises(ValueError, match="y = 50 lies outside"):
        at_points(forecast, [(50, 21)])


def test_places_on_grids_of_every_system() -> None:
    assert to_grid(island(), 39.4, 21.1) == (39.4, 21.1)
    assert to_grid(island(x=300.0 + np.arange(16)), 39.4, -55.0) == (39.4, 305.0)  # 0..360 as well
    for changes in (UTM, POLE):
        forecast = island(**changes)
        longitude, latitude = longitude_latitude(forecast)
        y, x = to_grid(forecast, float(latitude[5, 9]), float(longitude[5, 9]))
        assert forecast.cell(y, x) == (5, 9)
    with pytest.raises(ValueError, match="cannot be read here"):
        to_grid(island(crs="a grid of our own"), 39.4, 21.1)
