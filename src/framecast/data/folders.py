"""Opens a folder of annotations: which videos there are, how they split, what their labels say.

Here are the MS-TCN folder and the CSV table; assembly101.py and tas_scores.py hold theirs. All of them read
the annotations on construction, so that an error names file and line before any training starts.

Legend: F steps of a feature file, C channels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from framecast.data.annotations import LabelRuns, read_bundle_lines, read_label_runs, read_mapping
from framecast.data.features import FEATURE_SUFFIXES, load_track, read_provenance
from framecast.data.layouts import Layout, find_csv
from framecast.data.problems import Problem, Report, refuse
from framecast.data.tables import SegmentTable, read_segments_csv, unknown_class
from framecast.data.video import SUFFIXES
from framecast.structures import FeatureTrack, Provenance


def stored_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in a feature file, read from its header."""
    if path.suffix == ".npy" and path.stat().st_size == 0:
        raise ValueError(f"{path}: is an empty file; extract the features again")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False).shape
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            name = "features" if "features" in names else names[0]
            return tuple(file.get_slice(name).get_shape())
    except (OSError, ValueError, SafetensorError, IndexError) as error:
        raise ValueError(f"{path}: is not a readable feature file ({error})") from error


def _channels_first(path: Path) -> FeatureTrack:
    if path.suffix == ".npy":
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            values = file.get_tensor("features" if "features" in names else names[0])
    if not np.isfinite(values).all():
        channel, step = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}: {values[channel, step]} at channel {channel}, step {step}; extract it again"
        )
    return FeatureTrack(values, source=str(path))


class AnnotationFolder(ABC):
    """Annotations of one data set on disk.

    report: what to do with a problem in an annotation file; raises the first one by default.
    """

    def __init__(
        self, root: Path, layout: Layout, features: str = "features", report: Report = refuse
    ) -> None:
        self.root = root
        self.layout = layout
        self.report = report
        base = root if root.is_dir() else root.parent
        # "features" is everybody's default; some layouts call that folder otherwise.
        usual = features == "features" and not (base / features).is_dir()
        self.features = base / (layout.features if usual else features)
        self.background: str | None = "background"  # class of the gaps in a table of segments
        self.classes: tuple[str, ...] = ()
        self.videos: list[str] = []

    has_one_split = False  # train and test side are fixed, a split number makes no sense

    @property
    def splits(self) -> list[int]:
        """Cross-validation splits that the folder defines."""
        return []

    def split_videos(self, split: int | None, subset: str) -> list[str]:
        """Videos of the train or test side of a split."""
        raise ValueError(
            f"{self.root} defines no splits; pass folds=5, split=1..5 to cut its {len(self.videos)} videos "
            "into folds, or subset='all'"
        )

    @abstractmethod
    def labels(self, video: str) -> LabelRuns | SegmentTable:
        """Labels of a video: runs that cover it, or a table whose gaps are still to be filled."""

    def feature_path(self, video: str) -> Path:
        """The file that holds the features of a video; FileNotFoundError names where it was looked for."""
        for suffix in FEATURE_SUFFIXES:
            path = self.features / f"{video}{suffix}"
            if path.is_file():
                return path
        where = self.features if self.features.is_dir() else f"{self.features} (no such folder)"
        raise FileNotFoundError(
            f"no features of video {video!r}: looked for {video}.npy and {video}.safetensors in {where}; "
            "extract them with `framecast features` or name their folder with features=..."
        )

    def load_features(self, video: str, *, feature_dim: int | None = None) -> FeatureTrack:
        """Features (C, F) of a video; all layouts store channels first, `feature_dim` finds others."""
        path = self.feature_path(video)
        shape = stored_shape(path)
        if len(shape) == 2 and shape[0] == shape[1] and read_provenance(path) is None:
            # As long as wide (2048 frames of I3D features are): the layout alone tells channels from frames.
            return _channels_first(path)
        return load_track(path, feature_dim=feature_dim or shape[0])

    def provenance(self, video: str) -> Provenance | None:
        """How the features of a video were made, without reading them; None where the file does not say."""
        return read_provenance(self.feature_path(video))

    def _check_split(self, split: int | None) -> int:
        first = self.splits[0]
        if split is None:
            raise ValueError(f"{self.root} has splits {self.splits}; pass split={first} or subset='all'")
        if split not in self.splits:
            raise ValueError(f"{self.root} has no split {split}; its splits are {self.splits}")
        return split


