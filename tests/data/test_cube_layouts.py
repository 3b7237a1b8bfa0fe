"""Cubes as they are published, stacks of files, and the made-up look-alikes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cube_factory as factory
from framecast.data.cube import open_cube
from framecast.data.cube_check import inspect_cube, is_cube
from framecast.data.danger_patches import LAND_COVER, RELEASED_RANGES, USED_DYNAMIC, USED_STATIC
from framecast.data.drought_weeks import SIMULATED, STATIC, read_week
from framecast.data.synthetic_cubes import write_drought_cube, write_fire_cube
from framecast.data.synthetic_drought import write_tsmp_folder

xr: Any = pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def fire(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fire_cube(tmp_path_factory.mktemp("fire") / "cube", 40, 28, 3, start="2020-06-20")


def test_fire_cube_is_what_loan_reads(fire: Path) -> None:
    cube = open_cube(fire)
    assert cube.dynamic_names == USED_DYNAMIC
    assert cube.static_names == (*USED_STATIC, *LAND_COVER)
    assert cube.target_names == ("burned_areas",)
    assert cube.scaling("dem_mean")[0] == RELEASED_RANGES["dem_mean"][0]
    scaled = cube.dynamic(slice(10, 20))
    assert scaled.shape == (10, 10, 28, 28)
    assert -0.2 < scaled.min() <= scaled.max() < 1.3
    burnt = cube.target("burned_areas", slice(None))
    assert set(np.unique(burnt)) == {0, 1}
    assert not burnt[:, ~cube.land].any()
    assert inspect_cube(fire).ok, inspect_cube(fire).problems


def test_fire_cube_is_recognised_without_yaml(fire: Path, tmp_path: Path) -> None:
    store = fire.parent / "cube.zarr"
    (tmp_path / "greece.zarr").symlink_to(store)
    published = open_cube(tmp_path / "greece.zarr")
    cube = open_cube(fire)
    part: Any = (slice(5, 9), slice(3, 20), slice(2, 9))
    np.testing.assert_array_equal(published.dynamic(*part), cube.dynamic(*part))
    np.testing.assert_array_equal(published.static(), cube.static())
    assert published.settings.splits["test"].years == (2020, 2021)


def test_published_scales_are_recognised(fire: Path, tmp_path: Path) -> None:
    """NDVI without its factor, humidity in percent, distances in metres: the same numbers for the model."""
    data = xr.open_dataset(fire.parent / "cube.zarr", engine="zarr", chunks=None, consolidated=False).load()
    data["ndvi"] = data.ndvi / 1e8
    data["min_rh"] = data.min_rh * 100
    data["ROAD_DISTANCE"] = data.ROAD_DISTANCE * 1000
    data["max_t2m"] = (data.max_t2m - 273.15).assign_attrs(units="degC")
    for variable in data.variables.values():
        variable.encoding = {}
    data.to_netcdf(tmp_path / "greece.nc", engine="h5netcdf")
    cube, published = open_cube(fire), open_cube(tmp_path / "greece.nc")
    np.testing.assert_allclose(published.dynamic([7]), cube.dynamic([7]), atol=1e-5)
    np.testing.assert_allclose(published.static(), cube.static(), atol=1e-5)


def test_fire_depends_on_weather_and_place(fire: Path) -> None:
    cube = open_cube(fire)
    danger = cube.store.read("hidden_danger", {})[1:, cube.land]
    assert danger.mean(1).std() > 0.2 * danger.mean()
    assert danger.mean(0).std() > 0.2 * danger.mean()


def test_same_seed_same_cube(tmp_path: Path) -> None:
    first, again, other = (
        open_cube(write_fire_cube(tmp_path / str(i), 40, 12, seed)).values("sminx", slice(None))
        for i, seed in enumerate((1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_drought_cube(tmp_path: Path) -> None:
    path = write_drought_cube(tmp_path / "drought", 3 * 52, 12, 0)
    cube = open_cube(path)
    assert cube.y[0] > cube.y[-1]  # stored the other way round
    assert [len(cube.split(name)[0]) for name in ("train", "val", "test")] == [52, 52, 52]
    assert inspect_cube(path).ok
    ndvi = cube.target("NDVI", slice(None))
    assert np.nanmin(ndvi) > -0.2
    assert np.nanmax(ndvi) < 1


def test_tsmp_folder_as_published(tmp_path: Path) -> None:
    """The cube's maps are those of `read_week`, which is checked against the release."""
    root = write_tsmp_folder(tmp_path / "tsmp", (1989, 2010), weeks=2, cells=20)
    assert is_cube(root)
    cube = open_cube(root)
    parts = {name: xr.open_dataset(root / f"{name}.nc") for name in ("static_variables", "mask_valid_pixels")}
    climate = xr.open_dataset(root / "climatology_1989_2016.nc")
    week = read_week(
        xr.open_dataset(root / "1989/1989002.nc"),
        static={name: parts["static_variables"][name] for name in STATIC},
        statistics=json.loads((root / "mean_std_train.json").read_text()),
        climatology=np.concatenate([climate.SMN[1], climate.SMT[1]]),
        sea=parts["mask_valid_pixels"].mask_sea,
        no_vegetation=parts["mask_valid_pixels"].mask_no_vegetation,
    )
    ours = np.concatenate([cube.dynamic([1])[:, 0], cube.static()])
    np.testing.assert_allclose(ours, week.variables, atol=5e-6)
    np.testing.assert_allclose(cube.target("NDVI", [1])[0], week.ndvi)
    np.testing.assert_array_equal(cube.land, week.sea == 0)
    assert len(cube.dynamic_names) == len(SIMULATED) + 14
    assert [str(t) for t in cube.times[:2]] == ["1989-01-07", "1989-01-14"]


