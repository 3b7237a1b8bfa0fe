"""Scores of the runs of run.sh on the unseen year, beside baselines, and what no forecast can beat.

python results/danger_conditioning/collect.py runs/danger_conditioning
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from framecast.data.cube import open_cube
from framecast.infer.earth_baselines import evaluate_earth_baselines
from framecast.infer.evaluation import evaluate_run
from framecast.metrics.danger import auroc
from framecast.recipes.build_danger import open_danger
from framecast.train.config import load_recipe
from framecast.train.danger_recipe import DangerRecipe
from framecast.train.study import study_evidence
from framecast.writing import fill_section, json_text, write_file

HERE = Path(__file__).parent
NAMES = {
    "climatology": "climatology of the season",
    "logistic_regression": "logistic regression on the cell",
    "gradient_boosting": "gradient boosting on the cell",
    "without_location": "**LOAN without location awareness**",
    "with_location": "**LOAN**",
    "hidden": "the hidden process itself",
}
GROUPS = {"test": "year", "JJA": "summer"}
KEYS = ("auroc", "auprc", "brier")


def hidden(run: Path) -> dict[str, float]:
    """Area under the ROC curve of the probability by which the cube's fires were drawn."""
    recipe = load_recipe(run)
    assert isinstance(recipe, DangerRecipe)
    cube, data = open_cube(recipe.data.root), open_danger(recipe.data, recipe.data.test)
    day, row, column = data.places.T
    stored = cube.store.read("hidden_danger", {})[:, :: -1 if cube.axes.y_flipped else 1]
    chances = stored[day, row, column]
    summer = np.array(["JJA" in own for own in data.groups({})])
    return {
        "year: auroc": auroc(chances, data.burnt),
        "summer: auroc": auroc(chances[summer], data.burnt[summer]),
    }


def brief(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{title}: {key}": scores[group][key] for group, title in GROUPS.items() for key in KEYS}


def main(runs: Path) -> None:
    rows: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    first = min((runs / "with_location").glob("seed*"))
    for name, one in evaluate_earth_baselines(["all"], first).items():
        rows[name] = {"mean": brief(one.scores)}
    wall = 0.0
    for name in ("without_location", "with_location"):
        evidence = study_evidence(runs / name)
        if evidence is None:
            print(f"{runs / name} is not finished; left out")
            continue
        folders = sorted(path.parent for path in (runs / name).glob("*/config.yaml"))
        scores = [brief(evaluate_run(folder).scores) for folder in folders]
        rows[name] = {
            "mean": {key: statistics.fmean(s[key] for s in scores) for key in scores[0]},
            "std": {key: statistics.stdev(s[key] for s in scores) for key in scores[0]},
            "per_seed": scores,
        }
        wall, environment = wall + evidence["wall_seconds"], evidence["environment"]
    rows["hidden"] = {"mean": hidden(first)}
    command = "bash results/danger_conditioning/run.sh"
    summary = {"command": command, "rows": rows, "wall_seconds": wall, "environment": environment}
    write_file(HERE / "summary.json", json_text(summary) + "\n")
    fill_section(HERE / "README.md", "table", table(rows))
    plot(rows)
    print(table(rows))


def table(rows: dict[str, Any]) -> str:
    titles = [f"{title}: {key}" for title in GROUPS.values() for key in KEYS]
    lines = [f"|  | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name in NAMES:
        if name not in rows:
            continue
        mean, std = rows[name]["mean"], rows[name].get("std")
        cells = []
        for key in titles:
            deviation = f" ± {std[key]:.3f}" if std else ""
            cells.append(f"{mean[key]:.3f}{deviation}" if key in mean else "")
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: dict[str, Any]) -> None:
    """AUROC of the year and of summer, a point for every seed."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    shown = [name for name in NAMES if name in rows]
    for place, name in enumerate(reversed(shown)):
        for title, color in (("year", "#2f7ab8"), ("summer", "#d1495b")):
            key = f"{title}: auroc"
            seeds = [one[key] for one in rows[name].get("per_seed", [])] or [rows[name]["mean"][key]]
            axes.scatter(seeds, [place] * len(seeds), color=color, s=26, alpha=0.8)
    axes.set_yticks(range(len(shown)), [NAMES[name].replace("*", "") for name in reversed(shown)])
    axes.set_xlabel("area under the ROC curve on the unseen year")
    for title, color in (("whole year", "#2f7ab8"), ("summer alone", "#d1495b")):
        axes.scatter([], [], color=color, label=title)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "plot.png", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