class MstcnFolder(AnnotationFolder):
    """mapping.txt, groundTruth/, splits/: Breakfast, 50Salads, GTEA and one's own data."""

    def __init__(
        self, root: Path, layout: Layout, features: str = "features", report: Report = refuse
    ) -> None:
        super().__init__(root, layout, features, report)
        self.classes = read_mapping(root / "mapping.txt", report)
        if layout.classes and set(layout.classes) != set(self.classes):
            message = (
                f"has {len(self.classes)} classes that are not the {len(layout.classes)} of {layout.name}; "
                "use layout='mstcn' for other classes"
            )
            report(Problem(root / "mapping.txt", None, message))
        folder = root / "groundTruth"
        # Videos may lie in folders below groundTruth; their names then hold slashes.
        paths = sorted(folder.rglob("*.txt"))
        self.paths = {path.relative_to(folder).as_posix().removesuffix(".txt"): path for path in paths}
        if not self.paths:
            report(Problem(folder, None, "holds no <video>.txt; each has one class name per frame"))
        self.videos = list(self.paths)
        self._runs: dict[str, LabelRuns] = {}

    @property
    def splits(self) -> list[int]:
        names = [path.name for path in (self.root / "splits").glob("*.bundle")]
        found = (re.fullmatch(r"(?:train|test)\.split(\d+)\.bundle", name) for name in names)
        return sorted({int(match[1]) for match in found if match})

    def split_videos(self, split: int | None, subset: str) -> list[str]:
        if not self.splits:
            return super().split_videos(split, subset)
        return self.read_split(self._check_split(split))[subset]

    def read_split(self, split: int) -> dict[str, list[str]]:
        """Videos of both sides; a video on both is a problem, so is one without labels."""
        folder = self.root / "splits"
        paths = {side: folder / f"{side}.split{split}.bundle" for side in ("train", "test")}
        lines = {side: {v: n for n, v in read_bundle_lines(p, self.report)} for side, p in paths.items()}
        for side, path in paths.items():
            for video, line in lines[side].items():
                if video not in self.paths:
                    message = f"video {video!r} has no file groundTruth/{video}.txt"
                    self.report(Problem(path, line, message))
        for video, line in lines["train"].items():
            if video in lines["test"]:
                other = f"{paths['test'].name}, line {lines['test'][video]}"
                message = f"video {video!r} is also in {other}; never train on what is tested"
                self.report(Problem(paths["train"], line, message))
        return {side: list(videos) for side, videos in lines.items()}

    def labels(self, video: str) -> LabelRuns:
        if video not in self._runs:
            self._runs[video] = read_label_runs(self.paths[video], self.classes, self.report)
        return self._runs[video]


class CsvFolder(AnnotationFolder):
    """A table of segments; gaps belong to the background class."""

    def __init__(
        self, root: Path, layout: Layout, features: str = "features", report: Report = refuse
    ) -> None:
        super().__init__(root, layout, features, report)
        path = find_csv(root)
        if path is None:
            raise FileNotFoundError(f"{root} holds no segments.csv; its columns are video,start,end,label")
        self.table = read_segments_csv(path, report)
        if not self.table.rows:
            report(Problem(path, None, "holds no segments"))
        self.videos = sorted(self.table.rows)
        mapping = path.parent / "mapping.txt"
        if mapping.is_file():
            self.classes = read_mapping(mapping, report)
        else:
            gap = () if self.background is None else (self.background,)
            self.classes = (*gap, *(label for label in self.table.labels if label not in gap))
        for row in (row for rows in self.table.rows.values() for row in rows):
            if row.label not in self.classes:
                report(unknown_class(path, row, self.classes))

    def labels(self, video: str) -> SegmentTable:
        return self.table

    def feature_path(self, video: str) -> Path:
        """Tables often name the file of the video; its features then go by the name without the suffix."""
        stem = video[: -len(Path(video).suffix)] if Path(video).suffix.lower() in SUFFIXES else video
        return super().feature_path(stem)
