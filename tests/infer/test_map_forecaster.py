"""From a trained run to maps: dates, gaps, ensembles, and nothing from after the issue time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast as fc
from framecast.data.cube import open_cube
from framecast.infer.map_forecaster import MapForecaster
from framecast.recipes.build import build_task, get_recipe
from framecast.train.config import apply_overrides
from framecast.train.loop import train
from map_cube import SHAPE, STEPS, simulate, write_map_cube

NETWORK = "model.config={widths: [4, 8], depths: [1, 1], decoder: cnn, dropout: 0.2, \
focal_levels: [1, 1], focal_windows: [3, 3]}"


def trained(folder: Path, cube: Path, *changes: str) -> Path:
    given = [f"data.root={cube}", "epochs=2", "data.leads=[1, 3]", NETWORK, *changes]
    recipe = apply_overrides(get_recipe("vegetation"), given)
    train(recipe, build_task(recipe), folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("world")
    cube = write_map_cube(folder / "cube")
    runs = {f"run{seed}": trained(folder / f"run{seed}", cube, f"seed={seed}") for seed in (0, 1)}
    return {"cube": cube, **runs}


def test_a_forecast(world: dict[str, Path]) -> None:
    found = MapForecaster(world["run0"])(world["cube"], "1998-06-23")
    assert set(found.values) == {"ndvi", "bt"}
    assert found.values["ndvi"].shape == (2, *SHAPE)
    assert [str(t)[:10] for t in found.times] == ["1998-07-08", "1998-08-08"]
    assert found.units == {"ndvi": "1", "bt": "K"}
    assert (np.diff(found.y) < 0).all()
    assert np.isnan(found.values["ndvi"][:, -1, 0]).all()  # sea
    assert np.isfinite(found.values["bt"][:, 0]).all()
    assert 250 < np.nanmean(found.values["bt"]) < 330
    assert found.spread == {}
    assert found.attrs["issued"] == "1998-06-23"


def test_beyond_the_end_of_the_cube(world: dict[str, Path]) -> None:
    found = MapForecaster(world["run0"])(world["cube"], "1998-12-23")
    assert str(found.times[0])[:7] == "1999-01"
    assert np.isfinite(found.values["ndvi"][:, 0]).all()


def test_the_future_is_not_seen(world: dict[str, Path], tmp_path: Path) -> None:
    cube = open_cube(world["cube"])
    maps, issue = simulate(STEPS), cube.time_index("1998-06-23")
    for values in maps.values():
        values[issue + 1 :] += 3
    later = write_map_cube(tmp_path / "later", maps=maps)
    forecaster = MapForecaster(world["run0"])
    ours, theirs = forecaster(cube, "1998-06-23"), forecaster(later, "1998-06-23")
    for name in ours.values:
        np.testing.assert_array_equal(ours.values[name], theirs.values[name])


def test_members_spread(world: dict[str, Path]) -> None:
    one = MapForecaster(world["run0"])(world["cube"], "1997-03-08")
    two = MapForecaster(world["run1"])(world["cube"], "1997-03-08")
    both = MapForecaster([world["run0"], world["run1"]])(world["cube"], "1997-03-08")
    np.testing.assert_allclose(both.values["ndvi"], (one.values["ndvi"] + two.values["ndvi"]) / 2, rtol=1e-5)
    assert np.nanmax(both.spread["ndvi"]) > 0
    drawn = MapForecaster(world["run0"], samples=4, seed=1)
    first, again = (drawn(world["cube"], "1997-03-08") for _ in range(2))
    np.testing.assert_array_equal(first.values["ndvi"], again.values["ndvi"])
    assert np.nanmax(first.spread["ndvi"]) > 0
    assert not any(module.training for module in drawn.models[0].modules())


def test_a_reference_gives_the_climatology(world: dict[str, Path], tmp_path: Path) -> None:
    """The same maps without splits: what was usual is told by the reference."""
    bare = write_map_cube(tmp_path / "bare", splits={})
    forecaster = MapForecaster(world["run0"])
    with pytest.raises(ValueError, match="it has none; write `splits:` in its YAML"):
        forecaster(bare, "1998-06-23")
    ours = forecaster(world["cube"], "1998-06-23")
    theirs = forecaster(bare, "1998-06-23", reference=world["cube"])
    np.testing.assert_array_equal(ours.values["bt"], theirs.values["bt"])


def test_what_is_no_map_model(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="convlstm was not trained for maps"):
        MapForecaster(fc.create_model("convlstm", width=4))
    other: Any = trained(tmp_path / "other", world["cube"], "data.steps=2")
    with pytest.raises(ValueError, match="they make no ensemble"):
        MapForecaster([world["run0"], other])
    with pytest.raises(ValueError, match="begins 8 steps too late"):
        MapForecaster(world["run0"])(world["cube"], "1991-02-23")
