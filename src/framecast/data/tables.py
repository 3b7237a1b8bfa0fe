"""Segments of many videos as one table: plain CSV files, read and written.

Columns: video, label and either start, end (frames) or start_s, end_s (seconds). Limits are half-open,
[start, end). Frames between segments belong to the background class.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framecast.data.problems import Problem, Report, read_text, refuse
from framecast.registry import did_you_mean
from framecast.structures import Segments
from framecast.writing import write_file

ROUNDING_S = 1e-6  # seconds are written with six digits
UNLABELLED = -100  # label of frames that nobody annotated; losses and scores leave them out


@dataclass(frozen=True)
class SegmentRow:
    """One line of a table of segments."""

    start: float
    end: float  # exclusive
    label: str
    line: int
    seconds: tuple[float, float] | None = None  # the same limits, where a table in frames has them too


@dataclass
class SegmentTable:
    """Segments of many videos as a CSV file or Assembly101's text files give them."""

    path: Path
    unit: Literal["frames", "seconds"]
    rows: dict[str, list[SegmentRow]] = field(default_factory=dict)  # video -> segments by start

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that occurs, in alphabetical order."""
        return tuple(sorted({row.label for rows in self.rows.values() for row in rows}))

    def frame_labels(
        self,
        video: str,
        classes: Sequence[str],
        *,
        num_frames: int | None = None,
        times: np.ndarray | None = None,
        background: str | None = "background",
    ) -> np.ndarray:
        """(T,) int64 class index of every frame; frames in gaps get the background class.

        num_frames: length in frames, None = up to the end of the last segment (unit "frames" only).
        times: (T,) seconds of the frames, needed where the unit is "seconds". Where they are given and the
        table holds seconds, these count: its frames may be those of another time step. background: class of
        the gaps, None = -100 there.
        """
        index = {name: i for i, name in enumerate(classes)}
        rows = self.rows[video]
        if self.unit == "seconds" and times is None:
            raise ValueError(
                f"{self.path}: segments of {video!r} are in seconds, but its features hold no times; "
                "extract them with `framecast features` or give start and end in frames"
            )
        limits_s = self.limits_s(video)
        if times is not None and limits_s is not None:
            starts, ends = np.searchsorted(times, limits_s - ROUNDING_S, side="left").T
            length = len(times)
        else:
            starts, ends = np.array([[row.start, row.end] for row in rows], dtype=np.int64).T
            length = int(ends.max()) if num_frames is None else num_frames
        gap = UNLABELLED if background is None else index.get(background, UNLABELLED)
        labels = np.full(length, gap, dtype=np.int64)
        for row, start, end in zip(rows, starts, ends, strict=True):
            if row.label not in index:
                refuse(unknown_class(self.path, row, index))
            labels[start:end] = index[row.label]
        return labels

    def limits_s(self, video: str) -> np.ndarray | None:
        """(N, 2) seconds of the segments of a video, None where the table has frames only."""
        rows = self.rows[video]
        limits = [(row.start, row.end) if self.unit == "seconds" else row.seconds for row in rows]
        return None if None in limits else np.array(limits, dtype=np.float64)


def unknown_class(path: Path, row: SegmentRow, classes: Iterable[str]) -> Problem:
    return Problem(
        path, row.line, f"class {row.label!r} is not in the mapping{did_you_mean(row.label, classes)}"
    )


def read_segments_csv(path: str | Path, report: Report = refuse) -> SegmentTable:
    """Segments from a CSV file with the columns video, label and limits.

    Limits are start, end in frames or start_s, end_s in seconds. Where a file has both, the seconds count
    for features that hold times and the frames for others; frames that the first row leaves empty are not
    looked at. Other columns are left alone. Raises AnnotationError for missing columns, limits that are no
    numbers, end <= start, and segments of a video that overlap.
    """
    path = Path(path)
    reader = csv.reader(io.StringIO(read_text(path, report), newline=""))
    lines = [
        (reader.line_num, row) for row in _csv_rows(reader, path, report) if any(cell.strip() for cell in row)
    ]
    table = SegmentTable(path, "frames")
    if not lines:
        if path.exists():
            report(Problem(path, None, "is empty; the first line must be video,start,end,label"))
        return table
    header = [cell.strip().lower() for cell in lines[0][1]]
    column = {name: i for i, name in enumerate(header)}
    if not {"video", "label"} <= set(column) or not ({"start", "end"} <= set(column) or _in_seconds(column)):
        expected = "video,start,end,label (frames) or video,start_s,end_s,label (seconds)"
        report(Problem(path, lines[0][0], f"the columns are {','.join(header)}; expected {expected}"))
        return table
    start, end = _limit_columns(column, lines)
    table.unit = "seconds" if start.endswith("_s") else "frames"
    for number, cells in lines[1:]:
        if len(cells) < len(header):
            report(Problem(path, number, f"has {len(cells)} of {len(header)} columns: {','.join(cells)!r}"))
            continue
        values = {name: cells[i].strip() for name, i in column.items()}
        row = segment_row(path, number, values["label"], values[start], values[end], table.unit, report)
        limits_s = values.get("start_s", ""), values.get("end_s", "")
        # A track of a single frame lasts 0 s.
        if row is not None and table.unit == "frames" and all(limits_s) and limits_s[0] != limits_s[1]:
            in_seconds = segment_row(path, number, values["label"], *limits_s, "seconds", report)
            row = in_seconds and replace(row, seconds=(in_seconds.start, in_seconds.end))
        if not values["video"]:
            report(Problem(path, number, "the video column is empty"))
        elif row is not None:
            table.rows.setdefault(values["video"], []).append(row)
    for video, rows in table.rows.items():
        rows.sort(key=lambda r: (r.start, r.end))
        _report_overlaps(path, video, rows, report)
    return table


def _csv_rows(reader: Any, path: Path, report: Report) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        report(Problem(path, reader.line_num, f"is not valid CSV ({error})"))


def _in_seconds(column: dict[str, int]) -> bool:
    return {"start_s", "end_s"} <= set(column)


def _limit_columns(column: dict[str, int], lines: list[tuple[int, list[str]]]) -> tuple[str, str]:
    if "start" not in column or "end" not in column:
        return "start_s", "end_s"
    first = lines[1][1] if len(lines) > 1 else []
    empty = len(first) > column["start"] and not first[column["start"]].strip()
    return ("start_s", "end_s") if empty and _in_seconds(column) else ("start", "end")


def segment_row(
    path: Path, line: int, label: str, start: str, end: str, unit: str, report: Report
) -> SegmentRow | None:
    try:
        limits = float(start), float(end)
    except ValueError:
        report(Problem(path, line, f"start and end must be numbers, got {start!r} and {end!r}"))
        return None
    if not all(math.isfinite(limit) for limit in limits) or limits[0] < 0:
        report(Problem(path, line, f"start and end must be finite and at least 0, got {start} and {end}"))
    elif unit == "frames" and not all(limit.is_integer() for limit in limits):
        message = (
            f"start and end are frames but got {start} and {end}; name the columns start_s,end_s for seconds"
        )
        report(Problem(path, line, message))
    elif limits[1] <= limits[0]:
        report(Problem(path, line, f"end {end} is not after start {start}; ends are exclusive"))
    elif not label:
        report(Problem(path, line, "the label is empty"))
    else:
        return SegmentRow(limits[0], limits[1], label, line)
    return None


def _report_overlaps(path: Path, video: str, rows: list[SegmentRow], report: Report) -> None:
    last = rows[0]
    for row in rows[1:]:
        if row.start < last.end:
            message = (
                f"{row.label!r} from {row.start:g} to {row.end:g} overlaps {last.label!r} of line {last.line}"
            )
            report(Problem(path, row.line, f"{message} ({last.start:g} to {last.end:g}) in video {video!r}"))
        last = max(last, row, key=lambda r: r.end)


def read_table(
    path: Path, columns: Sequence[str], report: Report = refuse
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every line of a CSV file that must have these columns."""
    reader = csv.DictReader(io.StringIO(read_text(path, report), newline=""))
    header = list(reader.fieldnames or [])
    missing = [name for name in columns if name not in header]
    if missing:
        if path.exists():
            report(Problem(path, 1, f"column {missing[0]} is missing; the columns are {','.join(header)}"))
        return
    for row in reader:
        if any(row[name] is None for name in columns):
            report(Problem(path, reader.line_num, f"has too few columns; expected {','.join(header)}"))
        else:
            yield reader.line_num, {name: row[name].strip() for name in columns}


