"""Frame-wise class scores of published models, taken as small features of 50Salads and GTEA.

Lea et al., Temporal Convolutional Networks, CVPR 2017. `<model>/split<k>_<video>.npz` holds scores (T, K),
pred (T,) and label (T,) of a test video of split k. The `svm` scores come from single frames and from models
trained on other splits, which makes them fit as input features.

Legend: T steps, K classes.
"""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from framecast.data.annotations import LabelRuns
from framecast.data.folders import AnnotationFolder
from framecast.data.layouts import TAS_SCORES_CLASSES, Layout
from framecast.data.problems import Problem, Report, refuse
from framecast.structures import FeatureTrack


class TasScoresFolder(AnnotationFolder):
    """Split k tests on its own files and trains on those of all other splits."""

    def __init__(
        self, root: Path, layout: Layout, features: str = "features", report: Report = refuse
    ) -> None:
        super().__init__(root, layout, features, report)
        self.paths: dict[str, Path] = {}
        self.split_of: dict[str, int] = {}
        for path in sorted(self.features.glob("*.npz")):
            match = re.fullmatch(r"split(\d+)_(.+)", path.stem)
            if match is None:
                report(Problem(path, None, "the name must be split<k>_<video>.npz"))
            elif match[2] in self.paths:
                message = f"video {match[2]!r} is tested in {self.paths[match[2]].name} already"
                report(Problem(path, None, message))
            else:
                self.paths[match[2]], self.split_of[match[2]] = path, int(match[1])
        if not self.paths:
            models = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir()))
            raise FileNotFoundError(f"{self.features} holds no split<k>_<video>.npz; folders here: {models}")
        self.videos = sorted(self.paths)
        width = read_scores(self.paths[self.videos[0]])[0].shape[1]
        names = TAS_SCORES_CLASSES.get(root.name, ())
        self.classes = names if len(names) == width else tuple(f"class_{i:02d}" for i in range(width))

    @property
    def splits(self) -> list[int]:
        return sorted(set(self.split_of.values()))

    def split_videos(self, split: int | None, subset: str) -> list[str]:
        split = self._check_split(split)
        return [video for video in self.videos if (self.split_of[video] == split) == (subset == "test")]

    def labels(self, video: str) -> LabelRuns:
        labels = read_scores(self.paths[video])[1]
        if labels.min() < 0 or labels.max() >= len(self.classes):
            message = f"labels {labels.min()}..{labels.max()} go beyond the {len(self.classes)} classes"
            self.report(Problem(self.paths[video], None, message))
        starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
        lengths = np.diff(np.append(starts, len(labels)))
        return LabelRuns(labels[starts].astype(np.int16), lengths.astype(np.int32))

    def feature_path(self, video: str) -> Path:
        return self.paths[video]

    def provenance(self, video: str) -> None:
        """The files do not say."""

    def load_features(self, video: str, *, feature_dim: int | None = None) -> FeatureTrack:
        """Scores (K, T) as float32; `feature_dim` has no say, the files are (T, K)."""
        scores = read_scores(self.paths[video])[0]
        return FeatureTrack(np.ascontiguousarray(scores.T, dtype=np.float32), source=str(self.paths[video]))


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores (T, K) and labels (T,) of a file; ValueError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            scores, labels = file["scores"], file["label"]
    except (OSError, BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: is not an .npz file with scores and label: {error}") from error
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"{path}: scores {scores.shape} and label {labels.shape} must be (T, K) and (T,)")
    if not np.isfinite(scores).all():
        step, channel = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(f"{path}: score of class {channel} at step {step} is {scores[step, channel]}")
    return scores, labels
