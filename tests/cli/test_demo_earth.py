"""`framecast demo earth`: an invented island, a model, maps; released weights read the cube as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import framecast as fc
from forecast_maps import island
from framecast.cli import demonstration_earth
from framecast.cli.demonstration_earth import contrasting_places, earth_demo
from framecast.infer.map_files import read_netcdf

pytest.importorskip("xarray")
pytest.importorskip("zarr")


@pytest.fixture
def small_island(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A summer on 32 x 34 cells in which something burns at the end."""
    from framecast.data.synthetic_cubes import write_fire_cube

    monkeypatch.setattr(demonstration_earth, "AROUND", 1)
    write_fire_cube(tmp_path / "cube", 100, (32, 34), start="2019-06-01")
    return tmp_path


def test_trained_here(small_island: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earth_demo(small_island, "cpu", changes=("epochs=1", "eval_every=1", "batch_size=128"))
    said = capsys.readouterr().out
    assert "training a small LOAN" in said
    (maps,) = small_island.glob("danger_*.nc")
    found = read_netcdf(maps)
    assert found.shape == (3, 32, 34)
    assert set(found.spread) == {"danger"}
    assert len(list(small_island.glob("danger_*.html"))) == 1
    assert len(list(small_island.glob("danger_*.gif"))) == 1
    earth_demo(small_island, "cpu", changes=("epochs=1", "eval_every=1", "batch_size=128"))  # all is there


def test_with_weights_of_the_user(small_island: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model: Any = fc.create_model("loan_cnn")
    monkeypatch.setattr("framecast.importing.import_checkpoint", lambda system, file: model)
    earth_demo(small_island, "cpu", "released.pth")
    assert fc.load(small_island / "model").config == model.config
    assert not (small_island / "run").exists()


def test_the_places_are_the_highest_and_the_lowest() -> None:
    high, low = contrasting_places(island(), 1)
    assert (high.latitude, high.longitude) == pytest.approx((39.45, 21.09))
    assert low.longitude == pytest.approx(21.0)
    assert np.isfinite(low.latitude)
