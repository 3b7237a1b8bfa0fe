"""Turns what measure.py wrote into summary.json, the tables of the README and the plot.

python results/token_sampling/collect.py runs/token_sampling
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framecast.train.environment import describe_environment
from framecast.viz.palette import PALETTE
from framecast.writing import fill_section

HERE = Path(__file__).parent
TITLES = {
    "gestures": "DINOv2, 350 gestures, unseen viewpoints",
    "cifar": "DINOv2, 1,000 images of CIFAR-10",
    "vit": "ViT of 0.3 M parameters, CIFAR-10",
}
NAMES = {
    "sampled": "sampled",
    "top": "top K by the same score",
    "stride": "evenly spread",
    "random": "random",
}
TUNED = "sampled, fine-tuned"
COLORS = dict(zip(NAMES, PALETTE, strict=False))
MARKERS = {"sampled": "o", "top": "s", "stride": "^", "random": "v"}
DARK = "#3b4350"


def points_of(study: dict[str, Any], select: str) -> list[dict[str, Any]]:
    """Rows of one selection, the dearest first."""
    return sorted((r for r in study["points"] if r["select"] == select), key=lambda r: -r["gmacs"])


def tuned_means(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Fine-tuned models: means over the seeds, one row a budget."""
    budgets = sorted({row["budget"] for row in study.get("tuned", [])}, reverse=True)
    rows = []
    for budget in budgets:
        own = [row for row in study["tuned"] if row["budget"] == budget]
        mean = {
            key: statistics.fmean(r[key] for r in own)
            for key in ("top1", "share", "gmacs", "top1_whole", "seconds")
        }
        rows.append({"budget": budget, "seeds": len(own)} | mean | {"all": [r["top1"] for r in own]})
    return rows


def table(study: dict[str, Any]) -> list[str]:
    full = study["full"]
    heads = [
        "first block",
        "budget",
        "tokens after it",
        "share of multiply-adds",
        "times faster",
        *NAMES.values(),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines.append(
        f"| none |  |  | 1 ({full['gmacs']:.3g} G) | 1 ({full['ms']:.3g} ms) | {full['top1']:.1f} | | | |"
    )
    by_place = {
        select: {(r["first_block"], r["budget"]): r for r in points_of(study, select)} for select in NAMES
    }
    for place, ours in by_place["sampled"].items():
        cells = []
        for select in NAMES:
            row = by_place[select][place]
            spread = f" ± {row['top1_std']:.1f}" if "top1_std" in row else ""
            cells.append(
                f"{row['top1']:.1f}{spread}" + ("" if select == "sampled" else f" ({row['share']:.2f})")
            )
        figures = [f"{ours['tokens'][0]:.0f}", f"{ours['share']:.2f}", f"{ours['speed']:.2f}"]
        lines.append(f"| {place[0]} | {place[1]} | {' | '.join([*figures, *cells])} |")
    return lines


def tables(studies: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name, study in studies.items():
        what = "top-1 in %, in brackets the share of the multiply-adds"
        parts += [f"**{TITLES[name]}**: {what}", "", *table(study), ""]
        if tuned := tuned_means(study):
            before = {r["budget"]: r["top1"] for r in points_of(study, "sampled") if r["first_block"] == 1}
            parts += [
                "**The same after fine-tuning through the sampling**, 3 epochs from the trained model",
                "",
                "| budget | share of multiply-adds | before | after | after, all tokens | seconds a run |",
                "|---|---|---|---|---|---|",
                f"| none | 1 | {study['full']['top1']:.1f} | | {whole_after(study)} |",
            ]
            parts += [
                f"| {r['budget']} | {r['share']:.2f} | {before[r['budget']]:.1f} | {r['top1']:.1f} "
                f"| {r['top1_whole']:.1f} | {r['seconds']:.0f} |"
                for r in tuned
            ]
            parts.append("")
        if "int8" in study:
            parts += [
                f"**int8 on top**, {TITLES[name]}",
                "",
                "| setting | same class as float32, % | top-1, int8 | top-1, float32 | times faster |",
                "|---|---|---|---|---|",
            ]
            for r in study["int8"]:
                setting = "all tokens" if r["setting"] == "whole" else f"budget {r['setting']}"
                figures = (r["agreement"], r["top1"], r["top1_float32"])
                parts.append(f"| {setting} | {' | '.join(f'{x:.1f}' for x in figures)} | {r['speed']:.2f} |")
            parts.append("")
    return "\n".join(parts)


def whole_after(study: dict[str, Any]) -> str:
    own = study["tuned_whole"]
    seconds = statistics.fmean(r["seconds"] for r in own)
    return f"{statistics.fmean(r['top1'] for r in own):.1f} | {seconds:.0f}"


def draw(axis: Axes, study: dict[str, Any], key: str) -> None:
    full = study["full"]
    axis.axhline(full["top1"], color=DARK, lw=1, ls=(0, (4, 3)))
    axis.plot(full[key], full["top1"], marker="*", ms=12, color=DARK, ls="", label="all tokens")
    for select, name in reversed(NAMES.items()):
        rows = points_of(study, select)
        style: dict[str, Any] = {
            "color": COLORS[select],
            "marker": MARKERS[select],
            "ms": 5,
            "lw": 2 if select == "sampled" else 1.2,
        }
        axis.plot([r[key] for r in rows], [r["top1"] for r in rows], label=name, **style)
    tuned = tuned_means(study)
    if tuned and key == "gmacs":
        style = {"ls": "", "marker": "D", "ms": 7, "mfc": "none", "mec": COLORS["sampled"], "mew": 1.8}
        axis.plot([r[key] for r in tuned], [r["top1"] for r in tuned], label=TUNED, **style)
    axis.set_xlim(0, 1.05 * max(full[key], *(row[key] for row in study["points"])))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e4e7eb", lw=0.8)


def plot(studies: dict[str, dict[str, Any]], path: Path) -> None:
    """A column per model and data; above against multiply-adds, below against time."""
    figure = Figure(figsize=(4.3 * len(studies), 6.6), layout="constrained")
    axes = figure.subplots(2, len(studies), squeeze=False)
    for column, (name, study) in enumerate(studies.items()):
        above, below = axes[0][column], axes[1][column]
        draw(above, study, "gmacs")
        draw(below, study, "ms")
        above.set_title(TITLES[name], fontsize=10)
        above.set_xlabel("G multiply-adds an image, mean")
        below.set_xlabel("CPU ms an image, one thread, batches of 8")
    for row in axes:
        row[0].set_ylabel("top-1 in %")
    handles, labels = axes[0][-1].get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    order = [name for name in ("all tokens", *NAMES.values(), TUNED) if name in known]
    figure.legend(
        [known[name] for name in order],
        order,
        loc="outside lower center",
        ncols=2 * len(studies),
        frameon=False,
    )
    figure.savefig(path, dpi=130)


def main(runs: Path) -> None:
    studies = {
        n: json.loads((runs / f"{n}.json").read_text()) for n in TITLES if (runs / f"{n}.json").is_file()
    }
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command", None)  # holds local paths; run.sh is the command
    summary = {
        "command": "bash results/token_sampling/run.sh DATA",
        "environment": environment,
        "studies": studies,
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    fill_section(HERE / "README.md", "table", tables(studies))
    plot(studies, HERE / "plot.png")
    print(tables(studies))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
