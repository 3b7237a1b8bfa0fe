"""The trained models of run.sh once more, with futures drawn at another temperature.

    python results/anticipation/temperature.py DATA runs/anticipation 0.5

Nothing is trained. 50Salads alone: transcripts.py does the same for Breakfast. Writes
runs/anticipation/temperature.json, which collect.py sets beside the rest.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from framecast.checkpoints import load
from framecast.data.anticipation import open_anticipation
from framecast.tasks.forecasting import Sampling, collect_futures
from framecast.writing import write_file

SPLITS = {"50salads": (1, 2, 3, 4, 5)}
PROTOCOL = "anticipation/official-25"


def scores(root: Path, folder: Path, split: int, temperature: float) -> dict[str, float]:
    model: Any = load(folder / f"split{split}-seed0" / "model").eval()
    test = open_anticipation(root, split=split, subset="test", sample_rate=model.card.sample_rate)
    sampling = replace(Sampling(**model.card.notes["sampling"]), temperature=temperature)
    metrics = collect_futures(model, test, PROTOCOL, sampling)
    return metrics.compute(PROTOCOL) | metrics.uncertainty(PROTOCOL)


def main(data: Path, runs: Path, temperature: float) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for dataset, splits in SPLITS.items():
        for name in ("labels_manta", "labels_gtda"):
            start = time.process_time()
            each = [scores(data / dataset, runs / dataset / name, split, temperature) for split in splits]
            found.setdefault(dataset, {})[f"{name}_cool"] = {
                "temperature": temperature,
                "splits": list(splits),
                "mean": {key: statistics.fmean(run[key] for run in each) for key in each[0]},
                "per_run": [{"split": split, **run} for split, run in zip(splits, each, strict=True)],
                "wall_seconds": round(time.process_time() - start),
            }
            mean = found[dataset][f"{name}_cool"]["mean"]
            print(dataset, name, {k: round(mean[k], 2) for k in ("mean_moc", "top1_moc")}, flush=True)
            write_file(runs / "temperature.json", json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
