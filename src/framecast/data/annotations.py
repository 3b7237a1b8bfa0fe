"""Reads labels of temporal activity data: the MS-TCN folder and Assembly101's coarse labels.

MS-TCN: mapping.txt, groundTruth/<video>.txt, split bundles. CSV tables of segments are in tables.py and
offered here too. Every reader names file and line of what is wrong (problems.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from framecast.data.problems import AnnotationError, Problem, Report, read_lines, refuse
from framecast.data.tables import (
    UNLABELLED,
    SegmentRow,
    SegmentTable,
    read_segments_csv,
    read_table,
    segment_row,
    unknown_class,
    write_segments_csv,
    write_segments_json,
)
from framecast.registry import did_you_mean

__all__ = [
    "UNLABELLED",
    "AnnotationError",
    "LabelRuns",
    "Problem",
    "SegmentRow",
    "SegmentTable",
    "read_actions",
    "read_bundle",
    "read_coarse_labels",
    "read_frame_labels",
    "read_label_runs",
    "read_mapping",
    "read_segments_csv",
    "write_segments_csv",
    "write_segments_json",
]

# --- MS-TCN folders ----------------------------------------------------------------------------------------


def read_mapping(path: str | Path, report: Report = refuse) -> tuple[str, ...]:
    """Class names in the order of their ids, from lines `<id> <name>` in any order.

    Raises AnnotationError where ids are not 0..K-1, each once, or a name occurs twice.
    """
    path = Path(path)
    names: dict[int, str] = {}
    known: dict[str, int] = {}
    num_lines = 0
    for number, line in enumerate(read_lines(path, report), start=1):
        if not line:
            continue
        num_lines += 1
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or not parts[0].isdecimal():
            report(Problem(path, number, f"expected '<id> <name>', for example '0 background', got {line!r}"))
            continue
        index, name = int(parts[0]), parts[1]
        if index in names:
            report(
                Problem(path, number, f"id {index} is given to {names[index]!r} already, here to {name!r}")
            )
        elif name in known:
            report(Problem(path, number, f"class {name!r} has id {known[name]} already, here {index}"))
        else:
            names[index], known[name] = name, index
    if not num_lines:
        if path.exists():
            report(Problem(path, None, "is empty; write one class a line as '<id> <name>'"))
        return ()
    missing = sorted(set(range(len(names))) - set(names))
    if missing and len(names) == num_lines:
        report(Problem(path, None, f"ids must be 0..{len(names) - 1}, each once; id {missing[0]} is missing"))
    return tuple(names[i] for i in sorted(names))


@dataclass(frozen=True)
class LabelRuns:
    """Labels of a video as runs: a Breakfast video of 2000 frames has seven."""

    labels: np.ndarray  # (N,) int16
    lengths: np.ndarray  # (N,) int32, frames

    @property
    def num_frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def frame_labels(self) -> np.ndarray:
        """(T,) int64 class index of every frame."""
        return np.repeat(self.labels.astype(np.int64), self.lengths)


def read_label_runs(path: str | Path, classes: Sequence[str], report: Report = refuse) -> LabelRuns:
    """Runs of equal labels from a file with one class name per frame.

    Raises AnnotationError for a name that is not a class, an empty line or an empty file.
    """
    path = Path(path)
    index = {name: i for i, name in enumerate(classes)}
    labels, lengths, line = [], [], 1
    unknown: dict[str, tuple[int, int]] = {}  # name -> first line, number of lines
    lines = read_lines(path, report)
    if not lines and path.exists():
        report(Problem(path, None, "holds no labels; write one class name per frame"))
    for name, run in groupby(lines):
        length = sum(1 for _ in run)
        if name not in index:
            first, count = unknown.get(name, (line, 0))
            unknown[name] = (first, count + length)
        labels.append(index.get(name, UNLABELLED))
        lengths.append(length)
        line += length
    for name, (first, count) in unknown.items():
        what = f"class {name!r} is not in the mapping{did_you_mean(name, index)}" if name else "empty line"
        report(Problem(path, first, f"{what} ({count} lines)" if count > 1 else what))
    return LabelRuns(np.array(labels, dtype=np.int16), np.array(lengths, dtype=np.int32))


def read_frame_labels(path: str | Path, classes: Sequence[str]) -> np.ndarray:
    """(T,) int64 class index of every frame, from a file with one class name per frame."""
    return read_label_runs(path, classes).frame_labels


def read_bundle(path: str | Path, report: Report = refuse) -> list[str]:
    """Video names of a split, one `<video>.txt` a line.

    A first line that starts with '#', folders in front (./data/groundTruth/<video>.txt) and a missing
    newline at the end are tolerated, as the bundles of several releases have them.
    """
    return [video for _, video in read_bundle_lines(Path(path), report)]


def read_bundle_lines(path: Path, report: Report = refuse) -> list[tuple[int, str]]:
    """Line number and video name of every entry of a split."""
    found: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, report), start=1):
        if not line or line.startswith("#"):
            continue
        entry = line.replace("\\", "/")
        # Below groundTruth/ videos may be in folders; anything above is the author's disk.
        entry = entry.split("groundTruth/", 1)[1] if "groundTruth/" in entry else entry.rsplit("/", 1)[-1]
        video = entry.removesuffix(".txt")
        if video in found:
            report(Problem(path, number, f"video {video!r} is listed on line {found[video]} already"))
        else:
            found[video] = number
    if not found and path.exists():
        report(Problem(path, None, "lists no video; write one '<video>.txt' a line"))
    return [(number, video) for video, number in found.items()]


# --- Assembly101 -------------------------------------------------------------------------------------------


def read_actions(path: str | Path, report: Report = refuse) -> tuple[str, ...]:
    """Names of Assembly101's coarse actions in the order of their ids, from actions.csv."""
    path = Path(path)
    names: dict[int, str] = {}
    for number, row in read_table(path, ("action_id", "action_cls"), report):
        index, name = row["action_id"], row["action_cls"]
        if not index.isdecimal():
            report(Problem(path, number, f"action_id must be a whole number, got {index!r}"))
        elif int(index) in names:
            report(Problem(path, number, f"action_id {index} is given to {names[int(index)]!r} already"))
        else:
            names[int(index)] = name
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        report(Problem(path, None, f"action ids must be 0..{len(names) - 1}; id {missing[0]} is missing"))
    return tuple(names[i] for i in sorted(names))


def read_coarse_labels(path: str | Path, classes: Sequence[str], report: Report = refuse) -> list[SegmentRow]:
    """Contiguous segments from lines `start<TAB>end<TAB>action<TAB>`, in frames at 30 per second.

    Raises AnnotationError for an unknown action and where a segment does not start at the end of the last.
    """
    path = Path(path)
    known, rows = set(classes), []
    for number, line in enumerate(read_lines(path, report), start=1):
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) < 3:
            report(Problem(path, number, f"expected 'start<TAB>end<TAB>action', got {line!r}"))
            continue
        row = segment_row(path, number, parts[2], parts[0], parts[1], "frames", report)
        if row is None:
            continue
        if row.label not in known:
            report(unknown_class(path, row, known))
        elif rows and row.start != rows[-1].end:
            report(
                Problem(
                    path, number, f"starts at {row.start:g} but the segment before ends at {rows[-1].end:g}"
                )
            )
        rows.append(row)
    if not rows and path.exists():
        report(Problem(path, None, "holds no segments"))
    return rows
