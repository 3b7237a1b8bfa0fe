"""Quality against cost of sampled futures: how they are drawn, in how many steps, how many of them.

    python results/anticipation/cost.py runs/anticipation/breakfast DATA/breakfast --split 1 --max-videos 60

Writes cost.json and the plot cost.png here, and the table into the README. Seconds are of one thread, per
forecast.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from framecast.checkpoints import load
from framecast.data.anticipation import AnticipationData, open_anticipation
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.models.anticipation_baselines import create_forecaster
from framecast.tasks.forecasting import Sampling, forecast_video
from framecast.train.environment import describe_environment
from framecast.writing import fill_section

HERE = Path(__file__).parent
HORIZONS, SHARES = (0.1, 0.2, 0.3, 0.5), (0.2, 0.3)
PROTOCOL = "anticipation/official-any"
WARMTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
NUMBERS = (1, 5, 10, 25, 50, 100)
VARIANTS = (
    *(Sampling(steps=steps) for steps in (2, 5, 10, 25, 50)),
    *(Sampling(steps=steps, solver="dpm++2m") for steps in (5, 10)),
    *(Sampling(steps=steps, draw="redrawn") for steps in (2, 4, 8, 16)),
    *(Sampling(steps=4, draw="redrawn", temperature=t) for t in WARMTHS if t != 1),
    *(Sampling(steps=4, draw="redrawn", samples=n) for n in NUMBERS if n != 25),
    *(Sampling(steps=2, draw="coupled", temperature=t) for t in (0.0, 0.6)),
)
MODELS = {"gtda": "#2f7ab8", "manta": "#d1495b"}
STYLES = {"walks": ("o", "-"), "redrawn": ("D", "--"), "coupled": ("s", ":")}
GREY = "#6b7680"


def measured(model: Any, data: AnticipationData, videos: list[int], sampling: Sampling) -> dict[str, float]:
    """Means over all settings, MoC in percent, and seconds of a forecast."""
    metrics = AnticipationMetrics(data.classes, frames_per_second=data.frames_per_second)
    seconds = 0.0
    for video in videos:
        for share in SHARES:
            start = time.process_time()
            labels, chances = forecast_video(model, data, video, share, max(HORIZONS), sampling)
            seconds += time.process_time() - start
            metrics.update(
                labels, data.annotation(video), share, video=data.videos[video], probabilities=chances
            )
    scores = metrics.compute(PROTOCOL) | metrics.uncertainty(PROTOCOL)
    names = ("mean_moc", "top1_moc", "diversity", "brier", "crps", "ece")
    return {name: scores[name] for name in names} | {"seconds": seconds / (len(videos) * len(SHARES))}


def described(sampling: Sampling) -> dict[str, Any]:
    solver = "" if sampling.solver == "ddim" else f" ({sampling.solver})"
    warmth = "" if sampling.draw == "walks" else f", temperature {sampling.temperature:g}"
    return {
        "name": f"{sampling.draw}{solver}, {sampling.steps} steps{warmth}",
        "draw": sampling.draw,
        "solver": sampling.solver,
        "steps": sampling.steps,
        "temperature": sampling.temperature,
        "samples": sampling.samples,
    }


Row = dict[str, Any]


def line(
    axis: Axes, rows: list[Row], x: str, y: str, color: str, draw: str, label: str = "", text: str = ""
) -> None:
    """Rows joined in the order of `text`, which is written beside each point."""
    rows = sorted(rows, key=lambda row: row[text] if text else row[x])
    marker, dashes = STYLES[draw]
    xs, ys = [row[x] for row in rows], [row[y] for row in rows]
    axis.plot(xs, ys, color=color, marker=marker, linestyle=dashes, ms=4.5, lw=1.4, label=label)
    for row in rows if text else ():
        axis.annotate(
            f"{row[text]:g}", (row[x], row[y]), (3, 4), textcoords="offset points", fontsize=7, color=color
        )


def plot(rows: list[Row], path: Path) -> None:
    """What steps, temperature and the number of futures bring and cost."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    steps, warmth, many = figure.subplots(1, 3)

    def of(model: str, keep: Callable[[Row], bool]) -> list[Row]:
        return [row for row in rows if row["model"] == model and keep(row)]

    for model, color in MODELS.items():
        if not of(model, lambda row: True):
            continue
        for draw in ("walks", "redrawn"):
            found = of(
                model,
                lambda row, draw=draw: (
                    row["draw"] == draw
                    and row["samples"] == 25
                    and row["temperature"] == 1
                    and row["solver"] == "ddim"
                ),
            )
            line(steps, found, "seconds", "brier", color, draw, f"{model.upper()}, {draw}", text="steps")
        found = of(model, lambda row: row["draw"] == "redrawn" and row["steps"] == 4 and row["samples"] == 25)
        name = model.upper()
        line(warmth, found, "mean_moc", "top1_moc", color, "redrawn", f"{name}, redrawn", "temperature")
        found = of(model, lambda row: row["draw"] == "walks" and row["steps"] == 50)
        line(warmth, found, "mean_moc", "top1_moc", color, "walks", f"{name}, walks of 50 steps")
        found = of(
            model, lambda row: row["draw"] == "redrawn" and row["steps"] == 4 and row["temperature"] == 1
        )
        line(many, found, "samples", "top1_moc", color, "walks", f"{name}, best one")
        line(many, found, "samples", "mean_moc", color, "redrawn", f"{name}, mean of all")
    for row in of("baseline", lambda row: True):
        warmth.scatter(row["mean_moc"], row["top1_moc"], color=GREY, marker="x", s=28)
        warmth.annotate(
            row["name"].replace("_", " "),
            (row["mean_moc"], row["top1_moc"]),
            (5, -3),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )
    steps.set_title("More steps (numbers): cost and error", fontsize=10)
    steps.set_xlabel("seconds for 25 futures of a video, one thread")
    steps.set_ylabel("Brier score of the chances (lower is better)")
    steps.set_xscale("log")
    warmth.set_title("Higher temperature (numbers): spread for the mean", fontsize=10)
    warmth.set_xlabel("MoC, mean of 25 futures")
    warmth.set_ylabel("MoC of the best of them")
    warmth.margins(x=0.16)
    many.set_title("More futures (redrawn, 4 steps)", fontsize=10)
    many.set_xlabel("number of futures")
    many.set_ylabel("MoC")
    many.set_xscale("log")
    many.set_xticks(NUMBERS, [str(n) for n in NUMBERS])
    many.minorticks_off()
    for axis in (steps, warmth, many):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=130)


