"""Scores of every baseline on every split of Breakfast and 50Salads.

    python results/anticipation/baselines.py DATA runs/anticipation/baselines.json

DATA/breakfast and DATA/50salads hold groundTruth/*.txt, mapping.txt and splits/.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from framecast.data.anticipation import open_anticipation
from framecast.models.anticipation_baselines import FORECASTERS, create_forecaster
from framecast.tasks.forecasting import Sampling, collect_futures
from framecast.writing import write_file

SPLITS = {"breakfast": (1, 2, 3, 4), "50salads": (1, 2, 3, 4, 5)}
PROTOCOLS = {
    "anticipation/2018": 1,
    "anticipation/official-25": 25,
}  # one future each, the most probable; or 25


def scores(root: Path, name: str, split: int) -> dict[str, float]:
    train, test = (open_anticipation(root, split=split, subset=side) for side in ("train", "test"))
    seen = [train.annotation(i) for i in range(len(train))]
    fitted = create_forecaster(name).fit(seen, len(train.classes))
    found: dict[str, float] = {}
    for protocol, samples in PROTOCOLS.items():
        found |= collect_futures(fitted, test, protocol, Sampling(samples=samples)).compute(protocol)
    return found


def main(data: Path, out: Path) -> None:
    found: dict[str, Any] = {}
    for dataset, splits in SPLITS.items():
        for name in FORECASTERS:
            start = time.time()
            runs = [scores(data / dataset, name, split) for split in splits]
            found.setdefault(dataset, {})[name] = {
                "splits": list(splits),
                "mean": {key: statistics.fmean(run[key] for run in runs) for key in runs[0]},
                "per_run": [{"split": split, **run} for split, run in zip(splits, runs, strict=True)],
                "wall_seconds": round(time.time() - start),
            }
            mean = found[dataset][name]["mean"]
            print(f"{dataset} {name}: MoC {mean['moc']:.1f}, mean of 25 {mean['mean_moc']:.1f}", flush=True)
    write_file(out, json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
