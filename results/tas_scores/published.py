"""Scores of the published models whose predictions lie beside the features, on the same videos.

    python results/tas_scores/published.py DATA     (the folder with salads50_mid, salads50_eval, gtea)

Predictions are scored at the frame rate at which they are stored; each split by itself, then averaged.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import numpy as np

from framecast.metrics.segmentation import SegmentationMetrics

PROTOCOLS = {"": "segmentation/mean-over-videos", "pooled: ": "segmentation/pooled"}


def score_model(folder: Path) -> dict[str, float]:
    """Mean over the splits of every metric under both protocols."""
    splits: dict[int, SegmentationMetrics] = {}
    for path in sorted(folder.glob("split*.npz")):
        match = re.match(r"split(\d+)_", path.name)
        assert match is not None
        with np.load(path, allow_pickle=False) as file:
            metrics = splits.setdefault(int(match[1]), SegmentationMetrics())
            metrics.update(file["pred"].astype(np.int64), file["label"].astype(np.int64), path.stem)
    scores = [
        {prefix + key: value for prefix, p in PROTOCOLS.items() for key, value in metrics.compute(p).items()}
        for metrics in splits.values()
    ]
    return {key: statistics.fmean(s[key] for s in scores) for key in scores[0] if "num_videos" not in key}


def main() -> None:
    data = Path(sys.argv[1])
    rows = {
        f"{group}/{model.name}": {"mean": score_model(model)}
        for group in ("salads50_mid", "salads50_eval", "gtea")
        for model in sorted((data / group).iterdir())
        if model.is_dir()
    }
    out = Path(__file__).parent / "published.json"
    out.write_text(json.dumps(rows, indent=1) + "\n")
    for name, row in rows.items():
        print(name, {key: round(value, 1) for key, value in row["mean"].items()})


if __name__ == "__main__":
    main()
