"""Whole videos of which a model sees the beginning: labels, features, or both, at a working rate.

    data = open_anticipation("breakfast", split=1, subset="train", sample_rate=15)

Frames are those of the annotation, on which scores are computed; steps are those that a model sees: every
`sample_rate`-th feature vector; where labels alone are observed, so many frames before and after the present,
so that the last step of the past is what goes on now. A share of a video is always a share of its annotated
frames, cut with int(), as in the releases.

Legend: C channels, K classes, T steps of a video, N annotated frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framecast.data.annotations import LabelRuns
from framecast.data.folders import AnnotationFolder
from framecast.data.segmentation import SegmentationData, Subset, choose_videos, open_folder
from framecast.structures import Provenance

Observe = Literal["labels", "features", "both"]


def open_anticipation(
    root: str | Path,
    *,
    observe: Observe = "labels",
    layout: str = "auto",
    features: str | Path = "features",
    split: int | None = None,
    subset: Subset = "all",
    folds: int | None = None,
    sample_rate: int = 1,
    feature_dim: int | None = None,
    label_fps: float | None = None,
) -> AnticipationData:
    """Open a folder of frame-wise labels, with features where they are observed.

    observe: what a model is shown of the past; "labels" needs no feature files. label_fps: of the labels;
    it tells how many frames 60 s are. The rest is as in `open_segmentation`, with its errors.
    """
    if observe not in ("labels", "features", "both"):
        raise ValueError(f"observe is {observe!r}; it must be labels, features or both")
    if sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}; it must be at least 1, which keeps every step")
    folder = open_folder(root, layout, str(features))
    videos = choose_videos(folder, split, subset, folds)
    tracks = None
    if observe != "labels":
        tracks = SegmentationData(
            folder,
            videos,
            split,
            subset,
            sample_rate=sample_rate,
            feature_dim=feature_dim,
            label_fps=label_fps,
        )
    return AnticipationData(folder, videos, split, subset, observe, sample_rate, tracks, label_fps)


class AnticipationData:
    """Map-style dataset: `data[i]` has video, labels (T,), features (C, T) or None; see `annotation`."""

    def __init__(
        self,
        folder: AnnotationFolder,
        videos: list[str],
        split: int | None,
        subset: Subset,
        observe: Observe,
        sample_rate: int,
        tracks: SegmentationData | None,
        label_fps: float | None = None,
    ) -> None:
        self.folder, self.videos = folder, videos
        self.split, self.subset = split, subset
        self.observe: Observe = observe
        self.sample_rate = sample_rate
        self.tracks, self.label_fps = tracks, label_fps
        if not videos:
            raise ValueError(f"{folder.root} has no video in subset {subset!r} of split {split}")
        for video in videos:
            folder.labels(video)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    @property
    def layout(self) -> str:
        return self.folder.layout.name

    @property
    def provenance(self) -> Provenance | None:
        """How the observed features were made."""
        return self.tracks.provenance if self.tracks else None

    @property
    def observed_dim(self) -> int:
        """Channels that a model is shown: features, one-hot labels, or features and then labels."""
        features = self.tracks.feature_dim if self.tracks else 0
        return features + (len(self.classes) if self.observe != "features" else 0)

    def annotation(self, index: int) -> np.ndarray:
        """(N,) int64 labels of every annotated frame."""
        if self.tracks is not None:
            return self.tracks.annotation(index)
        video = self.videos[index]
        source = self.folder.labels(video)
        if isinstance(source, LabelRuns):
            return source.frame_labels
        last = int(source.rows[video][-1].end)
        return source.frame_labels(video, self.classes, num_frames=last, background=self.folder.background)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.tracks is not None:
            sample = self.tracks[index]
            return {key: sample[key] for key in ("video", "labels", "features")}
        labels = self.annotation(index)[:: self.sample_rate]
        return {"video": self.videos[index], "labels": labels, "features": None}

    @property
    def frames_per_second(self) -> float | None:
        """Of the annotation, where the layout or the settings tell it; without it futures have no seconds."""
        return self.label_fps or self.folder.layout.frames_per_second


@dataclass(frozen=True)
class Beginning:
    """What is observed of a video, and the labels of that part and of what follows."""

    video: str
    observed: np.ndarray  # (D0, T) float32, zero beyond the past
    labels: np.ndarray  # (T,) int64
    past: int  # steps that are observed
    frames: np.ndarray  # (T,) the annotated frame from which on every step counts


def beginning(data: AnticipationData, index: int, share: float, predicted: float) -> Beginning:
    """An observed share of a video and the share that follows, both cut at annotated frames."""
    total = len(data.annotation(index))
    now, end = int(share * total), int((share + predicted) * total)
    video = data.videos[index]
    if data.tracks is None:
        return _from_labels(video, data.annotation(index), len(data.classes), data.sample_rate, now, end)
    sample, frames = data[index], data.tracks.step_frames(index)
    past = max(1, int(np.searchsorted(frames, now)))
    end = max(past, int(np.searchsorted(frames, end)))
    labels, features = sample["labels"], sample["features"]
    seen = observation(
        data.observe,
        len(data.classes),
        labels=labels[:past],
        features=None if features is None else features[:, :past],
    )
    return Beginning(video, _zero_beyond(seen, end), labels[:end], past, frames[:end])


def _from_labels(
    video: str, labels: np.ndarray, num_classes: int, rate: int, now: int, end: int
) -> Beginning:
    """Steps of `rate` frames before and after `now`, of which past ones are what goes on at their end.

    Steps that were laid from the start of the video would end up to a step before the present, and not tell
    what has begun since.
    """
    now = max(1, now)
    seen = np.arange(now - 1, -1, -rate)[::-1]
    coming = np.arange(now, max(now, end), rate)
    middles = np.minimum(coming + rate // 2, len(labels) - 1)
    shown = observation("labels", num_classes, labels=labels[seen], features=None)
    frames = np.concatenate([np.maximum(seen - rate + 1, 0), coming])
    steps = np.concatenate([labels[seen], labels[middles]])
    return Beginning(video, _zero_beyond(shown, len(steps)), steps, len(seen), frames)


def _zero_beyond(seen: np.ndarray, steps: int) -> np.ndarray:
    observed = np.zeros((len(seen), steps), dtype=np.float32)
    observed[:, : seen.shape[1]] = seen
    return observed


def observation(
    observe: Observe, num_classes: int, *, labels: np.ndarray | None, features: np.ndarray | None
) -> np.ndarray:
    """(D0, T) float32 what a model is shown of T steps: features, one-hot labels, or features, then labels.

    Steps that are not labelled (-100) are zero. Raises ValueError where the model needs what is not there.
    """
    parts = []
    if observe != "labels":
        if features is None:
            raise ValueError("this model observes features; give it a video or a feature file")
        parts.append(np.asarray(features, dtype=np.float32))
    if observe != "features":
        if labels is None:
            raise ValueError("this model observes labels; give it a timeline of what was seen so far")
        hot = np.zeros((num_classes, len(labels)), dtype=np.float32)
        hot[np.maximum(labels, 0), np.arange(len(labels))] = labels >= 0
        parts.append(hot)
    return np.concatenate(parts)


def at_frames(predicted: np.ndarray, steps: np.ndarray, first: int, last: int) -> np.ndarray:
    """Labels of frames first..last - 1 from labels (..., T) of steps at increasing frames (T,).

    A frame takes the label of the last step at or before it, and the first step's before that.
    """
    chosen = np.searchsorted(steps, np.arange(first, last), side="right") - 1
    return predicted[..., np.maximum(chosen, 0)]