def table(rows: list[Row]) -> str:
    heads = ["model", "how futures are drawn", "futures", "mean MoC", "top-1 MoC", "diversity", "Brier"]
    heads += ["CRPS", "ECE", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["model"], row["name"].replace("_", " "), str(row["samples"])]
        cells += [f"{row['mean_moc']:.1f}", f"{row['top1_moc']:.1f}"]
        cells += [f"{row[key]:.2f}" for key in ("diversity", "brier", "crps", "ece")]
        lines.append(f"| {' | '.join([*cells, format(row['seconds'], '.2g')])} |")
    return "\n".join(lines) + "\n"


def write(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    (HERE / "cost.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(rows, HERE / "cost.png")
    fill_section(HERE / "README.md", "cost", table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--max-videos", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    rows: list[Row] = []
    test = open_anticipation(given.data, split=given.split, subset="test")
    step = max(1, len(test) // given.max_videos)
    videos = list(range(0, len(test), step))[: given.max_videos]
    train = open_anticipation(given.data, split=given.split, subset="train")
    seen = [train.annotation(i) for i in range(len(train))]
    for name in ("repeat_last", "ngram", "grammar", "transcript_sampler"):
        fitted = create_forecaster(name).fit(seen, len(train.classes))
        found = measured(fitted, test, videos, Sampling())
        rows.append({"model": "baseline", "name": name, "draw": "", "samples": 25, **found})
    for model in MODELS:
        folder = given.runs / f"labels_{model}" / f"split{given.split}-seed0"
        if not (folder / "model").is_dir():
            print(f"{folder} is not there; left out")
            continue
        network: Any = load(folder / "model").eval()
        rate = network.card.sample_rate
        data = open_anticipation(given.data, split=given.split, subset="test", sample_rate=rate)
        for sampling in VARIANTS:
            found = measured(network, data, videos, sampling)
            rows.append({"model": model, **described(sampling), **found})
            print(
                model,
                rows[-1]["name"],
                rows[-1]["samples"],
                {k: round(v, 3) for k, v in found.items()},
                flush=True,
            )
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command")
    write(
        {
            "command": f"python results/anticipation/cost.py runs/anticipation/{given.runs.name} "
            f"DATA/{given.data.name} --split {given.split} --max-videos {given.max_videos}",
            "videos": len(videos),
            "of_videos": len(test),
            "split": given.split,
            "seed": 0,
            "rows": rows,
            "wall_seconds": round(time.time() - began),
            "environment": environment,
        }
    )


if __name__ == "__main__":
    main()
