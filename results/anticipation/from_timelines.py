"""Futures from a timeline that a network made, beside futures from the true one, on the same videos.

    python results/anticipation/from_timelines.py results/anticipation_video --data DATA/fir_actions ...

See run.sh of results/anticipation_video and results/anticipation_scores. Every segmentation model sees the
features of the observed part alone, and was trained without the video, as was every forecaster. Writes
summary.json, plot.png and the tables of the README into the folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from framecast.checkpoints import load
from framecast.data.anticipation import AnticipationData, open_anticipation
from framecast.data.segmentation import SegmentationData, open_segmentation
from framecast.infer.baselines import FittedBaseline
from framecast.infer.forecaster import Forecaster
from framecast.infer.predictor import Predictor
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.structures import FeatureTrack, Segments
from framecast.tasks.forecasting import Sampling, collect_futures
from framecast.train.environment import describe_environment
from framecast.train.study import study_evidence
from framecast.writing import fill_section

PROTOCOL = "anticipation/official-25"
SHARES, HORIZONS, SAMPLES = (0.2, 0.3), (0.1, 0.2, 0.3, 0.5), 25
SETTINGS = [f"{seen}/{ahead}" for seen in (20, 30) for ahead in (10, 20, 30, 50)]
BASELINES = ("repeat_last", "ngram", "transcript_sampler")
NAMES = {
    "repeat_last": "repeat the last action",
    "ngram": "n-gram",
    "transcript_sampler": "transcript sampler",
    "manta": "MANTA",
}
COLUMNS = {
    "mean_moc": "mean MoC",
    "top1_moc": "top-1 MoC",
    "accuracy": "accuracy",
    "diversity": "diversity",
    "brier": "Brier",
    "crps": "CRPS",
    "ece": "ECE",
}
TRUTH, DIRECT = "the labels", ("features alone", "none")
COLORS = {"true": "#2b2f36", "most probable": "#2f7ab8", "drawn": "#d1495b", "none": "#c2b280"}


def observers(given: argparse.Namespace, split: int, seed: int) -> dict[str, Any]:
    """Name -> what makes segments of a feature track: segmentation models, or the scores themselves."""
    found: dict[str, Any] = {}
    for entry in given.segmenters:
        name, folder = entry.split("=", 1)
        found[name] = Predictor(Path(folder) / f"split{split}-seed{seed}" / "model")
    if given.scores:
        found[given.scores] = Scores(opened(given, split, "train"))
    return found


class Scores:
    """Features that are class scores, as a timeline: softmax, as sharp as fits the training side."""

    def __init__(self, data: SegmentationData) -> None:
        self.classes = data.classes
        videos = [data[i] for i in range(len(data))]
        logits = torch.from_numpy(np.concatenate([v["features"] for v in videos], axis=1).T)
        labels = torch.from_numpy(np.concatenate([v["labels"] for v in videos]))
        scales = 2.0 ** np.arange(-4, 6, 0.25)
        losses = [float(torch.nn.functional.cross_entropy(logits * s, labels)) for s in scales]
        self.scale = float(scales[int(np.argmin(losses))])

    def __call__(self, track: FeatureTrack) -> Segments:
        chances = (torch.from_numpy(track.values) * self.scale).softmax(0).numpy()
        labels = chances.argmax(0)
        return Segments.from_frames(labels, self.classes, times=track.times, frame_probs=chances)


def opened(given: argparse.Namespace, split: int, subset: str) -> SegmentationData:
    options: dict[str, Any] = {"layout": given.layout, "split": split, "subset": subset, "folds": given.folds}
    return open_segmentation(given.data, features=given.features, **options)


def labelled(given: argparse.Namespace, split: int, subset: str, **options: Any) -> AnticipationData:
    options |= {"layout": given.layout, "split": split, "subset": subset, "folds": given.folds}
    return open_anticipation(given.data, features=given.features, label_fps=given.label_fps, **options)


def timelines(
    given: argparse.Namespace, split: int, seed: int
) -> Iterator[tuple[int, float, str, str, Segments]]:
    """(test video, observed share, who observed, how, what was seen) of a split."""
    labels, features = labelled(given, split, "test"), opened(given, split, "test")
    assert labels.videos == features.videos
    watching = observers(given, split, seed)
    for video in range(len(labels)):
        truth, sample = labels.annotation(video), features[video]
        values = sample["features"]
        times = sample["times"]
        times = np.arange(values.shape[1]) / given.label_fps if times is None else times
        for share in SHARES:
            frames = int(share * len(truth))
            if seed == given.seeds[0]:
                seen = np.arange(frames) / given.label_fps
                true = Segments.from_frames(truth[:frames], labels.classes, times=seen)
                yield video, share, TRUTH, "true", true
            shown = times < frames / given.label_fps - 1e-9
            track = FeatureTrack(values[:, shown], times[shown], features.provenance)
            for name, watch in watching.items():
                segments = watch(track)
                yield video, share, name, "most probable", replace(segments, frame_probs=None)
                yield video, share, name, "drawn", segments


def observed_right(segments: Segments, truth: np.ndarray, fps: float) -> tuple[float, float]:
    """Share of observed frames that the timeline has right, and 1 where the running action is."""
    assert segments.times is not None
    place = np.searchsorted(segments.times, np.arange(len(truth)) / fps + 1e-9, side="right") - 1
    labels = segments.frame_labels[place]
    return float((labels == truth).mean()), float(labels[-1] == truth[-1])


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Rows of scores: who observed, how, who forecast."""
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    seen_right: dict[str, list[tuple[float, float]]] = {}
    for seed in given.seeds:
        metrics: dict[tuple[str, str, str], list[AnticipationMetrics]] = {}
        for split in given.splits:
            train, test = labelled(given, split, "train"), labelled(given, split, "test")
            models = {name: Forecaster(FittedBaseline(name, train)) for name in BASELINES}
            models["manta"] = Forecaster(given.forecaster / f"split{split}-seed0" / "model")
            started: set[tuple[str, str, str]] = set()
            for video, share, who, how, seen in timelines(given, split, seed):
                truth = test.annotation(video)
                if how != "drawn":
                    right = observed_right(seen, truth[: int(share * len(truth))], given.label_fps)
                    seen_right.setdefault(who, []).append(right)
                for name, forecaster in models.items():
                    key = (who, how, name)
                    if key not in started:
                        started.add(key)
                        empty = AnticipationMetrics(test.classes, frames_per_second=given.label_fps)
                        metrics.setdefault(key, []).append(empty)
                    futures = forecast(forecaster, seen, truth, share, given.label_fps, video)
                    metrics[key][-1].update(futures, truth, share, video=test.videos[video])
            if given.direct is not None and seed == given.seeds[0]:
                folder = given.direct / f"split{split}-seed0" / "model"
                metrics.setdefault((*DIRECT, "manta"), []).append(from_features(given, split, folder))
            print(f"seed {seed} split {split}", flush=True)
        for key, found in metrics.items():
            if given.pooled:
                for other in found[1:]:
                    found[0].merge(other)
                found = found[:1]
            scores = [m.compute(PROTOCOL) | m.uncertainty(PROTOCOL) for m in found]
            rows.setdefault(key, []).append(
                {name: statistics.fmean(s[name] for s in scores) for name in scores[0]}
            )
    return {
        "rows": [
            {"observer": who, "timeline": how, "forecaster": name, "mean": averaged(found), "per_seed": found}
            for (who, how, name), found in rows.items()
        ],
        "observed": {who: np.mean(found, axis=0).tolist() for who, found in seen_right.items()},
    }


