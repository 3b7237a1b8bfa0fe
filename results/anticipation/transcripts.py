"""Where are trained models ahead of counting? Videos whose course was seen in training, and others.

    python results/anticipation/transcripts.py DATA runs/anticipation

A test video is familiar, at 20 or 30 % of it, if a training video of the split begins with the same actions
in the same order as this one up to the end of what is asked for (70 or 80 %). MoC of 25 futures is counted
apart for familiar videos of Breakfast and for the others, the mean of the splits; of 50Salads, where hardly
any is familiar, only their share. Nothing is trained. Writes transcripts.json, transcripts.png, and the table
into the README.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from framecast.checkpoints import load
from framecast.data.anticipation import open_anticipation
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.models.anticipation_baselines import create_forecaster
from framecast.tasks.forecasting import Sampling, forecast_video
from framecast.train.environment import describe_environment
from framecast.writing import fill_section

HERE = Path(__file__).parent
SPLITS = {"breakfast": (1, 2, 3, 4), "50salads": (1, 2, 3, 4, 5)}
SHARES, LONGEST, PROTOCOL = (0.2, 0.3), 0.5, "anticipation/official-25"
MODELS = {  # name in the table: model, temperature
    "repeat the last action": ("repeat_last", None),
    "n-gram": ("ngram", None),
    "grammar": ("grammar", None),
    "transcript sampler": ("transcript_sampler", None),
    "GTDA": ("labels_gtda", None),
    "MANTA": ("labels_manta", None),
    "GTDA, temperature 0.5": ("labels_gtda", 0.5),
    "MANTA, temperature 0.5": ("labels_manta", 0.5),
}
ASIDE = {"n-gram": (-6, 3), "grammar": (-6, -9), "GTDA": (6, -9), "GTDA, temperature 0.5": (6, -9)}  # labels
SIDES = ("all", "familiar", "new")


def transcript(labels: np.ndarray) -> tuple[int, ...]:
    """Actions in their order."""
    return tuple(int(label) for label, _ in groupby(labels))


def familiar(labels: np.ndarray, share: float, known: list[tuple[int, ...]]) -> bool:
    """Whether a training video goes the same way to the end of what is asked for."""
    course = transcript(labels[: int((share + LONGEST) * len(labels))])
    return any(other[: len(course)] == course for other in known)


def forecaster(
    runs: Path, root: Path, split: int, name: str, temperature: float | None
) -> tuple[Any, float, Sampling]:
    """A model of the split, the rate at which it reads labels, and how its futures are drawn."""
    folder = runs / name / f"split{split}-seed0" / "model"
    if not name.startswith("labels_"):
        train = open_anticipation(root, split=split, subset="train")
        seen = [train.annotation(i) for i in range(len(train))]
        return create_forecaster(name).fit(seen, len(train.classes)), train.sample_rate, Sampling()
    model: Any = load(folder).eval()
    sampling = Sampling(**model.card.notes["sampling"])
    sampling = sampling if temperature is None else replace(sampling, temperature=temperature)
    return model, model.card.sample_rate, sampling


def courses(root: Path, split: int) -> list[tuple[int, ...]]:
    train = open_anticipation(root, split=split, subset="train")
    return [transcript(train.annotation(i)) for i in range(len(train))]


def share_of_familiar(root: Path, splits: tuple[int, ...]) -> float:
    found = []
    for split in splits:
        test, known = open_anticipation(root, split=split, subset="test"), courses(root, split)
        found += [familiar(test.annotation(v), share, known) for v in range(len(test)) for share in SHARES]
    return float(np.mean(found))


def scored(
    runs: Path, root: Path, splits: tuple[int, ...], name: str, temperature: float | None
) -> dict[str, dict[str, float]]:
    """MoC of all videos, of familiar ones and of new ones, and how many there are; means of the splits."""
    runs_of: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for split in splits:
        model, rate, sampling = forecaster(runs, root, split, name, temperature)
        test = open_anticipation(root, split=split, subset="test", sample_rate=rate)
        known = courses(root, split)
        found = {side: AnticipationMetrics(test.classes) for side in SIDES}
        for video, share in ((v, s) for v in range(len(test)) for s in SHARES):
            labels = test.annotation(video)
            futures, _ = forecast_video(model, test, video, share, LONGEST, sampling)
            for side in ("all", "familiar" if familiar(labels, share, known) else "new"):
                found[side].update(futures, labels, share, video=test.videos[video])
        for side, metrics in found.items():
            runs_of[side].append(metrics.compute(PROTOCOL) | {"cases": len(metrics)})
    means = {
        side: {key: statistics.fmean(run[key] for run in each) for key in each[0]}
        for side, each in runs_of.items()
    }
    return {side: row | {"cases": sum(run["cases"] for run in runs_of[side])} for side, row in means.items()}


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"| | {' | '.join(f'{side}: mean | top-1' for side in SIDES)} |", "|---" * 7 + "|"]
    for name, sides in rows.items():
        cells = [f"{sides[side][key]:.1f}" for side in SIDES for key in ("mean_moc", "top1_moc")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Mean against best of 25 futures, of familiar videos and of new ones."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    colors = {"GTDA": "#2f7ab8", "MANTA": "#d1495b"}
    titles = {"familiar": "course seen in training", "new": "course not seen in training"}
    for axis, side in zip(figure.subplots(1, 2, sharex=True, sharey=True), titles, strict=True):
        for name, sides in rows.items():
            color = next((c for key, c in colors.items() if name.startswith(key)), "#6b7680")
            marker = "s" if "temperature" in name else "o" if color != "#6b7680" else "X"
            place = (sides[side]["mean_moc"], sides[side]["top1_moc"])
            axis.scatter(*place, s=44, marker=marker, color=color)
            beside = ASIDE.get(name, (6, -3))
            side_of = "right" if beside[0] < 0 else "left"
            axis.annotate(
                name, place, beside, textcoords="offset points", fontsize=7, color=color, ha=side_of
            )
        cases, every = (rows["n-gram"][which]["cases"] for which in (side, "all"))
        axis.set_title(f"{titles[side]}: {100 * cases / every:.0f} % of the cases", fontsize=10)
        axis.set_xlabel("mean MoC of 25 futures")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.25)
    figure.axes[0].set_ylabel("MoC of the best of 25")
    figure.savefig(path, dpi=130)


def main(data: Path, runs: Path) -> None:
    torch.set_num_threads(1)
    began = time.time()
    shares = {name: share_of_familiar(data / name, splits) for name, splits in SPLITS.items()}
    print("familiar:", {name: round(share, 3) for name, share in shares.items()}, flush=True)
    rows: dict[str, Any] = {}
    for title, (name, temperature) in MODELS.items():
        found = scored(runs / "breakfast", data / "breakfast", SPLITS["breakfast"], name, temperature)
        rows[title] = found
        means = {side: (round(r["mean_moc"], 1), round(r["top1_moc"], 1)) for side, r in found.items()}
        print(title, means, flush=True)
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command")
    summary = {
        "command": "python results/anticipation/transcripts.py DATA runs/anticipation",
        "seed": 0,
        "familiar": shares,
        "rows": rows,
        "wall_seconds": round(time.time() - began),
        "environment": environment,
    }
    (HERE / "transcripts.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(rows, HERE / "transcripts.png")
    fill_section(HERE / "README.md", "transcripts", table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
