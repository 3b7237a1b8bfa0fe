"""A model of danger learns from a cube's fires, and is scored like its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("xarray")

from framecast.checkpoints import save
from framecast.data.cube import Cube, open_cube
from framecast.data.cube_axes import dates_of
from framecast.data.danger_windows import DangerInput, DangerWindows
from framecast.data.synthetic_cubes import write_fire_cube
from framecast.infer.danger import DangerForecaster
from framecast.infer.danger_baselines import BASELINES, score_baselines
from framecast.infer.evaluation import evaluate_run
from framecast.recipes.build import build_task, get_recipe
from framecast.tasks.danger import score_model
from framecast.train.config import apply_overrides
from framecast.train.loop import train


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fire_cube(tmp_path_factory.mktemp("island"), 400, 40, 0, start="2019-06-01", sea=False)


@pytest.fixture(scope="module")
def cube(path: Path) -> Cube:
    return open_cube(path)


def test_a_window_is_what_the_cube_holds_before_the_day(cube: Cube) -> None:
    windows = DangerWindows(cube, "train", negatives=1)
    assert len(windows) == 2 * windows.burnt.sum()
    lazy = DangerWindows(cube, "train", negatives=1, keep_mb=0)
    for index in (0, len(windows) - 1):
        day, row, column = windows.places[index]
        sample = windows[index]
        part = slice(row - 12, row + 13), slice(column - 12, column + 13)
        maps = cube.dynamic(slice(day - 10, day), *part)  # lead 1: the day before is the latest
        np.testing.assert_array_equal(sample["dynamic"], maps[:, ::-1])
        assert cube.target("burned_areas", [day])[0, row, column] == sample["label"]
        assert int(dates_of(cube.times[[day]])[0][:4]) in (2019, 2020)
        for key, value in lazy[index].items():
            np.testing.assert_array_equal(value, sample[key])


def test_samples_stay_in_their_split_and_are_drawn_alike_for_a_seed(cube: Cube) -> None:
    days = {name: set(DangerWindows(cube, name).places[:, 0]) for name in ("train", "val", "test")}
    assert not days["train"] & days["val"]
    assert not days["val"] & days["test"]
    draws = [DangerWindows(cube, "train", seed=seed).places for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert len(np.unique(draws[0], axis=0)) == len(draws[0])


def test_what_a_model_reads_survives_its_card(cube: Cube) -> None:
    reads = DangerInput.of_cube(cube)
    assert DangerInput.from_notes(reads.to_notes()) == reads


def test_training_learns_from_the_hidden_process(path: Path, cube: Cube, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    changes = ["epochs=3", "batch_size=32", "data.test_negatives=2", f"data.root='{path}'"]
    recipe: Any = apply_overrides(get_recipe("danger"), changes)
    summary = train(recipe, build_task(recipe), tmp_path / "run", device="cpu")
    assert summary["metrics"]["auroc"] > 0.6
    found = evaluate_run(tmp_path / "run")
    assert found.scores["test"]["auroc"] > 0.6
    assert {"JJA", "MAM"} & set(found.scores)
    forecast = DangerForecaster(str(tmp_path / "run"), samples=4, memory_mb=60)(cube, "2020-07-01")
    assert forecast.shape == (1, 40, 40)
    assert np.isfinite(forecast.values["danger"][0, 12:-12, 12:-12]).any()
    assert np.nanmax(forecast.spread["danger"]) > 0


def test_a_map_holds_what_its_windows_say(cube: Cube, tmp_path: Path) -> None:
    recipe: Any = apply_overrides(get_recipe("danger"), [f"data.root='{cube.path}'", "data.test_negatives=2"])
    task: Any = build_task(recipe)
    model: Any = task.build_model().eval()
    save(model, tmp_path / "model")
    data = task.eval_data
    index = int(np.flatnonzero(data.burnt)[0])
    with torch.no_grad():
        batch = task.collate([data[index]])
        alone = model(batch["dynamic"], batch["static"], batch["day"])[0, -1].exp()
    _, row, column = data.places[index]
    forecast = DangerForecaster(str(tmp_path / "model"))(cube, data.date(index))
    np.testing.assert_allclose(forecast.values["danger"][0, row, column], alone, rtol=1e-5)


def test_several_checkpoints_have_mean_and_spread(cube: Cube) -> None:
    recipe = apply_overrides(get_recipe("danger"), [f"data.root='{cube.path}'"])
    models = [build_task(recipe).build_model().eval() for _ in range(3)]
    together = DangerForecaster(models)(cube, "2020-07-01")
    alone = np.stack([DangerForecaster(m)(cube, "2020-07-01").values["danger"] for m in models])
    assert not DangerForecaster(models[0])(cube, "2020-07-01").spread
    np.testing.assert_allclose(together.values["danger"], alone.mean(0), rtol=1e-6)
    np.testing.assert_allclose(together.spread["danger"], alone.std(0), rtol=1e-3, atol=1e-7)
    assert np.nanmax(together.spread["danger"]) > 0


def test_baselines_and_models_are_scored_on_the_same_samples(cube: Cube) -> None:
    seen, asked = DangerWindows(cube, "train"), DangerWindows(cube, "test")
    found = score_baselines(BASELINES, seen, asked, {"south": (20.0, 30.0, 30.0, 39.3)})
    counts = {name: scores.compute()["num_cells"] for name, scores in found.items()}
    assert set(counts.values()) == {len(asked)}
    assert found["gradient_boosting"].compute()["auroc"] > 0.6
    assert "south: auroc" in found["climatology"].compute()

    class Even(torch.nn.Module):
        def forward(self, dynamic: Any, static: Any, day: Any) -> Any:
            return torch.full((len(day), 2), 0.5).log()

    assert score_model(Even(), asked).compute(())["auroc"] == 0.5


def test_impossible_wishes_are_named(cube: Cube) -> None:
    with pytest.raises(ValueError, match="has no split 'trian', did you mean 'train'"):
        DangerWindows(cube, "trian")
    with pytest.raises(ValueError, match="cells that did not burn"):
        DangerWindows(cube, "train", negatives=10**6)
    model = build_task(apply_overrides(get_recipe("danger"), [f"data.root='{cube.path}'"])).build_model()
    with pytest.raises(ValueError, match="has no 2030-06-30, the latest day that is read for 2030-07-01"):
        DangerForecaster(model)(cube, "2030-07-01")
    with pytest.raises(ValueError, match="is no date"):
        DangerForecaster(model)(cube, "summer")
