"""Can the chances of the trained models be believed? Confidence against accuracy on Breakfast.

    python results/anticipation/calibration.py runs/anticipation/breakfast DATA/breakfast 1,2,3,4

Writes calibration.json and calibration.png here, and its table into the README. 25 futures each, drawn as in
the recipes; the chance of a class at a moment is its share of the futures.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from framecast.checkpoints import load
from framecast.data.anticipation import open_anticipation
from framecast.infer.baselines import FittedBaseline
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.metrics.anticipation_protocols import AnticipationProtocol
from framecast.tasks.forecasting import Sampling, collect_futures
from framecast.train.environment import describe_environment
from framecast.viz.calibration import draw_calibration
from framecast.writing import fill_section

HERE = Path(__file__).parent
PROTOCOL = AnticipationProtocol("anticipation/own", observed=(0.2,))
MODELS = {
    "MANTA": "labels_manta",
    "GTDA": "labels_gtda",
    "n-gram": "ngram",
    "transcript sampler": "transcript_sampler",
    "repeat the last action": "repeat_last",
}
SCORES = {
    "ece": "ECE",
    "brier": "Brier",
    "crps": "CRPS",
    "entropy_auc": "entropy tells wrong from right (AUC)",
}


def collected(runs: Path, data: Path, splits: list[int], name: str) -> AnticipationMetrics:
    """Futures of all test videos, each by the model that was trained without it."""
    found: list[AnticipationMetrics] = []
    for split in splits:
        folder = runs / name / f"split{split}-seed0" / "model"
        if folder.is_dir():
            model: Any = load(folder).eval()
            sampling = Sampling(**model.card.notes["sampling"])
        else:
            model = FittedBaseline(name, open_anticipation(data, split=split, subset="train"))
            sampling = Sampling()
        rate = model.card.sample_rate
        test = open_anticipation(data, split=split, subset="test", sample_rate=rate)
        found.append(collect_futures(model, test, PROTOCOL, sampling))
    for other in found[1:]:
        found[0].merge(other)
    return found[0]


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = [f"| | {' | '.join(SCORES.values())} |", "|---" * (1 + len(SCORES)) + "|"]
    for name, scores in rows.items():
        cells = [f"{scores[key]:.3f}" for key in SCORES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(runs: Path, data: Path, splits: list[int]) -> None:
    torch.set_num_threads(1)
    began = time.time()
    bins: dict[str, Any] = {}
    rows: dict[str, dict[str, float]] = {}
    for title, name in MODELS.items():
        metrics = collected(runs, data, splits, name)
        found = metrics.reliability(PROTOCOL, 0.2, 0.5)
        bins[title] = {key: values.tolist() for key, values in found.items()}
        rows[title] = metrics.uncertainty(PROTOCOL)
        print(title, {key: round(rows[title][key], 3) for key in SCORES}, flush=True)
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command")
    summary = {
        "command": "python results/anticipation/calibration.py runs/anticipation/breakfast DATA/breakfast "
        + ",".join(map(str, splits)),
        "splits": splits,
        "seed": 0,
        "observed": 0.2,
        "rows": rows,
        "bins at half a video ahead": bins,
        "wall_seconds": round(time.time() - began),
        "environment": environment,
    }
    (HERE / "calibration.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw_calibration(
        {
            title: tuple(values.values())
            for title, values in bins.items()
            if title != "repeat the last action"
        },
        HERE / "calibration.png",
        title="20 % of a breakfast seen, the next half foretold",
    )
    fill_section(HERE / "README.md", "calibration", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")])
