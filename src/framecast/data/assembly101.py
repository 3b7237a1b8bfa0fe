"""Assembly101's coarse actions: people take toy vehicles apart and put them together, seen from 12 views.

Sener et al., CVPR 2022, https://assembly-101.github.io. Views of a sequence share one label file and are
videos of their own, named `<action type>_<sequence>/<view>`. The annotated part of a view is
[first start, min(last end, video_end_frame)), in frames at 30 per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framecast.data.annotations import LabelRuns, read_actions, read_coarse_labels
from framecast.data.folders import AnnotationFolder
from framecast.data.layouts import Layout
from framecast.data.problems import Problem, Report, refuse
from framecast.data.tables import read_table
from framecast.structures import FeatureTrack

COLUMNS = ("video_id", "view", "action_type", "video_start_frame", "video_end_frame")


@dataclass(frozen=True)
class ViewRow:
    """One line of train.csv or val.csv."""

    action_type: str  # "assembly" or "disassembly"
    sequence: str
    view: str
    end_frame: int


class Assembly101Folder(AnnotationFolder):
    """Train and validation rows of Assembly101; `subset="test"` is the validation set, as in papers."""

    has_one_split = True

    def __init__(
        self, root: Path, layout: Layout, features: str = "features", report: Report = refuse
    ) -> None:
        super().__init__(root, layout, features, report)
        nested = root / "coarse-annotations"
        self.annotations = nested if nested.is_dir() else root
        self.classes = read_actions(self.annotations / "actions.csv", report)
        self.rows: dict[str, ViewRow] = {}
        self.sides = {"train": self._read_rows("train"), "test": self._read_rows("val")}
        self.videos = list(self.rows)
        self._clips: dict[tuple[Path, int], tuple[int, LabelRuns]] = {}

    def _read_rows(self, name: str) -> list[str]:
        folder = next((p for p in (self.root, self.annotations) if (p / f"{name}.csv").is_file()), self.root)
        path = folder / f"{name}.csv"
        videos = []
        for line, row in read_table(path, COLUMNS, self.report):
            video = f"{row['action_type']}_{row['video_id']}/{row['view']}"
            if not row["video_end_frame"].isdecimal():
                message = f"video_end_frame must be a whole number, got {row['video_end_frame']!r}"
                self.report(Problem(path, line, message))
            elif video in self.rows:
                message = f"{video} is listed already, here or in the other list"
                self.report(Problem(path, line, message))
            else:
                end = int(row["video_end_frame"])
                self.rows[video] = ViewRow(row["action_type"], row["video_id"], row["view"], end)
                videos.append(video)
        return videos

    def split_videos(self, split: int | None, subset: str) -> list[str]:
        if split is not None:
            raise ValueError(f"assembly101 has one split, train and validation; leave out split={split}")
        return self.sides[subset]

    def labels(self, video: str) -> LabelRuns:
        return self._clip(video)[1]

    def _clip(self, video: str) -> tuple[int, LabelRuns]:
        """First frame and labels of the annotated part, cut where the view ends."""
        row = self.rows[video]
        path = self.annotations / "coarse_labels" / f"{row.action_type}_{row.sequence}.txt"
        key = (path, row.end_frame)
        if key not in self._clips:
            segments = read_coarse_labels(path, self.classes, self.report)
            index = {name: i for i, name in enumerate(self.classes)}
            labels = np.array([index.get(segment.label, -100) for segment in segments], dtype=np.int16)
            limits = np.array([[s.start, s.end] for s in segments], dtype=np.int64).reshape(-1, 2)
            lengths = np.diff(limits.clip(max=row.end_frame), axis=1)[:, 0]
            if not lengths.any():
                message = f"has no segment before the end of view {row.view} at frame {row.end_frame}"
                self.report(Problem(path, None, message))
            runs = LabelRuns(labels[lengths > 0], lengths[lengths > 0].astype(np.int32))
            self._clips[key] = (int(limits[0, 0]) if len(limits) else 0, runs)
        return self._clips[key]

    def feature_path(self, video: str) -> Path:
        row = self.rows[video]
        path = self.features / row.sequence / row.view / "features.npy"
        if not path.is_file():
            raise FileNotFoundError(f"no features of {video!r}: {path} does not exist; see features=...")
        return path

    def load_features(self, video: str, *, feature_dim: int | None = None) -> FeatureTrack:
        """Features of the annotated part; column i of the file is frame i of the labels."""
        start, runs = self._clip(video)
        track = super().load_features(video, feature_dim=feature_dim)
        stop = min(start + runs.num_frames, len(track))
        times = None if track.times is None else track.times[start:stop]
        return FeatureTrack(track.values[:, start:stop], times, track.provenance, track.source)
