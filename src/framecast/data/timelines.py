"""Timelines of what happened so far, typed or recorded by anyone: tables of segments, or a label per line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framecast.data.annotations import read_frame_labels
from framecast.data.problems import Problem, refuse
from framecast.data.tables import UNLABELLED, SegmentTable, read_segments_csv
from framecast.structures import Segments

TIMELINE_SUFFIXES = (".csv", ".txt")
FINEST_S = 0.1  # limits in seconds are kept to this


def read_timelines(
    path: str | Path, classes: tuple[str, ...], frames_per_second: float | None = None
) -> list[Segments]:
    """Segments of every video of a timeline file, from its beginning to the end of its last segment.

    path: CSV with video,start_s,end_s,label (seconds) or video,start,end,label (frames), or text with one
    class name per frame. frames_per_second: of the frames; without it a timeline in frames has no times.
    What lies between segments is class "background" where there is one, and not labelled else.

    Raises AnnotationError for unknown classes, with file and line, ValueError for other files.
    """
    path = Path(path)
    if path.suffix == ".txt":
        labels = read_frame_labels(path, classes)
        times = _times(labels, frames_per_second)
        return [Segments.from_frames(labels, classes, video=path.stem, times=times)]
    if path.suffix != ".csv":
        raise ValueError(f"{path}: a timeline is a .csv table of segments or a .txt with a class per frame")
    table = read_segments_csv(path)
    if not table.rows:
        refuse(Problem(path, None, "holds no segments"))
    return [timeline_of(table, video, classes, frames_per_second) for video in table.rows]


def timeline_of(
    table: SegmentTable, video: str, classes: tuple[str, ...], frames_per_second: float | None = None
) -> Segments:
    """Segments of one video of a table; see `read_timelines`."""
    limits, times = table.limits_s(video), None
    if limits is not None:
        times = np.arange(round(float(limits.max()) / FINEST_S)) * FINEST_S
    labels = table.frame_labels(video, classes, times=times)
    if not (labels != UNLABELLED).any():
        line = table.rows[video][0].line
        refuse(Problem(table.path, line, f"{video!r} has no segment of {FINEST_S} s or more"))
    times = _times(labels, frames_per_second) if times is None else times
    return Segments.from_frames(labels, classes, video=video, times=times)


def _times(labels: np.ndarray, frames_per_second: float | None) -> np.ndarray | None:
    return None if not frames_per_second else np.arange(len(labels)) / frames_per_second
