"""Finds every problem of a folder of annotations and features in one pass, before any training starts.

Folders of labelled images and clips are checked by check_recognition.py, questions by check_questions.py.

The same readers that training uses are run with a list instead of an exception at their end, so that what
passes here can be read there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.check_questions import QuestionReport, inspect_questions
from framecast.data.check_recognition import RecognitionReport, inspect_recognition
from framecast.data.features import FEATURE_SUFFIXES
from framecast.data.folders import AnnotationFolder, MstcnFolder
from framecast.data.layouts import detect_layout
from framecast.data.problems import AnnotationError, Problem
from framecast.data.recognition import RECOGNITION_LAYOUTS
from framecast.data.recognition_layouts import detect_layout as detect_recognition_layout
from framecast.data.segmentation import SegmentationData, open_folder
from framecast.data.tables import SegmentTable
from framecast.data.video import SUFFIXES, probe
from framecast.data.video_questions import QUESTION_LAYOUTS, is_question_set
from framecast.structures import Provenance


@dataclass
class DataReport:
    """What a folder holds and what is wrong with it."""

    root: Path
    layout: str = ""
    problems: list[Problem] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    splits: list[int] = field(default_factory=list)
    feature_dim: int | None = None
    provenance: tuple[Path, Provenance | None] = (Path(), None)  # of the first features read
    frames: dict[str, int] = field(default_factory=dict)  # per video
    segments: dict[str, int] = field(default_factory=dict)  # per video, gaps included
    class_frames: Counter[str] = field(default_factory=Counter)

    figures = ("videos", "frames", "segments", "classes")  # of the summary, for one line

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def unused_classes(self) -> list[str]:
        return [name for name in self.classes if not self.class_frames[name]]

    def summary(self) -> dict[str, Any]:
        """Figures for a person or for JSON; lengths in frames."""
        frames, segments = list(self.frames.values()), list(self.segments.values())
        return {
            "root": str(self.root),
            "layout": self.layout,
            "problems": len(self.problems),
            "videos": len(frames),
            "frames": sum(frames),
            "frames_per_video": _range(frames),
            "segments": sum(segments),
            "segments_per_video": _range(segments),
            "classes": len(self.classes),
            "class_frames": {name: self.class_frames[name] for name in self.classes},
            "unused_classes": self.unused_classes,
            "splits": self.splits,
            "feature_dim": self.feature_dim,
        }


def _range(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "mean": round(sum(values) / len(values), 2), "max": max(values)}


def check_data(
    root: str | Path,
    layout: str = "auto",
    *,
    features: str | Path | None = "features",
    feature_dim: int | None = None,
    label_fps: float | None = None,
) -> list[Problem]:
    """Every problem of a folder, an empty list where there is none; see `inspect_data`."""
    return inspect_data(
        root, layout, features=features, feature_dim=feature_dim, label_fps=label_fps
    ).problems


def inspect_data(
    root: str | Path,
    layout: str = "auto",
    *,
    features: str | Path | None = "features",
    feature_dim: int | None = None,
    label_fps: float | None = None,
) -> DataReport:
    """Read every label, feature and video file of a folder and report what is there and what is wrong.

    features: folder of the features, None = check the annotations alone. feature_dim, label_fps: as for
    `open_segmentation`. Nothing but a bug raises; a folder that cannot be opened is a problem too.
    """
    report = DataReport(Path(root))
    try:
        folder = open_folder(root, layout, str(features or "features"), report.problems.append)
    except (ValueError, OSError) as error:
        report.problems.append(_problem(error, Path(root)))
        return report
    report.layout, report.classes, report.splits = folder.layout.name, folder.classes, folder.splits
    if isinstance(folder, MstcnFolder):
        for split in folder.splits:
            folder.read_split(split)
    with_features = _with_features(folder, report) if features is not None else False
    for video in folder.videos:
        labels = _labels(folder, video, report)
        if with_features:
            labels = _check_features(folder, video, report, feature_dim, label_fps, labels)
        if labels is not None:
            _count(report, video, labels)
    if with_features:
        _report_stray_features(folder, report)
    _check_videos(folder, report)
    report.problems = _without_repeats(report.problems)
    return report


def inspect_folder(
    root: str | Path, layout: str = "auto", *, features: str | Path | None = "features"
) -> DataReport | RecognitionReport | QuestionReport:
    """Check a folder of frame labels (`inspect_data`), of labelled images or clips, or of questions.

    layout: of any kind; "auto" looks at the folder and takes it for frame labels where it can be both these
    and labelled clips. Questions may be a single file too.
    """
    if layout in QUESTION_LAYOUTS or (layout == "auto" and is_question_set(root)):
        return inspect_questions(root, layout)
    if layout in RECOGNITION_LAYOUTS or (layout == "auto" and _is_recognition(Path(root))):
        return inspect_recognition(root, layout)
    return inspect_data(root, layout, features=features)


def _is_recognition(root: Path) -> bool:
    """Whether a folder is one of labelled images or clips and not one of frame labels."""
    try:
        found = detect_recognition_layout(root)
    except (ValueError, OSError):
        return False
    if found == "segments":  # clips or frame labels: the table can be both
        return False
    try:
        return detect_layout(root).name == "csv"  # which any table is, labels.csv too
    except (ValueError, OSError):
        return True


def _with_features(folder: AnnotationFolder, report: DataReport) -> bool:
    if folder.features.is_dir():
        return True
    message = "no such folder; extract features with `framecast features` or name their folder"
    report.problems.append(Problem(folder.features, None, message))
    return False


def _labels(folder: AnnotationFolder, video: str, report: DataReport) -> np.ndarray | None:
    """Frame labels of a video as annotated; None where its length is known from the features only."""
    try:
        found = folder.labels(video)
        if not isinstance(found, SegmentTable):
            return found.frame_labels
        if found.unit == "seconds":
            return None
        known = {row.label for row in found.rows[video]} <= set(folder.classes)
        return found.frame_labels(video, folder.classes, background=folder.background) if known else None
    except (ValueError, OSError) as error:
        report.problems.append(_problem(error, folder.root))
        return None


def _check_features(
    folder: AnnotationFolder,
    video: str,
    report: DataReport,
    feature_dim: int | None,
    label_fps: float | None,
    labels: np.ndarray | None,
) -> np.ndarray | None:
    """Read features and labels as training does; returns the labels at the annotation's rate."""
    path = folder.features
    try:
        path = folder.feature_path(video)
        data = SegmentationData(
            folder, [video], feature_dim=feature_dim, label_fps=label_fps, cache_bytes=1 << 40
        )
        width = data.feature_dim
        if report.feature_dim is None:
            report.feature_dim = width
            report.provenance = path, data.provenance
        elif width != report.feature_dim:
            message = f"has {width} channels where the files before have {report.feature_dim}"
            report.problems.append(Problem(path, None, message))
            return labels
        if data.provenance != (first := report.provenance)[1]:
            differences = "one says how it was made, the other does not"
            if data.provenance and first[1]:
                differences = "; ".join(data.provenance.differences(first[1]))
            if differences:
                message = f"was made differently from {first[0].name} ({differences})"
                report.problems.append(Problem(path, None, message))
        return data.annotation(0) if labels is None or len(labels) else labels
    except (ValueError, OSError) as error:
        report.problems.append(_problem(error, path))
        return labels


