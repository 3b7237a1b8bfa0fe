"""From a cube to maps on the command line: what is written, and what is said where something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_world import framecast as run_command
from small_world import succeed

import framecast as fc
from forecast_maps import ROTATED, island
from framecast.checkpoints import ModelCard
from framecast.cli.earth import Place, joined, parse_places, write_maps
from framecast.infer.map_files import read_geotiff, read_netcdf

pytest.importorskip("xarray")
pytest.importorskip("rasterio")
pytest.importorskip("zarr")

CELLS = (36, 40)


@pytest.fixture(scope="module")
def earth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic fire cube, and two models of danger that know nothing."""
    from framecast.data.synthetic_cubes import write_fire_cube

    root = tmp_path_factory.mktemp("earth")
    write_fire_cube(root / "cube", 24, CELLS, start="2021-06-20")
    for seed in (0, 1):
        torch.manual_seed(seed)
        fc.save(fc.create_model("loan_cnn"), root / f"model{seed}", ModelCard(task="danger"))
    return root


def test_one_day(earth: Path, tmp_path: Path) -> None:
    cube, model = earth / "cube" / "cube.yaml", earth / "model0"
    place = "Peak=39.35,21.16"
    done = succeed(
        "predict", cube, "--model", model, "--date", "2021-07-02", "--at", place, "--out", tmp_path
    )
    assert "danger 2021-07-02: mean" in done.out
    assert {path.name for path in tmp_path.iterdir()} == {
        "danger_2021-07-02.nc",
        "danger_2021-07-02.tif",
        "danger_2021-07-02.png",
        "danger_2021-07-02.html",
        "danger_2021-07-02_points.csv",
        "danger_points_2021-07-02.png",
    }
    found = read_netcdf(tmp_path / "danger_2021-07-02.nc")
    assert found.shape == (1, *CELLS)
    assert found.dates == ("2021-07-02",)
    assert found.spread == {}
    inner = found.values["danger"][0, 12:-12, 12:-12]
    assert ((inner > 0) & (inner < 1)).mean() > 0.5  # the rest is sea
    np.testing.assert_array_equal(
        read_geotiff(tmp_path / "danger_2021-07-02.tif").values["danger"], found.values["danger"]
    )
    row = (tmp_path / "danger_2021-07-02_points.csv").read_text().splitlines()[1].split(",")
    value = found.values["danger"][(0, *found.cell(39.35, 21.16))]
    assert row[0] == "Peak"
    assert np.float32(row[6]) == value
    page = (tmp_path / "danger_2021-07-02.html").read_text()
    assert "--at Peak=39.35,21.16" in page  # what is shown can be typed again


def test_several_days_and_models(earth: Path, tmp_path: Path) -> None:
    cube = earth / "cube" / "cube.yaml"
    models = ("--model", earth / "model0", "--model", earth / "model1", "--members", "2")
    days = ("--dates", "2021-07-01:2021-07-03")
    found = succeed("predict", cube, *models, *days, "--out", tmp_path, "--json").json
    assert [row["date"] for row in found["maps"]] == ["2021-07-01", "2021-07-02", "2021-07-03"]
    assert all(0 < row["mean_spread"] < 0.5 for row in found["maps"])
    names = {Path(path).name for path in found["written"]}
    assert {"danger_2021-07-01_2021-07-03.gif", "danger_spread_2021-07-01_2021-07-03.tif"} <= names
    assert set(read_netcdf(tmp_path / "danger_2021-07-01_2021-07-03.nc").spread) == {"danger"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say which day, for example --date 2021-07-13"),
        (("--date", "2021-08-30"), "2021-08-29"),
        (("--dates", "2021-07-01"), "is no range"),
        (("--dates", "2025-07-01:2025-07-03"), "has no date in"),
        (("--date", "2021-07-02", "--at", "Athens"), "is no place"),
        (("--date", "2021-07-02", "--at", "10,10"), "outside the maps"),
        (("--drought",), "--drought is for models that write vegetation maps"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(
    earth: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    command = ("predict", earth / "cube" / "cube.yaml", "--model", earth / "model0", *words, "--out", out)
    done = run_command(*command)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not out.exists()


def test_options_of_maps_are_for_maps(earth: Path, tmp_path: Path) -> None:
    done = run_command("predict", "a.mp4", "--unsupervised", "--date", "2021-07-02", "--out", tmp_path)
    assert "--date is for maps" in done.err
    done = run_command("demo", "earth", "--data", tmp_path, "--out", tmp_path / "out")
    assert "--data is for videos" in done.err


def test_places() -> None:
    assert parse_places(["37.98,23.73", "Sea = -1,300"]) == (Place("", 37.98, 23.73), Place("Sea", -1, 300))
    for wrong in ("37.98", "a,b", "91,0", "1,2,3", "nan,2"):
        with pytest.raises(ValueError, match="is no place"):
            parse_places([wrong])


def test_a_grid_that_geotiff_cannot_hold_is_written_as_netcdf(tmp_path: Path) -> None:
    written, left_out = write_maps(island(crs=ROTATED), tmp_path, (), {}, pages=False)
    assert [path.name for path in written] == ["danger_2021-07-01_2021-07-03.nc"]
    assert left_out == ["no GeoTIFF: a GeoTIFF cannot hold a rotated pole; use the NetCDF file"]


def test_joined_days_are_those_of_the_parts() -> None:
    forecast = island()
    found = joined([forecast.time(i) for i in range(3)])
    np.testing.assert_array_equal(found.values["danger"], forecast.values["danger"])
    np.testing.assert_array_equal(found.spread["danger"], forecast.spread["danger"])
    assert found.dates == forecast.dates
