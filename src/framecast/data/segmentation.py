"""Features and labels of temporal segmentation, one video per item.

Labels are parsed once, on construction, to runs; features are read when an item is asked for. What a model
may not see is never loaded: a dataset holds the videos of its subset and nothing else.

Legend: C channels, T time steps of an item, F steps of the feature file, N annotated frames.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framecast.data.annotations import LabelRuns
from framecast.data.assembly101 import Assembly101Folder
from framecast.data.folders import AnnotationFolder, CsvFolder, MstcnFolder
from framecast.data.layouts import detect_layout, get_layout
from framecast.data.problems import Problem, Report, refuse
from framecast.data.tables import SegmentTable
from framecast.data.tas_scores import TasScoresFolder
from framecast.data.video import SUFFIXES, frame_times
from framecast.metrics.protocols import protocols_for
from framecast.structures import FeatureTrack, Provenance

Subset = Literal["train", "test", "all"]
SUBSETS = ("train", "test", "all")
FOLDERS: dict[str, type[AnnotationFolder]] = {
    "breakfast": MstcnFolder,
    "50salads": MstcnFolder,
    "gtea": MstcnFolder,
    "mstcn": MstcnFolder,
    "csv": CsvFolder,
    "assembly101": Assembly101Folder,
    "tas_scores": TasScoresFolder,
}
CACHE_BYTES = 1 << 29  # features kept in memory per dataset (and worker), the rest is read again each time


def length_tolerance(num_frames: int) -> int:
    """Steps by which features and labels of a video may differ: 2 %, at least 8.

    Feature extractors lose a few frames at the ends (clips of 16 or 21 frames); a larger difference means
    another frame rate or another video.
    """
    return max(8, num_frames // 50)


def fold_of(videos: list[str], folds: int) -> dict[str, int]:
    """Fold 1..folds of every video: names are ordered by their SHA-256 and dealt like cards."""
    ordered = sorted(videos, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {video: 1 + i % folds for i, video in enumerate(ordered)}


def open_folder(
    root: str | Path, layout: str = "auto", features: str = "features", report: Report = refuse
) -> AnnotationFolder:
    """Read the annotations of a folder; `layout="auto"` looks at what lies in it."""
    root = Path(root)
    chosen = detect_layout(root) if layout == "auto" else get_layout(layout)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; give the folder that holds the annotations")
    return FOLDERS[chosen.name](root, chosen, features, report)


def open_segmentation(
    root: str | Path,
    *,
    layout: str = "auto",
    features: str | Path = "features",
    split: int | None = None,
    subset: Subset = "all",
    folds: int | None = None,
    sample_rate: int = 1,
    feature_dim: int | None = None,
    label_fps: float | None = None,
) -> SegmentationData:
    """Open a folder of frame-wise labels and features.

    layout: a name from layouts.py, or "auto" to look at the folder. features: folder below `root`, or a
    path. split, subset: cross-validation split and its side; `subset="all"` needs no split. folds: a folder
    without splits of its own is cut into so many folds by video, 5 unless said otherwise; `split` then names
    the test fold, 1..folds.
    sample_rate: keep every n-th step of features and labels. feature_dim: C, where files are (F, C).
    label_fps: frames per second of the labels, where features were made at another rate and the videos
    are not in `root/videos`.

    Raises FileNotFoundError for missing annotations or features, ValueError for what is wrong in them.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset is {subset!r}; it must be one of {', '.join(SUBSETS)}")
    if sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}; it must be at least 1, which keeps every step")
    folder = open_folder(root, layout, str(features))
    videos = choose_videos(folder, split, subset, folds)
    return SegmentationData(
        folder, videos, split, subset, sample_rate=sample_rate, feature_dim=feature_dim, label_fps=label_fps
    )


def choose_videos(
    folder: AnnotationFolder, split: int | None, subset: Subset, folds: int | None
) -> list[str]:
    """Videos of a side of a split, of the folder's own or of as many folds; see `open_segmentation`."""
    if folds is None and split is not None and not folder.splits and not folder.has_one_split:
        folds = min(5, len(folder.videos))
    if folds is None:
        return list(folder.videos) if subset == "all" else folder.split_videos(split, subset)
    if not 2 <= folds <= len(folder.videos):
        raise ValueError(f"folds is {folds}; it must be from 2 to the number of videos, {len(folder.videos)}")
    if folder.splits:
        raise ValueError(f"{folder.root} has splits {folder.splits} of its own; leave folds out")
    if subset == "all":
        return list(folder.videos)
    if split is None or not 1 <= split <= folds:
        raise ValueError(
            f"split is {split}; with folds={folds} pass split=1..{folds}, the fold that is tested on"
        )
    fold = fold_of(folder.videos, folds)
    return [video for video in folder.videos if (fold[video] == split) == (subset == "test")]


