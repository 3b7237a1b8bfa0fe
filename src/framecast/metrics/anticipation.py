"""Scores of dense anticipation: mean over classes of sampled futures, diversity, and what stands beside them.

For a protocol's observed share α and horizon β, over the frames int(α n) .. int((α + β) n) of every video:
- MoC: of every class, the share of its frames that are right, counted over all videos; then the mean over the
  classes that occur
- mean MoC counts the frames of all samples; top-1 MoC those of one sample a video and horizon, the one whose
  MoC on that video alone is highest (the first on ties): an oracle's choice, which no deployed system has
- accuracy: share of right frames of all samples
- diversity: share of frames, 0..1, in which two samples differ, mean over pairs and then over videos

Counts are whole numbers in double precision. `uncertainty` and `transcript` score the same futures for what
these leave out. Sources: Abu Farha et al., CVPR 2018 (https://arxiv.org/abs/1804.00892); GTDA, ECCV 2024
(https://arxiv.org/abs/2407.11954).
Legend: n frames of a video, M predicted frames, S samples, K classes, R runs, H horizons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from framecast.metrics.anticipation_protocols import AnticipationProtocol, get_anticipation_protocol
from framecast.metrics.future_runs import FutureRuns, future_runs
from framecast.metrics.transcript import TranscriptCounts
from framecast.metrics.uncertainty import UncertaintyCounts

DEFAULT = "anticipation/official-any"
Counts = TypeVar("Counts", UncertaintyCounts, TranscriptCounts)

# --- one video ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FutureCounts:
    """What one video contributes to MoC and diversity, for every horizon."""

    video: str
    hits: np.ndarray  # (H, S, K) right frames by true class
    frames: np.ndarray  # (H, K)
    best: np.ndarray  # (H,) sample that top-1 picks
    diversity: np.ndarray  # (H,)


def count_futures(
    runs: FutureRuns, protocol: AnticipationProtocol, num_classes: int, ignored: tuple[int, ...] = ()
) -> FutureCounts:
    """Count one video; horizons are nested, so each run is counted once and summed over horizons after."""
    limits = protocol.limits(runs.num_frames, runs.observed)
    runs, place = runs.split_at(limits, ignored)
    samples, horizons = len(runs.samples), len(protocol.horizons)
    right = (runs.samples == runs.target) * runs.lengths  # (S, R)
    index = (place * samples + np.arange(samples)[:, None]) * num_classes + runs.target
    sizes = (horizons, samples, num_classes)
    hits = np.bincount(index.ravel(), right.ravel(), minlength=int(np.prod(sizes))).reshape(sizes).cumsum(0)
    index = place * num_classes + runs.target
    frames = np.bincount(index, runs.lengths, minlength=horizons * num_classes)
    frames = frames.reshape(horizons, num_classes).cumsum(0)
    differing = np.zeros(len(runs.lengths))
    if samples > 1:  # of the S (S - 1) ordered pairs, those of one class agree
        counts = samples * runs.frequencies(num_classes)
        differing = (samples**2 - np.square(counts).sum(1)) / (samples * (samples - 1))
    differing = np.bincount(place, differing * runs.lengths, minlength=horizons).cumsum()
    diversity = differing / np.maximum(frames.sum(1), 1)
    return FutureCounts(runs.video, hits, frames, mean_over_classes(hits, frames).argmax(1), diversity)


def mean_over_classes(hits: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(H, S) mean of hits / frames over the classes that have frames; hits (H, S, K), frames (H, K)."""
    hits, frames = np.moveaxis(hits, -1, 0), np.moveaxis(frames, -1, 0)[..., None]  # classes first
    share = np.divide(hits, frames, out=np.zeros(hits.shape), where=frames > 0)
    # Summed class by class, so that equal samples tie exactly and the first of them is picked.
    return share.sum(0) / np.maximum((frames > 0).sum(0), 1)


# --- many videos -------------------------------------------------------------------------------------------