def test_netcdf_files_of_parts_of_the_time(tmp_path: Path) -> None:
    data, folder = factory.dataset(), tmp_path / "parts"
    folder.mkdir()
    for start in (20, 0, 35):
        stop = {0: 20, 20: 35, 35: 40}[start]
        data[["t2m", "burnt"]].isel(time=slice(start, stop)).to_netcdf(
            folder / f"a{start}.nc", engine="h5netcdf"
        )
    data[["rain"]].to_netcdf(folder / "rain.nc", engine="h5netcdf")
    data[["dem", "cover", "crop", "wood"]].to_netcdf(folder / "static.nc", engine="h5netcdf")
    cube = open_cube(factory.save_yaml(tmp_path, {"store": "parts"}))
    whole = open_cube(factory.save_cube(tmp_path / "whole", data))
    for times in (slice(None), slice(18, 37), [39, 2, 21]):
        np.testing.assert_array_equal(cube.values("t2m", times), whole.values("t2m", times))
        np.testing.assert_array_equal(cube.values("rain", times), whole.values("rain", times))
    (folder / "rain.nc").unlink()  # which is still open
    data[["rain"]].isel(time=slice(39)).to_netcdf(folder / "rain.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="every variable needs the same times"):
        open_cube(tmp_path / "cube.yaml")


def test_stack_of_geotiffs(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    data, folder = factory.dataset(), tmp_path / "maps"
    folder.mkdir()
    grid = rasterio.Affine(0.01, 0, 20.995, 0, -0.01, 40.005)

    def save(name: str, values: np.ndarray, crs: str = "EPSG:4326") -> None:
        height, width = values.shape
        options = {"height": height, "width": width, "count": 1, "dtype": "float32", "nodata": -1.0}
        path = folder / f"{name}.tif"
        with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=grid, **options) as file:
            file.write(np.nan_to_num(values, nan=-1.0).astype(np.float32), 1)

    for day in (0, 1, 3):
        when = str(data.time.values[day])[:10]
        save(f"t2m_{when.replace('-', '')}", data.t2m.values[day])
        save(f"rain_{when}", data.rain.values[day])
    save("dem", data.dem.values)
    keep = {f"variables.{name}": None for name in ("cover", "crop", "wood", "burnt")}
    path = factory.save_yaml(tmp_path, {"store": "maps", **keep})
    cube = open_cube(path)
    np.testing.assert_allclose(cube.values("t2m", [1, 2]), data.t2m[[1, 3]])
    np.testing.assert_array_equal(cube.land, np.isfinite(data.dem))
    np.testing.assert_allclose(cube.y, data.y)
    save("dem", data.dem.values, "EPSG:32634")
    with pytest.raises(ValueError, match=r"is in EPSG:\d+, but .* in EPSG:"):
        open_cube(path)


def test_unknown_stores_ask_for_a_yaml(tmp_path: Path) -> None:
    factory.save_cube(tmp_path).unlink()
    with pytest.raises(ValueError, match=r"no YAML beside it \(cube\.yaml\)"):
        open_cube(tmp_path / "cube.nc")
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_cube(tmp_path / "other.zarr")