def from_features(given: argparse.Namespace, split: int, folder: Path) -> AnticipationMetrics:
    """Futures of a model that observes features, without a timeline."""
    network: Any = load(folder).eval()
    rate = network.card.sample_rate
    data = labelled(given, split, "test", observe="features", sample_rate=rate)
    return collect_futures(network, data, PROTOCOL, Sampling(**network.card.notes["sampling"]))


def averaged(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in found) for name in found[0]}


def forecast(
    forecaster: Forecaster, seen: Segments, truth: np.ndarray, share: float, fps: float, video: int
) -> np.ndarray:
    """(S, M) labels of the frames that follow the observed share, at the rate of the labels."""
    frames = len(truth)
    coming = int((share + max(HORIZONS)) * frames) - int(share * frames)
    assert forecaster.step_s is not None
    rate = max(1, round(forecaster.step_s * fps))
    told = frames / fps if isinstance(forecaster.model, FittedBaseline) else None
    forecaster.sampling = replace(forecaster.sampling, samples=SAMPLES, seed=1000 * video)
    futures = forecaster(seen, steps=-(-coming // rate), length_s=told)
    return np.repeat(futures.samples, rate, axis=1)[:, :coming]


def table(summary: dict[str, Any], metric: str) -> list[str]:
    heads = ["past seen by", "timeline", "forecaster", *(s.replace("/", " → ") for s in SETTINGS), "mean"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in summary["rows"]:
        cells = [f"{row['mean'][f'{metric}@{s}']:.1f}" for s in SETTINGS] + [f"{row['mean'][metric]:.1f}"]
        name = NAMES[row["forecaster"]]
        lines.append(f"| {row['observer']} | {row['timeline']} | {name} | {' | '.join(cells)} |")
    return lines


def tables(summary: dict[str, Any]) -> str:
    lines = ["| past seen by | frames right | running action right |", "|---|---|---|"]
    for who, (right, now) in summary["observed"].items():
        lines.append(f"| {who} | {100 * right:.1f} | {100 * now:.1f} |")
    lines += ["", "**All settings together**", ""]
    lines.append(f"| past seen by | timeline | forecaster | {' | '.join(COLUMNS.values())} |")
    lines.append("|---" * (3 + len(COLUMNS)) + "|")
    for row in summary["rows"]:
        cells = [
            format(row["mean"][key], ".1f" if key in ("mean_moc", "top1_moc", "accuracy") else ".2f")
            for key in COLUMNS
        ]
        cells = [row["observer"], row["timeline"], NAMES[row["forecaster"]], *cells]
        lines.append(f"| {' | '.join(cells)} |")
    for title, metric in (("25 futures, mean MoC", "mean_moc"), ("25 futures, top-1 MoC", "top1_moc")):
        lines += ["", f"**{title}** (% seen → % ahead)", "", *table(summary, metric)]
    return "\n".join(lines) + "\n"


def plot(summary: dict[str, Any], path: Path) -> None:
    """Mean MoC of every forecaster, a bar for each timeline."""
    rows = summary["rows"]
    kinds = list(dict.fromkeys((row["observer"], row["timeline"]) for row in rows))
    names = [name for name in NAMES if any(row["forecaster"] == name for row in rows)]
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (
        ("mean_moc", "MoC, mean of 25 futures (higher is better)"),
        ("brier", "Brier score of the chances (lower is better)"),
    )
    hatches = dict(zip(dict.fromkeys(who for who, _ in kinds), ("", "", "///", "..."), strict=False))
    for axis, (metric, label) in zip(axes, panels, strict=True):
        wide = 0.8 / len(kinds)
        for i, (who, how) in enumerate(kinds):
            own = [row for row in rows if (row["observer"], row["timeline"]) == (who, how)]
            found = {row["forecaster"]: row["mean"][metric] for row in own}
            places = [p + (i - len(kinds) / 2 + 0.5) * wide for p, n in enumerate(names) if n in found]
            axis.bar(
                places,
                [found[n] for n in names if n in found],
                wide * 0.92,
                color=COLORS[how],
                hatch=hatches[who],
                edgecolor="white",
                linewidth=0,
                label={"true": "true labels", "none": "no timeline, but features"}.get(how, f"{who}, {how}"),
            )
        axis.set_xticks(range(len(names)), [NAMES[n] for n in names], fontsize=8)
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(kinds),
        fontsize=8,
        frameon=False,
        title="Who watched the observed part",
    )
    figure.savefig(path, dpi=130)


def show(summary: dict[str, Any], folder: Path) -> None:
    plot(summary, folder / "plot.png")
    fill_section(folder / "README.md", "table", tables(summary))
    print(tables(summary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--features", default="features")
    parser.add_argument("--folds", type=int, default=None)
    parser.add_argument("--splits", type=lambda text: [int(n) for n in text.split(",")], required=True)
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[0])
    parser.add_argument("--label-fps", type=float, required=True)
    parser.add_argument("--segmenters", nargs="*", default=[], help="NAME=study folder")
    parser.add_argument("--scores", default="", help="name of the features, where they are class scores")
    parser.add_argument("--forecaster", type=Path, required=True, help="study of MANTA on labels")
    parser.add_argument("--direct", type=Path, help="study of MANTA on features")
    parser.add_argument("--pooled", action="store_true", help="all splits scored as one, not one by one")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    summary: dict[str, Any] = {"command": f"bash results/{given.folder.name}/run.sh DATA"}
    summary |= measured(given)
    summary["splits"], summary["seeds"] = given.splits, given.seeds
    summary["wall_seconds"] = round(time.time() - began)
    for name, study in (("training of MANTA on labels", given.forecaster), ("on features", given.direct)):
        if study is not None:
            evidence = study_evidence(study)
            assert evidence is not None, f"{study} is not finished"
            summary[name] = {key: evidence[key] for key in ("wall_seconds", "seeds", "environment")}
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command")
    summary["environment"] = environment
    (given.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    show(summary, given.folder)


if __name__ == "__main__":
    main()
