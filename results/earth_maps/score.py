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

from framecast.infer.earth_baselines import evaluate_earth_baselines
from framecast.infer.evaluation import evaluate_run
from framecast.infer.map_baselines import BASELINES
from framecast.train.study import study_evidence

SEASONED = "by season and region"


def baselines(run: Path) -> dict[str, Any]:
    """Scores of every baseline with the windows and splits of a run."""
    found = {}
    for name in BASELINES:
        start = time.time()
        scores = evaluate_earth_baselines([name], run)[name].scores[SEASONED]
        found[name] = {"mean": scores, "std": None, "wall_seconds": round(time.time() - start)}
        print(f"{name}: skill {scores['skill']:.3f}", flush=True)
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
    run = next(iter(sorted(folder.glob("focal_tsmp/*/config.yaml")))).parent
    out.write_text(json.dumps(baselines(run) | networks(folder), indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
