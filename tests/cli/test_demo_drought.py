"""`framecast demo drought`: two made-up cubes, a network of the past, drought in the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")

from framecast.cli import demonstration_drought
from framecast.cli.demonstration_drought import drought_demo
from framecast.data.cube import open_cube
from framecast.data.synthetic_drought import write_projection_cubes
from framecast.infer.map_files import read_netcdf


def test_from_the_past_to_the_decades_of_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demonstration_drought, "YEARS", (4, 4))
    monkeypatch.setattr(demonstration_drought, "CELLS", (12, 14))
    quick = ("epochs=1", "eval_every=1", "data.steps=2")
    drought_demo(tmp_path, "cpu", changes=quick)
    said = capsys.readouterr().out
    assert "skill in 4 years of a warmer climate: NDVI" in said
    (maps,) = (tmp_path / "drought").glob("drought_2*.nc")
    found = read_netcdf(maps)
    assert found.shape == (1, 12, 14)
    assert set(found.values) == {"drought_frequency"} | {
        f"drought_frequency_{season}" for season in ("DJF", "MAM", "JJA", "SON")
    }
    assert (
        0 <= np.nanmin(found.values["drought_frequency"]) <= np.nanmax(found.values["drought_frequency"]) <= 1
    )
    assert len(list((tmp_path / "drought").glob("*.html"))) == 2


def test_past_and_future_are_one_land_and_it_warms(tmp_path: Path) -> None:
    past, future = (open_cube(p) for p in write_projection_cubes(tmp_path, (3, 3), (12, 14), warming=1.0))
    for name in ("orog", "soil_capacity", "forest"):
        here, there = (cube.store.read(name, {}) for cube in (past, future))
        np.testing.assert_array_equal(here, there)
    warmer = np.mean(future.store.read("tas", {})) - np.mean(past.store.read("tas", {}))
    assert 2 < warmer < 4  # three decades later, plus weather
    assert past.target_names == ("NDVI", "BT")
    assert future.target_names == ()
    assert open_cube(future.path.with_name("grown.yaml")).target_names == ("NDVI", "BT")
