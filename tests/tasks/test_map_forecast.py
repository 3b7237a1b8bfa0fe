"""Maps ahead as a task: a run from a cube to scores, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import framecast as fc
from framecast.data.cube_axes import season_of
from framecast.data.drought_weeks import SCALING
from framecast.data.synthetic_drought import write_tsmp_folder
from framecast.infer.evaluation import evaluate_run
from framecast.recipes.build import build_task, get_recipe
from framecast.tasks.map_forecast import model_input, score_predictions
from framecast.train.config import apply_overrides
from framecast.train.loop import train
from map_cube import SHAPE, write_map_cube

TINY = [
    "model.config={widths: [4, 8], depths: [1, 1], decoder: cnn, focal_levels: [1, 1], focal_windows: [3, 3]}"
]


def recipe(path: Path, *changes: str, name: str = "vegetation") -> Any:
    given = [f"data.root={path}", "epochs=2", "data.targets=[ndvi, bt]", *changes]
    return apply_overrides(get_recipe(name), given)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_map_cube(tmp_path_factory.mktemp("cube"))


def test_steps_are_channels_or_time() -> None:
    dynamic, still = torch.arange(12.0).view(1, 2, 3, 1, 2), torch.full((1, 1, 1, 2), -1.0)
    flat = model_input(dynamic, still, by_steps=False)
    assert flat.shape == (1, 7, 1, 2)
    assert flat[0, :, 0, 0].tolist() == [0, 2, 4, 6, 8, 10, -1]
    steps = model_input(dynamic, still, by_steps=True)
    assert steps.shape == (1, 3, 3, 1, 2)
    assert steps[0, :, 1, 0, 0].tolist() == [2, 8, -1]


@pytest.mark.parametrize("model", [*fc.list_models("focal_tsmp*"), "convlstm"])
def test_every_network_trains(model: str, cube: Path) -> None:
    config = "{width: 4}" if model == "convlstm" else "{widths: [4, 8, 16], heads: [1, 2, 2], window: 4}"
    extra = [] if model == "convlstm" else ["model.config.decoder_heads=[1, 1, 1]"]
    task = build_task(recipe(cube, f"model.name={model}", f"model.config={config}", *extra))
    torch.manual_seed(0)
    network = task.build_model()
    batch = task.collate([task.train_data[i] for i in range(4)])
    loss, parts = task.loss(network, batch)
    loss.backward()
    assert set(parts) == {f"{t}+{lead}" for t in ("ndvi", "bt") for lead in (1, 2, 4, 6)}
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
    with torch.no_grad():
        assert network(batch["x"]).shape == (4, 8, *SHAPE)


def test_missing_and_sea_do_not_enter_the_loss(cube: Path) -> None:
    task = build_task(recipe(cube, *TINY))
    batch = task.collate([task.train_data[0]])
    assert torch.isnan(batch["target"]).any()

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(batch["target"].isnan(), 1e6, batch["target"])

    assert task.loss(Fixed(), batch)[0] == 0


def test_from_training_to_scores(cube: Path, tmp_path: Path) -> None:
    """It learns that vegetation follows rain; indices and classes are scored; the run is evaluated again."""
    changes = ["data.vegetation=ndvi", "data.temperature=bt", "epochs=20", "data.leads=[1, 2]", *TINY]
    changes += ["data.regions={west: [5, 40, 6, 43]}", "optim.lr=1e-2", "data.corrects=false", "eval_every=5"]
    made = recipe(cube, *changes)
    summary = train(made, build_task(made), tmp_path / "run")
    assert summary["metrics"]["ndvi+1: skill"] > 0.3
    found = evaluate_run(tmp_path / "run")
    assert found.kind == "map"
    assert found.scores["test"]["skill"] > 0.2
    scores = found.scores["by season and region"]
    for key in ("VHI+2: correlation", "TCI+1: mae", "ndvi+1, JJA: rmse", "bt+2, west: skill"):
        assert np.isfinite(scores[key]), key
    assert 0 <= scores["drought+1: accuracy"] <= 1
    # over all cells and times, or the mean of what every map has
    assert scores["ndvi+1, mean of maps: mae"] == pytest.approx(scores["ndvi+1: mae"], rel=0.05)
    assert scores["VHI+1, mean of maps: rmse"] < scores["VHI+1: rmse"]
    assert "drought+1, west: accuracy" in scores


def test_a_perfect_forecast(cube: Path) -> None:
    task: Any = build_task(recipe(cube, "data.vegetation=ndvi", "data.temperature=bt", *TINY))
    series = task.eval_data

    def truth(issues: list[int]) -> np.ndarray:
        return np.stack([np.nan_to_num(series.target_maps(issue)) for issue in issues])

    scores = score_predictions(truth, series, task.scoring).compute()
    assert scores["skill"] == 1
    assert scores["drought+1: accuracy"] == 1
    assert scores["VHI+6: mae"] == 0
    usual = score_predictions(
        lambda issues: np.stack([series.target_maps(i) * 0 + 1e3 for i in issues]), series, task.scoring
    )
    assert usual.compute()["skill"] < 0


def test_seasons() -> None:
    months = [np.datetime64(f"2001-{month:02d}-15") for month in range(1, 13)]
    assert [season_of(m) for m in months] == ["DJF"] * 2 + ["MAM"] * 3 + ["JJA"] * 3 + ["SON"] * 3 + ["DJF"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.targets=[ndwi]", "names 'ndwi', which is no target of .*did you mean 'ndvi'"),
        ("data.vegetation=rain", "data.vegetation names 'rain', which is no target"),
        ("model.config.in_channels=3", "in_channels is 3 but the data has"),
        ("model.name=mstcn", "mstcn does not read maps"),
        ("loss.weights={ndwi: 2}", "loss weights name 'ndwi'; targets are ndvi, bt"),
        ("data.train=early", "no split 'early'"),
        ("data.leads=[400]", "has no sample of 12 steps with leads"),
        ("data.root=''", "the recipe names no data"),
    ],
)
def test_recipes_that_do_not_fit(change: str, message: str, cube: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_task(recipe(cube, *TINY, change))


def test_the_published_setting(tmp_path: Path) -> None:
    """Weeks of a simulation as published: 65 simulated and 6 still channels, standardised as there."""
    root = write_tsmp_folder(tmp_path / "weeks", weeks=2, cells=24)
    small = "model.config={widths: [4, 8, 16], depths: [1, 1, 1], decoder_depths: [1, 1, 1]}"
    made = apply_overrides(get_recipe("focal_tsmp_terrsysmp"), [f"data.root={root}", small])
    task: Any = build_task(made)
    assert task.model_config["in_channels"] == 71
    assert task.window.output_names == ("BT", "NDVI")
    assert task.train_data.scaling.targets == {"BT": SCALING["BT"], "NDVI": SCALING["NDVI"]}
    batch = task.collate([task.train_data[0]])
    assert batch["x"].shape == (1, 71, 10, 10)
    assert torch.isfinite(task.loss(task.build_model(), batch)[0])