class AnticipationMetrics:
    """Collects futures of videos and scores them under any protocol.

    ignore: true labels whose frames never count. frames_per_second: of the labels, for errors in seconds. A
    video that is given twice with the same content counts once; with other content it is refused.

        metrics = AnticipationMetrics(data.classes)
        metrics.update(futures, labels, observed=0.2, video="P03_cam01_P03_tea")     # (S, M), (n,)
        metrics.compute("anticipation/official-25")["mean_moc@20/50"]                # see 20 %, predict 50 %
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        *,
        num_classes: int | None = None,
        ignore: Iterable[int] = (-100,),
        frames_per_second: float | None = None,
    ) -> None:
        if (classes is None) == (num_classes is None):
            raise ValueError("give AnticipationMetrics either classes=(names) or num_classes")
        self.classes = tuple(classes) if classes is not None else None
        self.num_classes = len(self.classes) if self.classes is not None else int(num_classes or 0)
        self.ignore = tuple(sorted({int(i) for i in ignore}))
        self.frames_per_second = frames_per_second
        self.reset()

    def reset(self) -> None:
        self._runs: dict[tuple[float, str], FutureRuns] = {}

    def __len__(self) -> int:
        """Videos, each with every share of it that was observed."""
        return len(self._runs)

    def update(
        self,
        predicted: Any,
        target: Any,
        observed: float,
        video: str = "",
        *,
        first_frame: int | None = None,
        probabilities: Any = None,
    ) -> None:
        """Add the futures of one video: class of every frame (S, M), or (M,) for one, arrays or CPU tensors.

        target: true labels (n,) of the whole video. observed: share of it that was seen. first_frame: where
        in the video the predictions begin, int(observed * n) if not given. probabilities: (K, M) where a
        model knows them; shares of the samples stand in else.

        Raises ValueError for other shapes, and for labels that are no classes.
        """
        name = f"video {video!r}" if video else f"video {len(self) + 1}"
        target, predicted = np.asarray(target), np.atleast_2d(np.asarray(predicted))
        for what, labels, axes, allowed in (
            ("target", target, 1, self.ignore),
            ("predicted", predicted, 2, ()),
        ):
            self._check(labels, axes, allowed, f"{name}: {what}")
        if not 0 < observed < 1:
            raise ValueError(f"{name}: observed is {observed}; it is the share of the video, between 0 and 1")
        first = int(observed * len(target)) if first_frame is None else first_frame
        if not 0 <= first < len(target):
            raise ValueError(f"{name}: predictions begin at frame {first} of {len(target)}")
        chances = None
        if probabilities is not None:
            chances = np.asarray(probabilities, dtype=np.float64)
            if chances.shape != (self.num_classes, predicted.shape[1]):
                wanted = (self.num_classes, predicted.shape[1])
                raise ValueError(f"{name}: probabilities have shape {chances.shape}, expected {wanted}")
            if not np.isfinite(chances).all() or chances.min() < 0 or abs(chances.sum(0) - 1).max() > 1e-2:
                raise ValueError(f"{name}: these are no probabilities; pass the softmax of the scores")
        self._add(future_runs(predicted, target, float(observed), video, first, chances))

    def _check(self, labels: np.ndarray, axes: int, allowed: tuple[int, ...], what: str) -> None:
        if labels.ndim != axes or not labels.size or labels.dtype.kind not in "iu":
            expected = "a vector (frames,)" if axes == 1 else "of shape (samples, frames)"
            raise ValueError(
                f"{what} labels must be class indices, {expected}, got {labels.dtype} of shape {labels.shape}"
            )
        bad = ((labels < 0) | (labels >= self.num_classes)) & ~np.isin(labels, allowed)
        if bad.any():
            raise ValueError(f"{what} label {labels[bad][0]} is not one of the {self.num_classes} classes")

    def _add(self, runs: FutureRuns) -> None:
        key = (runs.observed, runs.video or f"#{len(self)}")
        if key in self._runs:
            if not self._runs[key].equals(runs):
                raise ValueError(
                    f"video {runs.video!r} was counted before with other labels at an observed share of "
                    f"{runs.observed:g}; call reset() between evaluations"
                )
            return
        self._runs[key] = runs

    def merge(self, other: AnticipationMetrics) -> AnticipationMetrics:
        """Take in the videos of another one, for example of another rank, and return self."""
        if (self.classes, self.num_classes, self.ignore) != (other.classes, other.num_classes, other.ignore):
            raise ValueError("only metrics with the same classes and ignored labels can be merged")
        for runs in list(other._runs.values()):
            self._add(runs)
        return self

    def videos(self, protocol: AnticipationProtocol, observed: float) -> list[FutureRuns]:
        """Videos of which this share was observed, checked against the protocol."""
        found = [runs for (share, _), runs in self._runs.items() if share == observed]
        if not found:
            given = sorted({f"{share:g}" for share, _ in self._runs})
            raise ValueError(
                f"{protocol.name} observes {observed:g} of each video, of which there is none "
                f"(given: {', '.join(given) or 'no video'}); call update for it, or use a protocol without it"
            )
        for runs in found:
            name = f"video {runs.video!r}"
            if protocol.samples not in (None, len(runs.samples)):
                raise ValueError(
                    f"{name} has {len(runs.samples)} futures, {protocol.name} counts {protocol.samples}"
                )
            start, *_, end = protocol.limits(runs.num_frames, observed)
            if runs.first_frame > start:
                raise ValueError(
                    f"{name}: predictions begin at frame {runs.first_frame}, after frame {start}"
                )
            if protocol.too_short == "refuse" and runs.end_frame < min(end, runs.num_frames):
                raise ValueError(
                    f"{name} is predicted up to frame {runs.end_frame}, {protocol.name} needs {end}; "
                    "predict the longest horizon, at the rate of the labels"
                )
        return found

    def per_video(
        self, protocol: str | AnticipationProtocol = DEFAULT, observed: float = 0.2
    ) -> list[FutureCounts]:
        """Counts of every video for one observed share."""
        protocol = get(protocol)
        return [
            count_futures(runs, protocol, self.num_classes, self.ignore)
            for runs in self.videos(protocol, observed)
        ]

    def compute(self, protocol: str | AnticipationProtocol = DEFAULT) -> dict[str, float]:
        """Scores of every setting, `mean_moc@20/50` (see 20 %, predict 50 %), and their means `mean_moc`.

        mean_moc, top1_moc, accuracy in 0..100 and diversity in 0..1; under a protocol of one future only moc
        and accuracy. num_videos.
        """
        protocol = get(protocol)
        rows, num_videos = {}, 0
        for observed in protocol.observed:
            counted = self.per_video(protocol, observed)
            num_videos = len(counted)
            frames = np.sum([v.frames for v in counted], axis=0)  # (H, K)
            hits = np.sum([v.hits.mean(1) for v in counted], axis=0)
            picked = np.sum([v.hits[range(len(v.best)), v.best] for v in counted], axis=0)
            total = np.maximum(frames.sum(1), 1)
            scores = {
                "mean_moc": 100 * mean_over_classes(hits[:, None], frames)[:, 0],
                "top1_moc": 100 * mean_over_classes(picked[:, None], frames)[:, 0],
                "accuracy": 100 * hits.sum(1) / total,
                "diversity": np.mean([v.diversity for v in counted], axis=0),
            }
            if protocol.samples == 1:
                scores = {"moc": scores["mean_moc"], "accuracy": scores["accuracy"]}
            rows[observed] = scores
        return {**by_setting(rows, protocol), "num_videos": float(num_videos)}

    def uncertainty(self, protocol: str | AnticipationProtocol = DEFAULT) -> dict[str, float]:
        """How far the futures know what they do not know, named as in `compute`; see uncertainty.py."""
        return self._scored(get(protocol), UncertaintyCounts)

    def transcript(self, protocol: str | AnticipationProtocol = DEFAULT) -> dict[str, float]:
        """Order and start of the predicted actions, named as in `compute`; see transcript.py."""
        return self._scored(get(protocol), TranscriptCounts)

    def reliability(
        self, protocol: str | AnticipationProtocol, observed: float, horizon: float
    ) -> dict[str, np.ndarray]:
        """Confidence, accuracy and share of frames (15,) of each bin: what a calibration plot draws."""
        protocol = get(protocol)
        counts = self._counted(protocol, observed, UncertaintyCounts)
        return counts[protocol.horizons.index(horizon)].reliability()

    def _counted(self, protocol: AnticipationProtocol, observed: float, kind: type[Counts]) -> list[Counts]:
        counts = [kind(self.num_classes, self.frames_per_second) for _ in protocol.horizons]
        for runs in self.videos(protocol, observed):
            start, *ends = protocol.limits(runs.num_frames, observed)
            for count, end in zip(counts, ends, strict=True):
                part, _ = runs.split_at(np.array([start, end]), self.ignore)
                if len(part.lengths):
                    count.add(part)
        return counts

    def _scored(self, protocol: AnticipationProtocol, kind: type[Counts]) -> dict[str, float]:
        rows = {}
        for observed in protocol.observed:
            scores = [counts.scores() for counts in self._counted(protocol, observed, kind)]
            rows[observed] = {key: np.array([row[key] for row in scores]) for key in scores[0]}
        return by_setting(rows, protocol)

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far as plain lists, fit for JSON and for gathering over ranks."""
        return {"ignore": list(self.ignore), "videos": [runs.to_json() for runs in self._runs.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what was collected by a state from `state_dict`."""
        if tuple(state["ignore"]) != self.ignore:
            raise ValueError(
                f"the saved metrics ignore labels {state['ignore']}, these ignore {list(self.ignore)}"
            )
        self.reset()
        for values in state["videos"]:
            self._add(FutureRuns.from_json(values))


def get(protocol: str | AnticipationProtocol) -> AnticipationProtocol:
    """The protocol itself, or the one of that name."""
    return get_anticipation_protocol(protocol) if isinstance(protocol, str) else protocol


def by_setting(rows: dict[float, dict[str, np.ndarray]], protocol: AnticipationProtocol) -> dict[str, float]:
    """`key@20/50` of every observed share and horizon from rows[share][key] (H,), and `key`, their mean."""
    keys = next(iter(rows.values())).keys()
    out = {key: float(np.mean([scores[key] for scores in rows.values()])) for key in keys}
    for key in keys:
        for observed, scores in rows.items():
            for horizon, score in zip(protocol.horizons, scores[key], strict=True):
                out[f"{key}@{100 * observed:g}/{100 * horizon:g}"] = float(score)
    return out


def average_splits(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of the splits' scores with equal weight, as the literature reports them; num_videos is the sum."""
    if not results:
        raise ValueError("no split to average; pass the results of compute() of every split")
    mean = {key: float(np.mean([result[key] for result in results])) for key in results[0]}
    return mean | {"num_videos": sum(r["num_videos"] for r in results)} if "num_videos" in mean else mean
