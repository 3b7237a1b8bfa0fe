"""Quality against cost of sampled futures: how they are drawn, in how many steps, how many of them.

    python results/anticipation/cost.py runs/anticipation/breakfast DATA/breakfast --split 1 --max-videos 60

Writes cost.json, the table cost.md and the plot cost.png here. Seconds are of one thread, per forecast.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from framecast.checkpoints import load
from framecast.data.anticipation import AnticipationData, open_anticipation
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.models.anticipation_baselines import create_forecaster
from framecast.tasks.forecasting import Sampling, forecast_video

HERE = Path(__file__).parent
HORIZONS, SHARES = (0.1, 0.2, 0.3, 0.5), (0.2, 0.3)
VARIANTS = (
    *(Sampling(steps=steps) for steps in (2, 5, 10, 25, 50)),
    *(Sampling(steps=steps, draw="redrawn") for steps in (2, 4, 8)),
    *(Sampling(steps=4, draw="redrawn", temperature=t) for t in (0.0, 0.5, 1.5, 2.0)),
    *(Sampling(steps=4, draw="redrawn", samples=n) for n in (1, 5, 50)),
    *(Sampling(steps=2, draw="coupled", temperature=t) for t in (0.0, 0.6)),
)


def measured(model: Any, data: AnticipationData, videos: list[int], sampling: Sampling) -> dict[str, float]:
    """Mean and top-1 MoC over all settings, in percent, and seconds of a forecast."""
    metrics = AnticipationMetrics(data.classes, frames_per_second=data.frames_per_second)
    start = time.process_time()
    for video in videos:
        for share in SHARES:
            labels, chances = forecast_video(model, data, video, share, max(HORIZONS), sampling)
            metrics.update(
                labels, data.annotation(video), share, video=data.videos[video], probabilities=chances
            )
    seconds = (time.process_time() - start) / (len(videos) * len(SHARES))
    scores = metrics.compute("anticipation/official-any")
    settings = [f"{round(100 * s)}/{round(100 * h)}" for s in SHARES for h in HORIZONS]
    names = ("mean_moc", "top1_moc", "diversity")
    return {name: float(np.mean([scores[f"{name}@{s}"] for s in settings])) for name in names} | {
        "seconds": seconds
    }


def described(sampling: Sampling) -> str:
    what = {"walks": "walks", "redrawn": "redrawn", "coupled": "coupled"}[sampling.draw]
    warmth = "" if sampling.draw == "walks" else f", temperature {sampling.temperature:g}"
    return f"{what}, {sampling.steps} steps{warmth}, {sampling.samples} futures"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Mean against top-1 MoC, and top-1 against seconds."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = {"manta": "#d1495b", "gtda": "#2f7ab8", "baseline": "#6b7680"}
    marks = {"walks": "o", "redrawn": "D", "coupled": "s", "": "x"}
    for row in rows:
        style = {"color": colors[row["model"]], "marker": marks[row["draw"]], "s": 36}
        left.scatter(row["mean_moc"], row["top1_moc"], **style)
        if row["model"] == "baseline":
            left.annotate(row["name"], (row["mean_moc"], row["top1_moc"]), fontsize=7, color="#6b7680")
        elif row["samples"] == 25:
            right.scatter(row["seconds"], row["top1_moc"], **style)
    for name, color in list(colors.items())[:2]:
        if any(row["model"] == name for row in rows):
            left.scatter([], [], color=color, label=name.upper())
    for draw in ("walks", "redrawn", "coupled"):
        left.scatter([], [], color="k", marker=marks[draw], label=draw)
    left.legend(fontsize=7, frameon=False)
    left.set_xlabel("mean MoC of 25 futures")
    left.set_ylabel("MoC of the best of them")
    right.set_xlabel("seconds for 25 futures of a video, one thread")
    right.set_xscale("log")
    right.set_ylabel("MoC of the best of 25")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--max-videos", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    test = open_anticipation(given.data, split=given.split, subset="test")
    step = max(1, len(test) // given.max_videos)
    videos = list(range(0, len(test), step))[: given.max_videos]
    train = open_anticipation(given.data, split=given.split, subset="train")
    seen = [train.annotation(i) for i in range(len(train))]
    for name in ("repeat_last", "ngram", "grammar", "transcript_sampler"):
        fitted = create_forecaster(name).fit(seen, len(train.classes))
        found = measured(fitted, test, videos, Sampling())
        rows.append({"model": "baseline", "name": name, "draw": "", "samples": 25, **found})
    for model in ("gtda", "manta"):
        folder = given.runs / f"labels_{model}" / f"split{given.split}-seed0"
        if not (folder / "model").is_dir():
            print(f"{folder} is not there; left out")
            continue
        network = load(folder / "model").eval()
        rate = network.card.sample_rate
        data = open_anticipation(given.data, split=given.split, subset="test", sample_rate=rate)
        for sampling in VARIANTS:
            found = measured(network, data, videos, sampling)
            about = {"name": described(sampling), "draw": sampling.draw, "samples": sampling.samples}
            rows.append({"model": model, **about, **found})
            print(model, rows[-1]["name"], {k: round(v, 3) for k, v in found.items()}, flush=True)
    command = f"python results/anticipation/cost.py {given.runs} {given.data} --split {given.split}"
    summary = {"command": command, "videos": len(videos), "split": given.split, "rows": rows}
    (HERE / "cost.json").write_text(json.dumps(summary, indent=1) + "\n")
    lines = ["| model | futures | mean MoC | top-1 MoC | diversity | seconds |", "|---" * 6 + "|"]
    for row in rows:
        cells = [f"{row['mean_moc']:.1f}", f"{row['top1_moc']:.1f}", f"{row['diversity']:.2f}"]
        cells.append(f"{row['seconds']:.2g}")
        lines.append(f"| {row['model']} | {row['name'].replace('_', ' ')} | {' | '.join(cells)} |")
    (HERE / "cost.md").write_text("\n".join(lines) + "\n")
    plot(rows, HERE / "cost.png")


if __name__ == "__main__":
    main()