class SegmentationData:
    """Map-style dataset: `data[i]` has video, features (C, T), labels (T,) and times (T,) or None."""

    def __init__(
        self,
        folder: AnnotationFolder,
        videos: list[str],
        split: int | None = None,
        subset: Subset = "all",
        *,
        sample_rate: int = 1,
        feature_dim: int | None = None,
        label_fps: float | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.folder = folder
        self.videos = videos
        self.split = split
        self.subset = subset
        self.sample_rate = sample_rate
        self.label_fps = label_fps
        self._given_dim = feature_dim
        self._feature_dim = feature_dim
        self._tracks: dict[str, FeatureTrack] = {}
        self._cache_left = cache_bytes
        self._aligned: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if not videos:
            raise ValueError(f"{folder.root} has no video in subset {subset!r} of split {split}")
        for video in videos:
            folder.feature_path(video)
            folder.labels(video)
        self.provenance = self._common_provenance()

    def _common_provenance(self) -> Provenance | None:
        """How the features of all videos were made, None where the files do not say; a mixture is refused."""
        first, *others = self.videos
        common = self.folder.provenance(first)
        for video in others:
            found = self.folder.provenance(video)
            if (found is None) != (common is None):
                differences = ["one says how it was made, the other does not"]
            else:
                differences = found.differences(common) if found and common else []
            if differences:
                paths = f"{self.folder.feature_path(video)} and {self.folder.feature_path(first)}"
                raise ValueError(
                    f"{paths} were made differently ({'; '.join(differences)}); extract all features alike"
                )
        return common

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    @property
    def layout(self) -> str:
        return self.folder.layout.name

    @property
    def protocol_prefix(self) -> str:
        """Data set name of the evaluation protocols, "segmentation" where it has none of its own."""
        return self.folder.layout.protocol

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols that fit this data, the mean over videos first."""
        if self.layout == "assembly101":
            return protocols_for("assembly101", "val")
        return protocols_for(self.protocol_prefix if self.split else "segmentation", self.split)

    @property
    def feature_dim(self) -> int:
        """C, the channels of the features of every video."""
        return self._feature_dim or self._track(self.videos[0]).feature_dim

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        video = self.videos[index]
        track = self._track(video)
        labels, frames = self._labelled_frames(video, track)
        step = self.sample_rate
        return {
            "video": video,
            # Always a copy: the track may be a read-only map of the file or the cached array.
            "features": np.array(track.values[:, ::step], dtype=np.float32),
            "labels": labels[frames[::step]].astype(np.int64),
            "times": None if track.times is None else track.times[::step],
        }

    def annotation(self, index: int) -> np.ndarray:
        """(N,) labels of a video at the rate of its annotation, on which scores are to be computed."""
        video = self.videos[index]
        return self._labelled_frames(video)[0].astype(np.int64)

    def step_frames(self, index: int) -> np.ndarray:
        """(T,) annotated frame at which every step of item `index` is."""
        return self._labelled_frames(self.videos[index])[1][:: self.sample_rate]

    def to_annotation_rate(self, predicted: np.ndarray, index: int) -> np.ndarray:
        """(N,) predictions for every annotated frame, from predictions (T,) for the steps of item `index`.

        Every frame takes the prediction of the last step at or before it: predictions at every n-th frame
        are repeated n times and cut to the length of the labels.
        """
        video = self.videos[index]
        labels, steps = self._labelled_frames(video)[0], self.step_frames(index)
        if len(predicted) != len(steps):
            raise ValueError(f"video {video!r} has {len(steps)} steps but {len(predicted)} predictions")
        return predicted[np.maximum(np.searchsorted(steps, np.arange(len(labels)), side="right") - 1, 0)]

    def _track(self, video: str) -> FeatureTrack:
        if video in self._tracks:
            return self._tracks[video]
        track = self.folder.load_features(video, feature_dim=self._given_dim)
        path = self.folder.feature_path(video)
        if self._feature_dim not in (None, track.feature_dim):
            raise ValueError(
                f"{path}: has {track.feature_dim} channels where {self._feature_dim} are expected; "
                "all videos need features of the same width, stored (channels, frames)"
            )
        if not len(track):
            raise ValueError(f"{path}: has no step inside the labelled part of {video!r}")
        # Labels first: an array that is (frames, channels) must not set the width.
        self._labelled_frames(video, track)
        self._feature_dim = track.feature_dim
        if track.values.nbytes <= self._cache_left:
            self._cache_left -= track.values.nbytes
            # Copied into memory: hundreds of mapped files would exhaust the open files of a process.
            self._tracks[video] = track = replace(track, values=np.array(track.values))
        return track

    def _labelled_frames(
        self, video: str, track: FeatureTrack | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) at the rate of the annotation and, for every feature step (F,), its annotated frame.

        track: the features, read only where they are needed and not given.
        """
        if video not in self._aligned:
            labels, frames = self._align(video, self._track(video) if track is None else track)
            self._aligned[video] = labels.astype(np.int16), frames.astype(np.int32)
        return self._aligned[video]

    def _align(self, video: str, track: FeatureTrack) -> tuple[np.ndarray, np.ndarray]:
        source, gap = self.folder.labels(video), self.folder.background
        every_step = np.arange(len(track))
        if isinstance(source, LabelRuns):
            labels = source.frame_labels
            if abs(len(labels) - len(track)) <= length_tolerance(len(labels)):
                return labels, every_step * len(labels) // len(track)  # nearest neighbour
            frames = self._frames_by_time(video, track)
            if frames is None or abs(len(labels) - _end(frames)) > length_tolerance(len(labels)):
                raise self._length_error(video, track, f"{len(labels)} labelled frames", len(labels))
            return labels, np.minimum(frames, len(labels) - 1)
        limits_s = source.limits_s(video)
        if source.unit == "seconds" or (limits_s is not None and track.times is not None):
            self._check_within(source, video, track)
            return source.frame_labels(video, self.classes, times=track.times, background=gap), every_step
        # A table does not say how long a video is: only features that were sampled in time need the times.
        sampled = track.provenance is not None and track.provenance.step_s is not None
        frames = self._frames_by_time(video, track) if sampled or self.label_fps else every_step
        last = int(source.rows[video][-1].end)
        if frames is None or last - _end(frames) > length_tolerance(last):
            raise self._length_error(video, track, f"segments up to frame {last}", last)
        num_frames = len(track) if frames is every_step else max(last, _end(frames))
        return source.frame_labels(video, self.classes, num_frames=num_frames, background=gap), frames

    def _check_within(self, source: SegmentTable, video: str, track: FeatureTrack) -> None:
        """ValueError for a segment after the end of the video: frames given as seconds, another video."""
        limits_s = source.limits_s(video)
        if track.times is None or limits_s is None:
            return
        steps_s = np.diff(track.times)
        step_s = float(np.median(steps_s)) if len(steps_s) else 0.0
        end_s = float(track.times[-1]) + step_s
        tolerance_s = max(1.0, step_s * length_tolerance(len(track)))
        for row, (first, last) in zip(source.rows[video], limits_s, strict=True):
            if first >= end_s or last > end_s + tolerance_s:
                message = (
                    f"{row.label!r} from {first:g} to {last:g} s lies beyond the end of {video!r}, whose "
                    f"features end at {end_s:.2f} s; are these frames, or another video?"
                )
                refuse(Problem(source.path, row.line, message))

    def _frames_by_time(self, video: str, track: FeatureTrack) -> np.ndarray | None:
        """(F,) video frame that is shown at the time of every step, None where times are unknown."""
        if track.times is None:
            return None
        if self.label_fps is not None:
            return np.floor(track.times * self.label_fps + 1e-6).astype(np.int64)
        path = find_video(self.folder.root, video)
        if path is None:
            return None
        shown = frame_times(path)
        return np.maximum(np.searchsorted(shown, track.times + 1e-6, side="right") - 1, 0)

    def _length_error(self, video: str, track: FeatureTrack, labelled: str, num_frames: int) -> ValueError:
        path, limit = self.folder.feature_path(video), length_tolerance(num_frames)
        if abs(track.feature_dim - num_frames) <= limit:
            return ValueError(
                f"video {video!r}: {path} is (frames, channels) where (channels, frames) is expected; "
                f"pass feature_dim={len(track)} to have such files turned"
            )
        return ValueError(
            f"video {video!r}: {len(track)} steps in {path} but {labelled}; they may differ by {limit}. "
            "Extract features for every frame, or, where they hold times, put the videos into a folder "
            "videos/ or pass label_fps=..."
        )


def _end(frames: np.ndarray) -> int:
    """Frame at which the last step ends, when steps are at these frames."""
    return int(frames[-1]) + max(1, round(int(frames[-1]) / max(1, len(frames) - 1)))


def find_video(root: Path, video: str) -> Path | None:
    """The video file `videos/<video>` or `videos/<video>.*` of a folder, None where there is none."""
    folder = (root if root.is_dir() else root.parent) / "videos"
    candidates = [folder / video, *sorted(folder.glob(f"{glob.escape(video)}.*"))]
    return next((p for p in candidates if p.suffix.lower() in SUFFIXES and p.is_file()), None)
