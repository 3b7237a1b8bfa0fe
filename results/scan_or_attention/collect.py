"""Turns the runs of run.sh into summary.json, the tables of the README and the plots.

python results/scan_or_attention/collect.py runs/scan_or_attention
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from framecast.writing import fill_section

HERE = Path(__file__).parent
NAMES = {
    "vit": "ViT",
    "videomamba": "VideoMamba",
    "stablemamba": "StableMamba",
    "dinov2_head": "DINOv2, linear head",
}
COLORS = {"vit": "#3179b7", "videomamba": "#ed872f", "stablemamba": "#25a37e", "dinov2_head": "#7d8894"}
KEYS = ("top1", "ece", "corrupted_top1", "relative_drop", "jpeg_10", "kl_quality_10")
HEADS = (
    "top-1",
    "calibration error",
    "top-1, mean of 75 corruptions",
    "loss of it, %",
    "top-1 at JPEG quality 10",
    "KL to it, nats",
)
NAMES_OF_DATA = {"cifar": "5,000 images of CIFAR-10", "fir_clips": "210 clips of ceiling-camera videos"}
SIZES = ("small", "deep", "wide")


def read_run(folder: Path) -> dict[str, Any]:
    """Scores of one run; those of corrupted data where they were measured."""
    summary = json.loads((folder / "summary.json").read_text())
    row: dict[str, Any] = {
        "run": folder.name,
        "seed": summary["seed"],
        "seconds": round(summary["seconds"]),
        **{key: summary["metrics"][key] for key in ("top1", "ece", "nll")},
    }
    path = folder / "robustness.json"
    if path.is_file():
        found = json.loads(path.read_text())
        row |= {key: found["summary"][key] for key in ("corrupted_top1", "relative_drop", "mce")}
        row["jpeg"] = {int(q): score for q, score in found["jpeg_curve"].items()}
        row["jpeg_10"] = row["jpeg"][10]
        row["by_severity"] = [
            statistics.fmean(c["top1"][str(s)] for c in found["corruptions"].values()) for s in range(1, 6)
        ]
        row["by_corruption"] = {name: round(c["mean"], 2) for name, c in found["corruptions"].items()}
    path = folder / "jpeg_divergence.json"
    if path.is_file():
        row |= json.loads(path.read_text())
    return row


def over_seeds(rows: list[dict[str, Any]], key: str) -> list[float]:
    """For every seed the mean over the splits where it was measured."""
    measured = [row for row in rows if key in row]
    seeds = sorted({row["seed"] for row in measured})
    return [statistics.fmean(r[key] for r in measured if r["seed"] == seed) for seed in seeds]


def cell(rows: list[dict[str, Any]], key: str) -> str:
    values = over_seeds(rows, key)
    if not values:
        return ""
    digits = 3 if key in ("ece", "kl_quality_10") else 1
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def tables(data: dict[str, dict[str, list[dict[str, Any]]]], scaling: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name, models in data.items():
        count = max(len({row["seed"] for row in rows}) for rows in models.values())
        parts += [f"**{NAMES_OF_DATA[name]}**, {count} seeds, ± standard deviation over them", ""]
        parts += [f"| model | {' | '.join(HEADS)} |", "|---" * (len(HEADS) + 1) + "|"]
        parts += [
            f"| {NAMES[m]} | {' | '.join(cell(rows, key) for key in KEYS)} |" for m, rows in models.items()
        ]
        parts.append("")
    if scaling:
        rates = sorted({key.split("-", 2)[2] for key in scaling}, key=float)
        parts += [
            "**Depth, width and learning rate**: CIFAR, 3 epochs, one seed, top-1 (largest gradient norm)",
            "",
        ]
        parts += [
            f"| model | size | {' | '.join(f'lr {rate}' for rate in rates)} |",
            "|---" * (len(rates) + 2) + "|",
        ]
        for model in ("vit", "videomamba", "stablemamba"):
            for size in SIZES:
                cells = [scaling.get(f"{model}-{size}-{rate}", {}) for rate in rates]
                shown = [f"{c['top1']:.1f} ({c['grad_norm_max']:.1f})" if c else "" for c in cells]
                parts.append(f"| {NAMES[model]} | {size} | {' | '.join(shown)} |")
        parts.append("")
    return "\n".join(parts)


def read_scaling(folder: Path) -> dict[str, Any]:
    """Top-1 and the largest gradient norm of a run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    norms = [row["grad_norm"] for row in rows if row["kind"] == "train"]
    scores = [row["top1"] for row in rows if row["kind"] == "eval"]
    return {"grad_norm_max": max(norms), "top1": scores[-1]}


def plot(data: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Accuracy against severity and along the JPEG curve, a row per data set."""
    shown = {
        n: {m: [r for r in rows if "jpeg" in r] for m, rows in models.items()} for n, models in data.items()
    }
    shown = {n: {m: rows for m, rows in models.items() if rows} for n, models in shown.items()}
    shown = {n: models for n, models in shown.items() if models}
    if not shown:
        return
    figure = Figure(figsize=(9, 3.4 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for (left, right), (name, models) in zip(axes, shown.items(), strict=True):
        for model, rows in models.items():
            severity = [statistics.fmean([r["top1"], *r["by_severity"]][s] for r in rows) for s in range(6)]
            qualities = sorted(rows[0]["jpeg"], reverse=True)
            curve = [statistics.fmean(row["jpeg"][q] for row in rows) for q in qualities]
            style = {"color": COLORS[model], "marker": "o", "markersize": 4, "label": NAMES[model]}
            left.plot(range(6), severity, **style)
            right.plot(range(len(qualities)), curve, **style)
            right.set_xticks(range(len(qualities)), [str(q) for q in qualities])
        left.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
        left.set(title=f"{NAMES_OF_DATA[name]}: 15 corruptions", xlabel="severity", ylabel="top-1 in %")
        right.set(title="JPEG", xlabel="quality")
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
        left.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main(runs: Path) -> None:
    data: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in NAMES_OF_DATA:
        for model in NAMES:
            rows = [read_run(p.parent) for p in sorted((runs / name / model).glob("*seed*/summary.json"))]
            if rows:
                data.setdefault(name, {})[model] = rows
    scaling = {
        p.parent.name: read_scaling(p.parent) for p in sorted((runs / "scaling").glob("*/summary.json"))
    }
    environment = json.loads(next(runs.glob("cifar/*/*/environment.json")).read_text())
    environment = environment[-1] if isinstance(environment, list) else environment
    environment.pop("command", None)  # holds local paths; run.sh is the command
    summary = {"command": "bash results/scan_or_attention/run.sh DATA", "environment": environment}
    summary |= {"data": data, "scaling": scaling}
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    fill_section(HERE / "README.md", "table", tables(data, scaling))
    plot(data, HERE / "plot.png")
    print(tables(data, scaling))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