def _count(report: DataReport, video: str, labels: np.ndarray) -> None:
    report.frames[video] = len(labels)
    report.segments[video] = int(np.count_nonzero(np.diff(labels))) + bool(len(labels))
    ids, counts = np.unique(labels[(labels >= 0) & (labels < len(report.classes))], return_counts=True)
    for i, count in zip(ids, counts, strict=True):
        report.class_frames[report.classes[i]] += int(count)


def _report_stray_features(folder: AnnotationFolder, report: DataReport) -> None:
    """Feature files of videos that nobody labelled."""
    if folder.layout.name in ("assembly101", "tas_scores"):
        return  # their lists say which files are to be used
    used = set()
    for video in folder.videos:
        with suppress(FileNotFoundError):
            used.add(folder.feature_path(video))
    where = "no file in groundTruth/" if isinstance(folder, MstcnFolder) else "no row of the table"
    for path in _files(folder.features, FEATURE_SUFFIXES):
        if path not in used:
            report.problems.append(Problem(path, None, f"has no labels: {where} is for {path.stem!r}"))


def _check_videos(folder: AnnotationFolder, report: DataReport) -> None:
    """Probe the files of `videos/` where there is such a folder."""
    videos = (folder.root if folder.root.is_dir() else folder.root.parent) / "videos"
    if not videos.is_dir():
        return
    for path in _files(videos, SUFFIXES):
        try:
            probe(path)
        except (ValueError, OSError) as error:
            report.problems.append(_problem(error, path))


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _problem(error: Exception, path: Path) -> Problem:
    if isinstance(error, AnnotationError):
        return error.problem
    message = str(error)
    return Problem(path, None, message.removeprefix(f"{path}: "))


def _without_repeats(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
