"""Scores on the test years: the baselines, fitted on the training years, and all runs of run.sh on a cube.

python results/earth_maps/score.py runs/earth_maps/iberia runs/earth_maps/iberia.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from framecast.data.map_scaling import fit_scaling
from framecast.infer.evaluation import evaluate_run
from framecast.infer.map_baselines import BASELINES, fit_baseline, score_baseline
from framecast.recipes.build_maps import map_series, open_map_cube, scoring_from, window_from
from framecast.train.config import load_recipe
from framecast.train.map_recipe import MapRecipe
from framecast.train.study import study_evidence

SEASONED = "by season and region"


def baselines(recipe: MapRecipe) -> dict[str, Any]:
    """Scores of every baseline with the windows and splits of a recipe."""
    data = recipe.data
    cube = open_map_cube(data)
    window = window_from(data, cube)
    scaling = fit_scaling(cube, window, data.train)
    train, validation, test = (
        map_series(data, part, cube, window, scaling) for part in ("train", "validation", "test")
    )
    found = {}
    for name in BASELINES:
        start = time.time()
        fitted = fit_baseline(name, train, validation)
        scores = score_baseline(fitted, test, scoring_from(data)).compute()
        found[name] = {"mean": scores, "std": None, "wall_seconds": round(time.time() - start)}
        print(f"{cube.path.parent.name} {name}: skill {scores['skill']:.3f}", flush=True)
    return found


def networks(folder: Path) -> dict[str, Any]:
    """Mean and deviation over seeds of every finished study."""
    found = {}
    for study in sorted(path.parent for path in folder.glob("*/summary.json")):
        evidence = study_evidence(study)
        if evidence is None:
            print(f"{study} is not finished; left out")
            continue
        scores = [
            evaluate_run(run).scores[SEASONED]
            for run in sorted(p.parent for p in study.glob("*/config.yaml"))
        ]
        values = {key: torch.tensor([score[key] for score in scores]).double() for key in scores[0]}
        found[study.name] = {
            "mean": {key: v.mean().item() for key, v in values.items()},
            "std": {key: v.std().item() for key, v in values.items()} if len(scores) > 1 else None,
            "per_seed": [{k: s[k] for k in s if k == "skill" or ", " not in k} for s in scores],
            "wall_seconds": evidence["wall_seconds"],
            "environment": evidence["environment"],
        }
        print(f"{study}: skill {found[study.name]['mean']['skill']:.3f}", flush=True)
    return found


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe(next(iter(sorted(folder.glob("focal_tsmp/*/config.yaml")))))
    assert isinstance(recipe, MapRecipe)
    out.write_text(json.dumps(baselines(recipe) | networks(folder), indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
