"""From a cube to a trained model and its scores on the command line, beside baselines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_world import framecast as run_command
from small_world import succeed

from map_cube import write_map_cube

pytest.importorskip("xarray")
pytest.importorskip("zarr")
pytest.importorskip("sklearn")

QUICK = ("--set", "epochs=1", "--set", "keep_last=1")


@pytest.fixture(scope="module")
def danger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from framecast.data.synthetic_cubes import write_fire_cube

    root = tmp_path_factory.mktemp("danger")
    cube = write_fire_cube(root / "cube", 120, 48, start="2018-06-01")
    succeed("train", "danger", "--data", cube, "--out", root / "run", *QUICK)
    return root


@pytest.fixture(scope="module")
def vegetation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vegetation")
    small = ("--set", "model.name=convlstm", "--set", "model.config={width: 4}")
    cube = write_map_cube(root / "cube")
    succeed("train", "vegetation", "--data", cube, "--out", root / "run", *QUICK, *small)
    return root


def test_danger_and_its_baselines(danger: Path) -> None:
    told = succeed("evaluate", danger / "run").out
    assert "auroc" in told
    assert "SON" in told
    assert "scores-reliability.png" in told
    assert (danger / "run" / "scores-reliability.png").is_file()
    own = json.loads((danger / "run" / "scores.json").read_text())
    assert sum(own["reliability"]["counts"]) == own["scores"]["test"]["num_cells"]
    done = succeed("evaluate", danger / "run", "--baseline", "all", "--out", danger / "all.json")
    for name in ("climatology", "logistic_regression", "gradient_boosting"):
        assert name in done.out
    scores = json.loads((danger / "all.json").read_text())
    counts = {one["scores"]["test"]["num_cells"] for one in scores.values()}
    assert len(scores) == 4
    assert len(counts) == 1, "all are scored on the same cells"
    assert scores["gradient_boosting"]["scores"]["test"]["auroc"] > 0.5


def test_maps_and_their_baselines(vegetation: Path) -> None:
    assert "skill" in succeed("evaluate", vegetation / "run").out
    words = ("evaluate", vegetation / "run", "--baseline", "climatology", "--baseline", "linear", "--json")
    scores = succeed(*words).json["scores"]
    assert list(scores) == [str(vegetation / "run"), "climatology", "linear"]
    assert scores["climatology"]["scores"]["test"]["skill"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--baseline", "climatolgy"), "unknown baseline 'climatolgy', did you mean 'climatology'?"),
        (("--baseline", "ngram"), "unknown baseline 'ngram'"),
        (("--baseline", "all", "--split", "1"), "a cube has one test side"),
    ],
)
def test_impossible_wishes_are_named(danger: Path, words: tuple[str, ...], message: str) -> None:
    done = run_command("evaluate", danger / "run", *words)
    assert done.code == 1
    assert message in done.err
