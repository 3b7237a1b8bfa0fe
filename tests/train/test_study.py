"""Studies: every combination once, finished ones skipped, honest averages."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from framecast.train.recipe import Recipe
from framecast.train.study import run_study, study_evidence, summarise

from .tiny_task import TinyTask, save_tiny, tiny_recipe


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    built: list[str] = []

    def make_recipe(split: int | None, seed: int) -> Recipe:
        return tiny_recipe(name=f"split{split}", seed=seed, epochs=2, data={"root": "none", "split": split})

    def make_task(recipe: Recipe) -> TinyTask:
        if len(built) == 3:
            raise KeyboardInterrupt
        built.append(f"{recipe.name}-seed{recipe.seed}")
        return TinyTask(10 + recipe.data.split if recipe.data.split else 0)

    def study() -> dict[str, Any]:
        return run_study(make_recipe, [1, 2], [5, 6], tmp_path, make_task=make_task, save_model=save_tiny)

    with pytest.raises(KeyboardInterrupt):
        study()
    partial = json.loads((tmp_path / "summary.json").read_text())
    assert (partial["complete"], len(partial["runs"]), partial["seeds"]) == (False, 3, [5])
    assert study_evidence(tmp_path) is None
    built.clear()
    done = study()
    assert built == ["split2-seed6"]
    assert done == json.loads((tmp_path / "summary.json").read_text())
    evidence = study_evidence(tmp_path)
    assert evidence is not None
    assert [(run["split"], run["seed"]) for run in evidence["per_run"]] == [(1, 5), (2, 5), (1, 6), (2, 6)]
    assert evidence["mean"] == done["mean"]
    assert "torch" in json.dumps(evidence["environment"])
    assert "command" not in evidence["environment"]
    assert done["complete"]
    one = [run["metrics"]["accuracy"] for run in done["runs"]]
    assert done["mean"]["accuracy"] == pytest.approx(statistics.fmean(one))
    assert done["std"]["accuracy"] == pytest.approx(abs((one[0] + one[1]) - (one[2] + one[3])) / 2 / 2**0.5)
    built.clear()
    assert study() == done
    assert built == []


def test_runs_on_data_without_splits_are_named_by_their_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = run_study(
        lambda split, seed: tiny_recipe(seed=seed, epochs=1),
        [None],
        [0, 3],
        tmp_path,
        make_task=lambda recipe: TinyTask(),
        save_model=save_tiny,
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["seed0", "seed3"]
    assert f"run 2 of 2: seed 3, in {tmp_path / 'seed3'}" in capsys.readouterr().err
    assert (study["splits"], study["per_split"], study["seeds"]) == ([], {}, [0, 3])
    assert study["std"]["accuracy"] is not None


def test_spread_is_over_seeds_of_the_split_average() -> None:
    """Splits differ by 10, seeds by 2: only the latter is chance."""
    runs = [
        {"split": split, "seed": seed, "metrics": {"f1": 50 + 10 * split + 2 * seed}}
        for split in (1, 2)
        for seed in (0, 1)
    ]
    study = summarise(runs)
    assert study["mean"]["f1"] == 66
    assert study["std"]["f1"] == pytest.approx(2**0.5)
    assert study["per_split"] == {"1": {"f1": 61}, "2": {"f1": 71}}
    assert summarise(runs[::2])["std"]["f1"] is None


def test_empty_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs splits and seeds"):
        run_study(lambda split, seed: tiny_recipe(), [], [1], tmp_path, make_task=lambda recipe: TinyTask())
