"""Scores of temporal action segmentation: frame accuracy, edit score, F1@{10, 25, 50}.

With P predicted and Y target segments of a video:
- accuracy = correct frames / frames
- edit = 100 (1 - Lev(P, Y) / max(|P|, |Y|)), unit costs, on the labels of the segments
- F1@k: every predicted segment picks the target segment of its label with the largest intersection over
  union (the first one on ties); it is a true positive if that is at least k/100 and it is the first to
  reach that target, else a false positive; targets that nobody reaches are false negatives.

What counts and how videos are averaged is a protocol's business (protocols.py). Videos are kept as runs of
(prediction, target), so that any protocol can be computed after the fact. Sources: Lea et al., CVPR 2017
(https://arxiv.org/abs/1611.05267); MS-TCN, CVPR 2019; LTContext, ICCV 2023. Differs from the MS-TCN script:
the last segment ends at the last frame instead of one frame earlier.

Legend: T frames, R runs, P and Y segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from framecast.metrics.protocols import Protocol, get_protocol

OVERLAPS = (10, 25, 50)  # percent of intersection over union
KEYS = ("accuracy", "edit", *(f"f1@{k}" for k in OVERLAPS))
IOU_BLOCK = 1 << 22  # entries of the P x Y table held at once

# --- one video ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoCounts:
    """What one video contributes to a score."""

    video: str
    frames: int
    correct: int
    edit: float  # 0..100
    true_positives: np.ndarray = field(repr=False)  # (3,) at OVERLAPS, and so on
    false_positives: np.ndarray = field(repr=False)
    false_negatives: np.ndarray = field(repr=False)

    def scores(self) -> dict[str, float]:
        f1 = f1_score(self.true_positives, self.false_positives, self.false_negatives)
        return dict(zip(KEYS, (100 * self.correct / self.frames, self.edit, *(100 * f1)), strict=True))


def levenshtein(a: np.ndarray, b: np.ndarray) -> int:
    """Fewest insertions, deletions and substitutions that turn one label sequence into the other."""
    if len(a) > len(b):
        a, b = b, a
    steps = np.arange(len(b) + 1)
    row = steps.copy()
    for i, label in enumerate(a, start=1):
        diagonal = np.minimum(row[:-1] + (b != label), row[1:] + 1)
        row = np.concatenate([[i], diagonal])
        # Insertions run along the row: row[j] = min over k <= j of row[k] + (j - k).
        row = np.minimum.accumulate(row - steps) + steps
    return int(row[-1])


def edit_score(predicted: np.ndarray, target: np.ndarray) -> float:
    """Edit score in 0..100 of two sequences of segment labels; two empty ones agree."""
    longest = max(len(predicted), len(target))
    return 100.0 * (1.0 - levenshtein(predicted, target) / longest) if longest else 100.0


def match_segments(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and false negatives at each of OVERLAPS.

    predicted (P, 3), target (Y, 3): label, start, end (exclusive) of every segment in temporal order.
    """
    tp = np.zeros(len(OVERLAPS), dtype=np.int64)
    if len(predicted) and len(target):
        best, iou = _best_targets(predicted, target)
        # A target that is reached stays reached, so the matches are the distinct targets that are reached.
        tp[:] = [len(np.unique(best[iou >= overlap / 100])) for overlap in OVERLAPS]
    return tp, len(predicted) - tp, len(target) - tp