# --- Writing -----------------------------------------------------------------------------------------------

COLUMNS = ("video", "start", "end", "start_s", "end_s", "label", "confidence")


def segment_records(segments: Segments) -> Iterator[dict[str, Any]]:
    """One record per labelled segment; seconds and confidence are None where unknown."""
    limits_s = segments.limits_s
    for i, name in enumerate(segments.names):
        if segments.labels[i] < 0:
            continue  # not labelled: a gap, which is how readers take it
        seconds = (None, None) if limits_s is None else (round(float(t), 6) for t in limits_s[i])
        confidence = None if segments.confidence is None else round(float(segments.confidence[i]), 6)
        limits = (int(segments.starts[i]), int(segments.ends[i]))
        yield dict(zip(COLUMNS, (segments.video, *limits, *seconds, name, confidence), strict=True))


def write_segments_csv(segments: Iterable[Segments], path: str | Path) -> Path:
    """Write segments of one or many videos as CSV; `read_segments_csv` reads them back."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in segments:
        writer.writerows(segment_records(one))
    return write_file(path, text.getvalue())


def write_segments_json(segments: Iterable[Segments], path: str | Path) -> Path:
    """Write segments of one or many videos as JSON: per video its classes, length and segments."""
    videos = [
        {
            "video": one.video,
            "num_frames": one.num_frames,
            "classes": list(one.classes),
            "segments": [{k: v for k, v in r.items() if k != "video"} for r in segment_records(one)],
        }
        for one in segments
    ]
    return write_file(path, json.dumps({"videos": videos}, indent=1, ensure_ascii=False) + "\n")
