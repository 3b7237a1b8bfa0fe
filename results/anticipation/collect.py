"""Turns the runs of run.sh into evidence: summary.json, tables in the README, a plot.

    python results/anticipation/collect.py runs/anticipation

Published scores are those of the papers, with their splits: Abu Farha et al. 2018 and Ke et al. 2019. Studies
that are not there, or not finished, are left out and named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from framecast.train.study import study_evidence
from framecast.writing import fill_section

HERE = Path(__file__).parent
SETTINGS = [f"{seen}/{ahead}" for seen in (20, 30) for ahead in (10, 20, 30, 50)]
DATASETS = {"breakfast": "Breakfast, mean of 4 splits", "50salads": "50Salads, mean of 5 splits"}
SPLITS = {"breakfast": [1, 2, 3, 4], "50salads": [1, 2, 3, 4, 5]}
STUDIES = ("rnn", "cnn", "labels_gtda", "labels_manta")
NAMES = {
    "repeat_last": "repeat the last action",
    "nearest_neighbour": "nearest neighbour",
    "ngram": "n-gram",
    "grammar": "grammar",
    "transcript_sampler": "transcript sampler",
    "rnn": "**RNN**",
    "cnn": "**CNN**",
    "labels_gtda": "**GTDA**",
    "labels_manta": "**MANTA**",
    "labels_gtda_cool": "**GTDA**, temperature 0.5",
    "labels_manta_cool": "**MANTA**, temperature 0.5",
}
PUBLISHED = {  # one future, ground-truth observation
    "breakfast": {
        "RNN, published": (60.35, 50.44, 45.28, 40.42, 61.45, 50.25, 44.90, 41.75),
        "CNN, published": (57.97, 49.12, 44.03, 39.26, 60.32, 50.14, 45.18, 40.51),
        "TimeCond 2019, published": (64.46, 56.27, 50.15, 43.99, 65.95, 55.94, 49.14, 44.23),
    },
    "50salads": {
        "RNN, published": (42.30, 31.19, 25.22, 16.82, 44.19, 29.51, 19.96, 10.38),
        "CNN, published": (36.08, 27.62, 21.43, 15.48, 37.36, 24.78, 20.78, 14.05),
        "TimeCond 2019, published": (45.12, 33.23, 27.59, 17.27, 46.40, 34.80, 25.24, 13.84),
    },
}
METRICS = {
    "One future (MoC)": "moc",
    "25 futures, mean MoC": "mean_moc",
    "25 futures, top-1 MoC": "top1_moc",
}


def rows_of(summary: dict[str, Any], dataset: str, metric: str) -> list[tuple[str, list[float]]]:
    """Name and score at every setting; published ones first."""
    rows = [(name, list(v)) for name, v in PUBLISHED[dataset].items()] if metric == "moc" else []
    for name, study in summary["rows"].items():
        group, _, model = name.partition("/")
        keys = [f"{metric}@{setting}" for setting in SETTINGS]
        if group == dataset and all(key in study["mean"] for key in keys):
            rows.append((NAMES[model], [study["mean"][key] for key in keys]))
    return rows


def tables(summary: dict[str, Any]) -> str:
    parts = []
    for dataset, title in DATASETS.items():
        for what, metric in METRICS.items():
            rows = rows_of(summary, dataset, metric)
            if not rows:
                continue
            heads = ["", *(s.replace("/", " → ") for s in SETTINGS), "mean"]
            parts += [f"**{title}. {what}** (% seen → % ahead)", "", f"| {' | '.join(heads)} |"]
            parts += ["|---" * len(heads) + "|"]
            for name, scores in rows:
                cells = [f"{score:.1f}" for score in (*scores, sum(scores) / len(scores))]
                parts.append(f"| {' | '.join([name, *cells])} |")
            parts.append("")
    return "\n".join(parts)


def plot(summary: dict[str, Any], path: Path) -> None:
    """MoC of one future against the share ahead, published scores dashed."""
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    colors = ["#9aa5b1", "#c2b280", "#7fb0a5", "#c98a6b", "#8d7bb5", "#2f7ab8", "#d1495b"]
    for axis, (dataset, title) in zip(axes, DATASETS.items(), strict=True):
        ahead = (10, 20, 30, 50)
        shown = [row for row in rows_of(summary, dataset, "moc") if "2019" not in row[0]]
        for i, (name, scores) in enumerate(shown):
            published, ours = "published" in name, "**" in name
            axis.plot(
                ahead,
                [(a + b) / 2 for a, b in zip(scores[:4], scores[4:], strict=True)],
                color=colors[("CNN" in name) + 5] if published or ours else colors[i % 5],
                linestyle="--" if published else "-",
                marker="o" if ours else None,
                lw=2 if ours else 1.2,
                label=name.replace("*", ""),
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("% of the video ahead")
        axis.set_xticks(ahead)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("MoC of one future, mean of 20 % and 30 % seen")
    figure.savefig(path, dpi=130)


def drawn_cooler(runs: Path) -> dict[str, Any]:
    """Rows of futures at temperature 0.5: 50Salads by temperature.py, Breakfast by transcripts.py."""
    cool, courses = runs / "temperature.json", HERE / "transcripts.json"
    rows = json.loads(cool.read_text()) if cool.is_file() else {}
    if courses.is_file():
        found = json.loads(courses.read_text())["rows"]
        rows["breakfast"] = {
            f"labels_{name.lower()}_cool": {
                "mean": found[f"{name}, temperature 0.5"]["all"],
                "wall_seconds": 0,
            }
            for name in ("MANTA", "GTDA")
        }
    return rows


def main(runs: Path) -> None:
    found = json.loads((runs / "baselines.json").read_text())
    drawn_anew = drawn_cooler(runs)
    rows: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for dataset in DATASETS:
        rows |= {f"{dataset}/{name}": row for name, row in found[dataset].items()}
        for name in STUDIES:
            study = study_evidence(runs / dataset / name)
            if study is None or study["splits"] != SPLITS[dataset]:
                print(f"{dataset}/{name} is not finished; left out")
                continue
            environment = study.pop("environment")
            rows[f"{dataset}/{name}"] = study
        rows |= {f"{dataset}/{name}": row for name, row in drawn_anew.get(dataset, {}).items()}
    summary = {
        "command": "bash results/anticipation/run.sh DATA",
        "rows": rows,
        "wall_seconds": sum(row["wall_seconds"] for row in rows.values()),
        "environment": environment,
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(summary, HERE / "plot.png")
    fill_section(HERE / "README.md", "table", tables(summary))
    print(tables(summary))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