def _best_targets(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) index of the target segment of the same label with the largest IoU, and that IoU."""
    best, iou = np.empty(len(predicted), dtype=np.int64), np.empty(len(predicted))
    block = max(1, IOU_BLOCK // len(target))
    label, start, end = target.T
    for i in range(0, len(predicted), block):
        p_label, p_start, p_end = predicted[i : i + block, :, None].transpose(1, 0, 2)
        intersection = np.minimum(p_end, end) - np.maximum(p_start, start)
        hull = np.maximum(p_end, end) - np.minimum(p_start, start)  # the union wherever they intersect
        table = np.where((p_label == label) & (intersection > 0), intersection / hull, 0.0)
        best[i : i + block] = chosen = table.argmax(axis=1)
        iou[i : i + block] = table[np.arange(len(table)), chosen]
    return best, iou


def f1_score(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """F1 in 0..1, 0 where it is undefined."""
    found, wanted = tp + fp, tp + fn
    precision = np.divide(tp, found, out=np.zeros(np.shape(tp)), where=found > 0)
    recall = np.divide(tp, wanted, out=np.zeros(np.shape(tp)), where=wanted > 0)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros(np.shape(tp)), where=total > 0)


def count_video(
    runs: np.ndarray, ignored: Iterable[int], background: Iterable[int], video: str
) -> VideoCounts:
    """Count one video given as runs (R, 3) of predicted label, target label, frames."""
    ignored = np.fromiter(ignored, dtype=np.int64)
    runs = runs[~np.isin(runs[:, 1], np.array(ignored, dtype=np.int64))]
    dropped = np.array([*ignored, *background], dtype=np.int64)
    ends = np.cumsum(runs[:, 2])
    predicted, target = segments_of(runs[:, 0], ends, dropped), segments_of(runs[:, 1], ends, dropped)
    correct = int(runs[runs[:, 0] == runs[:, 1], 2].sum())
    edit = edit_score(predicted[:, 0], target[:, 0])
    return VideoCounts(video, int(runs[:, 2].sum()), correct, edit, *match_segments(predicted, target))


def segments_of(labels: np.ndarray, ends: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """(N, 3) label, start, end of maximal runs of equal label, those with a dropped label left out."""
    if len(labels) == 0:
        return np.empty((0, 3), dtype=np.int64)
    last = np.flatnonzero(np.append(labels[1:] != labels[:-1], True))
    starts = np.append(0, ends[last[:-1]])
    segments = np.stack([labels[last], starts, ends[last]], axis=1)
    return segments[~np.isin(segments[:, 0], dropped)]


# --- many videos -------------------------------------------------------------------------------------------


class SegmentationMetrics:
    """Collects videos and scores them under any protocol.

    classes: names, needed where a protocol leaves out classes by name. ignore: labels whose frames never
    count, whatever the protocol. A video that is given twice with the same content counts once (padded
    distributed samplers repeat some); with other content it is refused.

        metrics = SegmentationMetrics(classes=data.classes)
        metrics.update(predicted, target, video="P03_cam01_P03_tea")     # (T,) each
        metrics.compute("breakfast/s1-mean-over-videos")["f1@50"]
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        *,
        num_classes: int | None = None,
        ignore: Iterable[int] = (-100,),
    ) -> None:
        self.classes = tuple(classes) if classes is not None else None
        self.num_classes = (
            num_classes if num_classes is not None else len(self.classes) if self.classes else None
        )
        self.ignore = tuple(sorted({int(i) for i in ignore}))
        if self.classes is not None and self.num_classes != len(self.classes):
            raise ValueError(
                f"{len(self.classes)} class names but num_classes is {num_classes}; pass only one of them"
            )
        self.reset()

    def reset(self) -> None:
        self._videos: list[str] = []
        self._runs: list[np.ndarray] = []  # per video (R, 3): predicted label, target label, frames
        self._row: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._videos)

    def update(self, predicted: Any, target: Any, video: str = "") -> None:
        """Add one video: class indices (T,) of every frame, arrays or CPU tensors.

        Raises ValueError where the lengths differ, a vector is empty or not of integers, or a class is
        out of range.
        """
        name = f"video {video!r}" if video else f"video {len(self) + 1}"
        predicted, target = _labels(predicted, f"{name}: predicted"), _labels(target, f"{name}: target")
        if len(predicted) != len(target):
            raise ValueError(
                f"{name} has {len(predicted)} predicted but {len(target)} target frames; "
                "bring predictions to the rate of the labels first"
            )
        self._check_range(predicted, target, name)
        changes = (predicted[1:] != predicted[:-1]) | (target[1:] != target[:-1])
        starts = np.flatnonzero(np.append(True, changes))
        lengths = np.diff(np.append(starts, len(target)))
        self._add(video, np.stack([predicted[starts], target[starts], lengths], axis=1))

    def _check_range(self, predicted: np.ndarray, target: np.ndarray, name: str) -> None:
        if self.num_classes is None:
            return
        for what, labels, allowed in (("predicted", predicted, ()), ("target", target, self.ignore)):
            bad = (labels < 0) | (labels >= self.num_classes)
            bad &= ~np.isin(labels, allowed)
            if bad.any():
                at = int(np.argmax(bad))
                raise ValueError(
                    f"{name}: {what} label {labels[at]} at frame {at} is not one of "
                    f"the {self.num_classes} classes"
                )

    def _add(self, video: str, runs: np.ndarray) -> None:
        if video and video in self._row:
            if not np.array_equal(self._runs[self._row[video]], runs):
                raise ValueError(
                    f"video {video!r} was counted before with other labels; call reset() between evaluations"
                )
            return
        if video:
            self._row[video] = len(self)
        self._videos.append(video)
        self._runs.append(runs)

    def merge(self, other: SegmentationMetrics) -> SegmentationMetrics:
        """Take in the videos of another one, for example of another rank, and return self."""
        if (self.classes, self.ignore) != (other.classes, other.ignore):
            raise ValueError("only metrics with the same classes and ignored labels can be merged")
        for video, runs in zip(list(other._videos), list(other._runs), strict=True):
            self._add(video, runs)
        return self

    def per_video(self, protocol: str | Protocol = "segmentation/mean-over-videos") -> list[VideoCounts]:
        """Counts of every video under a protocol; videos without a frame that counts are left out."""
        protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
        ignored = (*self.ignore, *self._ids(protocol.ignored, protocol))
        background = self._ids(protocol.background, protocol)
        counted = [
            count_video(r, ignored, background, v) for v, r in zip(self._videos, self._runs, strict=True)
        ]
        return [video for video in counted if video.frames]

    def _ids(self, names: tuple[str, ...], protocol: Protocol) -> list[int]:
        if names and self.classes is None:
            raise ValueError(
                f"protocol {protocol.name} leaves out {', '.join(names)} by name; "
                "give SegmentationMetrics the class names (classes=data.classes)"
            )
        return [i for i, name in enumerate(self.classes or ()) if name in names]

    def compute(self, protocol: str | Protocol = "segmentation/mean-over-videos") -> dict[str, float]:
        """accuracy, edit, f1@10, f1@25, f1@50 in 0..100 and num_videos, under a named protocol."""
        protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
        videos = self.per_video(protocol)
        if not videos:
            raise ValueError(
                f"no frame counts under {protocol.name}: {len(self)} videos were given; call update first"
            )
        edit = float(np.mean([v.edit for v in videos]))
        if protocol.averaging == "videos":
            rows = [v.scores() for v in videos]
            scores = {key: float(np.mean([row[key] for row in rows])) for key in KEYS}
        else:
            counts = ("true_positives", "false_positives", "false_negatives")
            f1 = 100 * f1_score(*(np.sum([getattr(v, name) for v in videos], axis=0) for name in counts))
            accuracy = 100 * sum(v.correct for v in videos) / sum(v.frames for v in videos)
            scores = dict(zip(KEYS, (accuracy, edit, *map(float, f1)), strict=True))
        return {**scores, "num_videos": float(len(videos))}

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far as plain lists, fit for JSON and for gathering over ranks."""
        return {
            "ignore": list(self.ignore),
            "videos": list(self._videos),
            "runs": [runs.tolist() for runs in self._runs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what was collected by a state from `state_dict`."""
        if tuple(state["ignore"]) != self.ignore:
            raise ValueError(
                f"the saved metrics ignore labels {state['ignore']}, these ignore {list(self.ignore)}"
            )
        self.reset()
        for video, runs in zip(state["videos"], state["runs"], strict=True):
            self._add(video, np.array(runs, dtype=np.int64).reshape(-1, 3))


def _labels(values: Any, what: str) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what} labels must be a non-empty vector of class indices, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)


def average_splits(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of the splits' scores with equal weight, as the literature reports them; num_videos is the sum."""
    if not results:
        raise ValueError("no split to average; pass the results of compute() of every split")
    mean = {key: float(np.mean([r[key] for r in results])) for key in KEYS}
    return {**mean, "num_videos": float(sum(r["num_videos"] for r in results))}
