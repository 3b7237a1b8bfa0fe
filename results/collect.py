"""Turns finished studies into evidence: summary.json, a table in the README, a plot.

    python results/collect.py fir_actions runs/fir_actions

Every folder below the second argument is a study written by `framecast train … --splits … --seeds …`.
Rows of `results/<name>/published.json` (scores of published predictions on the same videos) are set beside.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from framecast.train.study import study_evidence

KEYS = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")
TITLES = ("accuracy", "edit", "F1@10", "F1@25", "F1@50")
COLORS = {  # the same model the same colour in every panel, in the order of the tables
    "svm": "#9aa5b1",
    "linear": "#b9c2cb",
    "linear_median": "#7d8894",
    "tcnn": "#c2b280",
    "dilated_tcn": "#7fb0a5",
    "ed_tcn": "#c98a6b",
    "mstcn": "#8d7bb5",
    "ltcontext": "#2f7ab8",
}
HERE = Path(__file__).parent
START, END = "<!-- table:start -->", "<!-- table:end -->"


def read_study(folder: Path) -> dict[str, Any]:
    study = study_evidence(folder)
    if study is None:
        raise SystemExit(f"{folder} is not finished; run its command again, it goes on")
    kept = ("split", "seed", *KEYS)
    return study | {"per_run": [{key: run[key] for key in kept} for run in study["per_run"]]}


def protocols_of(mean: dict[str, float]) -> list[str]:
    """Prefixes of the metric names; the first, plain one is the mean over videos."""
    return sorted({name.rpartition(": ")[0] for name in mean})


def cell(scores: dict[str, float], deviations: dict[str, Any] | None, key: str) -> str:
    deviation = (deviations or {}).get(key)
    return f"{scores[key]:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, one block per protocol; ± is the standard deviation over seeds."""
    parts = []
    known = [p for p in protocols_of(next(iter(rows.values()))["mean"]) if "without" not in p]
    for prefix in known:
        heads = (["data"] if any("/" in name for name in rows) else []) + ["model", *TITLES]
        parts += [
            f"**{prefix or 'mean over videos'}**",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        for name, row in rows.items():
            keys = [f"{prefix}: {key}" if prefix else key for key in KEYS]
            if not all(key in row["mean"] for key in keys):
                continue
            group, _, model = name.rpartition("/")
            cells = [cell(row["mean"], row.get("std"), key) for key in keys]
            parts.append(f"| {' | '.join([group, model, *cells] if len(heads) > 6 else [model, *cells])} |")
        parts.append("")
    return "\n".join(parts)


def plot(rows: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """Bars per model and metric, whiskers one standard deviation over seeds; one panel per set."""
    groups = sorted({name.rpartition("/")[0] for name in rows})
    figure = Figure(figsize=(4.6 * len(groups) + 0.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, group in zip(axes, groups, strict=True):
        members = {n.rpartition("/")[2]: r for n, r in rows.items() if n.rpartition("/")[0] == group}
        width = 0.84 / len(members)
        for i, (model, row) in enumerate(members.items()):
            places = [k + (i - (len(members) - 1) / 2) * width for k in range(len(KEYS))]
            error = [(row.get("std") or {}).get(key) or 0.0 for key in KEYS]
            heights = [row["mean"][key] for key in KEYS]
            axis.bar(
                places,
                heights,
                width * 0.92,
                yerr=error,
                color=COLORS[model],
                label=model,
                error_kw={"lw": 1},
            )
        axis.set_xticks(range(len(KEYS)), TITLES)
        axis.set_title(group or title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(0, 100)
        axis.legend(fontsize=7, frameon=False, ncols=2, loc="upper right")
    axes[0].set_ylabel("score, mean over videos")
    figure.savefig(path, dpi=130)


def main() -> None:
    name, studies = sys.argv[1], Path(sys.argv[2])
    folder = HERE / name
    rows: dict[str, dict[str, Any]] = {}
    published = folder / "published.json"
    if published.is_file():
        rows |= json.loads(published.read_text())
    for path in sorted(studies.rglob("summary.json")):
        if (path.parent / "config.yaml").exists():  # a single run inside a study
            continue
        rows[str(path.parent.relative_to(studies))] = read_study(path.parent)
    rank = {model: i for i, model in enumerate(COLORS)}
    rows = dict(
        sorted(
            rows.items(),
            key=lambda item: (item[0].rpartition("/")[0], rank.get(item[0].rpartition("/")[2], 99)),
        )
    )
    seconds = [row["wall_seconds"] for row in rows.values() if "wall_seconds" in row]
    environments = [row.pop("environment") for row in rows.values() if "environment" in row]
    summary = {
        "command": f"bash results/{name}/run.sh DATA",
        "rows": rows,
        "wall_seconds": sum(seconds),
        "environment": environments[0] if environments else {},
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(rows, folder / "plot.png", name)
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    readme.write_text(f"{before}{START}\n{table(rows)}{END}{after}", encoding="utf-8")
    print(table(rows))
    print(f"{statistics.fmean(seconds) if seconds else 0:.0f} s per study, {sum(seconds)} s in all")


if __name__ == "__main__":
    main()
