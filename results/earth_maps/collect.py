"""Turns the scores of run.sh into evidence: summary.json, tables in the README, a plot.

python results/earth_maps/collect.py runs/earth_maps
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from framecast.writing import fill_section

HERE = Path(__file__).parent
NAMES = {
    "climatology": "climatology",
    "persistence": "persistence",
    "anomaly_persistence": "damped departure",
    "linear": "ridge per cell",
    "gradient_boosting": "gradient boosting",
    "convlstm": "**ConvLSTM**",
    "focal_tsmp": "**FocalNet**",
    "focal_tsmp_swin": "**Swin**",
    "focal_tsmp_wave": "**Wave-MLP**",
    "focal_tsmp_cnn": "**CNN**",
}
TITLES = {
    "iberia": "Iberian peninsula, winter days 1997-2002: temperature (K) and rain (mm) of the day",
    "kilimanjaro": "Kilimanjaro, 2005-2013: NDVI one to six half-months ahead",
    "bale": "Bale Mountains, 2005-2015: NDVI one to six half-months ahead",
}
LEADS = (1, 2, 4, 6)
COLUMNS = {
    "iberia": [
        (f"{title} {measure}", f"{name}: {key}")
        for name, title in (("tas", "temperature"), ("pr", "rain"))
        for measure, key in (("RMSE", "rmse"), ("MAE", "mae"), ("r", "correlation"), ("skill", "skill"))
    ],
    **{
        place: [
            *((f"skill +{lead}", f"ndvi+{lead}: skill") for lead in LEADS),
            ("RMSE +1", "ndvi+1: rmse"),
            ("VCI MAE +1", "VCI+1: mae"),
            ("VCI R² +1", "VCI+1: r2"),
            ("drought F1 +1", "drought+1: drought_f1"),
        ]
        for place in ("kilimanjaro", "bale")
    },
}


def brief(scores: dict[str, float]) -> dict[str, float]:
    """To five digits, without those of seasons and regions (they stand in the runs), and without unknowns."""
    return {
        key: float(f"{value:.5g}")
        for key, value in scores.items()
        if ", " not in key and not math.isnan(value)
    }


def cell(row: dict[str, Any], key: str) -> str:
    """The mean, with the deviation over seeds where there are some."""
    if key not in row["mean"]:
        return ""
    digits = 2 if key.endswith((": rmse", ": mae")) and not key.startswith("ndvi") else 3
    text = f"{row['mean'][key]:.{digits}f}"
    return text if not row.get("std") else f"{text} ± {row['std'][key]:.{digits}f}"


def tables(rows: dict[str, dict[str, Any]]) -> str:
    parts = []
    for place, found in rows.items():
        heads = ["", *(title for title, _ in COLUMNS[place])]
        parts += [f"**{TITLES[place]}**", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for name, row in found.items():
            cells = [NAMES[name], *(cell(row, key) for _, key in COLUMNS[place])]
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Skill over the climatology: bars of the variables of a day, or lines along the lead."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    colors = dict(zip(NAMES, ("0.6", "0.8", "#c2b280", "#c98a6b", "#7fb0a5", "#8d7bb5"), strict=False))
    colors |= dict(
        zip(
            ("focal_tsmp", "focal_tsmp_swin", "focal_tsmp_wave", "focal_tsmp_cnn"),
            ("#d1495b", "#2f7ab8", "#3a9d5d", "#e0a030"),
            strict=True,
        )
    )
    for axis, (place, found) in zip(axes, rows.items(), strict=True):
        shown = {name: row for name, row in found.items() if name not in ("climatology", "persistence")}
        for i, (name, row) in enumerate(shown.items()):
            label = NAMES[name].replace("*", "")
            if place == "iberia":
                width = 0.84 / len(shown)
                heights = [row["mean"][f"{v}: skill"] for v in ("tas", "pr")]
                error = [row["std"][f"{v}: skill"] for v in ("tas", "pr")] if row.get("std") else None
                places = [k + (i - (len(shown) - 1) / 2) * width for k in range(2)]
                axis.bar(places, heights, 0.92 * width, yerr=error, color=colors[name], label=label)
                axis.set_xticks((0, 1), ("temperature", "rain"))
                continue
            skill = [row["mean"][f"ndvi+{lead}: skill"] for lead in LEADS]
            mark = "o" if "*" in NAMES[name] else None
            axis.plot(LEADS, skill, color=colors[name], marker=mark, ms=4, label=label)
            axis.set_xticks(LEADS)
            axis.set_xlabel("half-months ahead")
        axis.axhline(0, color="black", lw=0.8)
        axis.set_title(TITLES[place].split(",")[0], fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        if place != "iberia":  # its bars leave no room, and the colours are the same
            axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("skill over the climatology (1 - MSE ratio)")
    figure.savefig(path, dpi=130)


def main(runs: Path) -> None:
    rows: dict[str, dict[str, Any]] = {}
    environment: dict[str, Any] = {}
    for place in TITLES:
        path = runs / f"{place}.json"
        if not path.is_file():
            print(f"{path} is not there; left out")
            continue
        found = json.loads(path.read_text())
        rows[place] = {name: found[name] for name in NAMES if name in found}
        for row in rows[place].values():
            row |= {key: brief(row[key]) for key in ("mean", "std") if row.get(key)}
            row |= {"per_seed": [brief(one) for one in row["per_seed"]]} if "per_seed" in row else {}
            environment = row.pop("environment", None) or environment
    summary = {
        "command": "bash results/earth_maps/run.sh DATA/earth",
        "rows": {f"{place}/{name}": row for place, found in rows.items() for name, row in found.items()},
        "wall_seconds": sum(row["wall_seconds"] for found in rows.values() for row in found.values()),
        "environment": environment,
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(rows, HERE / "plot.png")
    fill_section(HERE / "README.md", "table", tables(rows))
    print(tables(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
