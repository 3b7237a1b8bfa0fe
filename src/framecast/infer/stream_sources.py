"""Where a stream comes from: frames of a file or a camera, vectors of a feature file, rows of a table.

Frames are taken at 0, step_s, 2 step_s, … as `iter_clips` takes them: the frame shown at a time is the last
one that begins by then, so it is known when the next frame comes, one frame later. Decoding is PyAV's.
"""

from __future__ import annotations

import csv
import errno
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from torch import Tensor

from framecast.data.problems import AnnotationError, Problem, refuse
from framecast.data.tables import SegmentRow, SegmentTable, segment_row
from framecast.data.video import SAME_TIME_S, is_whole
from framecast.data.video_container import UNTIMED, VideoError, reason_of, scan
from framecast.data.video_decoding import Decoder
from framecast.data.video_pixels import PixelReader, Size
from framecast.structures import FeatureTrack

CAMERA_DEMUXER = "v4l2"  # Video4Linux2, the only cameras that PyAV's builds for Linux read
POLL_S = 0.1  # how often a stream that waits looks whether it should stop
CHUNK = 1 << 16  # bytes

TimedFrame = tuple[float, VideoFrame]


def never() -> bool:
    return False


class Pace:
    """The clock of a stream that does not wait for us: how late we are, and what is too late to be looked at.

    A step whose turn comes more than max_delay_s after it was shown is skipped. paced: a file is given out
    like a camera's pictures, each at its time; a camera keeps its own pace.
    """

    def __init__(
        self,
        max_delay_s: float = 2.0,
        *,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        stop: Callable[[], bool] = never,
    ) -> None:
        self.max_delay_s, self.paced = max_delay_s, paced
        self.clock, self.sleep, self.stop = clock, sleep, stop
        self._began: float | None = None

    def meet(self, time_s: float) -> None:
        """What is shown at time_s is about to be looked at; wait until then where the stream is paced."""
        now = self.clock()
        if self._began is None:
            self._began = now - time_s
        if not self.paced:
            self._began = min(self._began, now - time_s)  # the camera's clock may run faster than ours
        while self.paced and (left := self._began + time_s - self.clock()) > 0 and not self.stop():
            self.sleep(min(left, POLL_S))

    def delay_s(self, time_s: float) -> float:
        """Seconds since what is shown at time_s was shown."""
        return 0.0 if self._began is None else max(0.0, self.clock() - self._began - time_s)

    def is_late(self, time_s: float) -> bool:
        return self.delay_s(time_s) > self.max_delay_s


@dataclass(frozen=True)
class Step:
    """What a stream shows at one of its steps: a new picture, a vector, or nothing new."""

    time_s: float
    frames: Tensor | None = None  # (1, 3, H, W) uint8
    vector: np.ndarray | None = None  # (C,) of a feature file
    skipped: bool = False  # too late to be looked at; what was seen last is taken to go on


# Frames ----------------------------------------------------------------------------------------------


def file_frames(path: str | os.PathLike[str]) -> Generator[TimedFrame]:
    """Every frame of a file with its time, as it is decoded; damage is met when its time has come."""
    with Decoder(path, "raise") as decoder:
        if not is_whole(path) or decoder.container.format.name in UNTIMED:
            decoder.follow(scan(path))
        empty = True
        for pts, frame in decoder.every_frame():
            empty = False
            yield (pts - (decoder.first_pts or 0)) * decoder.seconds_per_tick, frame
    if empty:
        raise VideoError(f"{path}: none of its frames can be decoded; copy or download it again")


def is_camera(source: str) -> bool:
    """Whether a source names a device, there or not."""
    if source.startswith("/dev/"):
        return True
    try:
        return stat.S_ISCHR(os.stat(source).st_mode)
    except OSError:
        return False


def camera_frames(device: str, *, demuxer: str = CAMERA_DEMUXER) -> Generator[TimedFrame]:
    """Pictures of a camera with their time, the first at 0; never ends by itself.

    Raises VideoError with what to do where there is no camera, it is taken, or it goes away.
    """
    try:
        container = av.open(device, format=demuxer)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise VideoError(f"{device}: {_why_no_camera(error)}") from None
    with container:
        stream = container.streams.video[0]
        tick = float(stream.time_base or 0)
        first: float | None = None
        try:
            for frame in container.decode(stream):
                now = time.monotonic() if frame.pts is None else frame.pts * tick
                first = now if first is None else first
                yield now - first, frame
        except av.FFmpegError as error:
            raise VideoError(
                f"{device}: the camera stopped ({reason_of(error)}); is it plugged in?"
            ) from None


def _why_no_camera(error: Exception) -> str:
    if not sys.platform.startswith("linux"):
        return "cameras are read through Video4Linux, on Linux only; record to a file and stream that"
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "no such camera; `ls /dev/video*` shows which there are"
    if number in (errno.EACCES, errno.EPERM):
        return "no permission to use the camera; become a member of the group 'video'"
    if number == errno.EBUSY:
        return "the camera is used by another program; close that first"
    return f"is not a camera that can be read ({reason_of(error)}); try the next /dev/video*"


def video_steps(
    frames: Iterator[TimedFrame],
    step_s: float | None,
    size: Size,
    *,
    source: str = "",
    pace: Pace | None = None,
) -> Generator[Step]:
    """A step of every frame, or of 0, step_s, …; a frame that is still shown comes without pixels."""
    pixels: PixelReader | None = None
    read: VideoFrame | None = None
    for time_s, frame in shown(_at_their_time(frames, pace), step_s):
        if pixels is not None and pace is not None and pace.is_late(time_s):
            yield Step(time_s, skipped=True)
        elif frame is read:
            yield Step(time_s)
        else:
            pixels = pixels or PixelReader(source, frame, size)
            memory = pixels.empty(1)
            pixels.read(frame, memory[0].numpy())
            read = frame
            yield Step(time_s, frames=memory)


def shown(frames: Iterator[TimedFrame], step_s: float | None) -> Generator[TimedFrame]:
    """The frame shown at 0, step_s, … up to the last frame, each given out as soon as it is certain."""
    if step_s is None:
        yield from frames
        return
    k, last_s, last = 0, 0.0, None
    for time_s, frame in frames:
        while last is not None and k * step_s + SAME_TIME_S < time_s:
            yield k * step_s, last
            k += 1
        last_s, last = time_s, frame
    while last is not None and k <= int((last_s + SAME_TIME_S) / step_s):
        yield k * step_s, last
        k += 1


def _at_their_time(frames: Iterator[TimedFrame], pace: Pace | None) -> Generator[TimedFrame]:
    for time_s, frame in frames:
        if pace is not None:
            pace.meet(time_s)
        yield time_s, frame


# Features --------------------------------------------------------------------------------------------


def track_steps(track: FeatureTrack, step_s: float | None, pace: Pace | None = None) -> Generator[Step]:
    """The vectors of a feature track, one after the other; step_s: between them, where it holds no times."""
    if track.times is None and step_s is None:
        raise ValueError(
            f"{track.source}: the feature file does not say when its vectors are; extract features with "
            "`framecast features`"
        )
    for i in range(len(track)):
        time_s = float(track.times[i]) if track.times is not None else i * (step_s or 0.0)
        if pace is not None:
            pace.meet(time_s)
        if i and pace is not None and pace.is_late(time_s):
            yield Step(time_s, skipped=True)
        else:
            yield Step(time_s, vector=np.asarray(track.values[:, i]))


# Tables ----------------------------------------------------------------------------------------------


def table_rows(
    path: str, *, follow: bool = False, stop: Callable[[], bool] = never
) -> Iterator[tuple[str, list[SegmentRow]]]:
    """Video and new rows of a growing table video,start_s,end_s,label; "-" is standard input.

    All rows that have come since are given at once. follow: wait for more where a file ends, until `stop`.
    Raises AnnotationError naming file and line: other columns, limits that are no numbers, rows that are
    not in order, several videos.
    """
    reader = RowReader(Path("standard input" if path == "-" else path))
    for lines in _lines(path, follow, stop):
        rows = [row for line in lines if (row := reader.read(line)) is not None]
        if rows:
            yield reader.video, rows
    if reader.columns is None:
        refuse(Problem(reader.path, None, "is empty; the first line must be video,start_s,end_s,label"))


class RowReader:
    """Lines of a table of segments in seconds, one by one, of one video, in order of time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: dict[str, int] | None = None
        self.video, self.number, self.end = "", 0, 0.0

    def read(self, line: str) -> SegmentRow | None:
        """The row of a line; None for the header and for empty lines."""
        self.number += 1
        if not line.strip():
            return None
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
        except csv.Error as error:
            raise AnnotationError(Problem(self.path, self.number, f"is not valid CSV ({error})")) from None
        if self.columns is None:
            columns = {name.lower().removeprefix("\ufeff"): i for i, name in enumerate(cells)}
            if not {"video", "start_s", "end_s", "label"} <= set(columns):
                found = f"the columns are {','.join(cells)}; a stream needs video,start_s,end_s,label"
                refuse(Problem(self.path, self.number, found))
            self.columns = columns
            return None
        if len(cells) < len(self.columns):
            self._refuse(f"has {len(cells)} of {len(self.columns)} columns: {line.strip()!r}")
        video, start, end, label = (cells[self.columns[k]] for k in ("video", "start_s", "end_s", "label"))
        row = segment_row(self.path, self.number, label, start, end, "seconds", refuse)
        assert row is not None
        if self.video and video != self.video:
            self._refuse(f"is of {video!r}, the rows before of {self.video!r}; a stream is of one video")
        if row.start < self.end - SAME_TIME_S:
            self._refuse(
                f"{label!r} starts at {row.start:g} s, before {self.end:g} s where the last row ends"
            )
        self.video, self.end = video, row.end
        return row

    def _refuse(self, message: str) -> None:
        refuse(Problem(self.path, self.number, message))


def table_until(rows: list[SegmentRow], video: str, time_s: float, path: str) -> SegmentTable:
    """What the rows say up to time_s."""
    cut = [
        SegmentRow(row.start, min(row.end, time_s), row.label, row.line) for row in rows if row.start < time_s
    ]
    return SegmentTable(Path(path), "seconds", {video: cut})


def _lines(path: str, follow: bool, stop: Callable[[], bool]) -> Iterator[list[str]]:
    """The whole lines that have come since, as often as there are new ones."""
    waiting = b""
    for chunk in _chunks(path, follow, stop):
        *whole, waiting = (waiting + chunk).split(b"\n")
        if whole:
            yield [_text(line, path) for line in whole]
    if waiting:
        yield [_text(waiting, path)]


def _text(line: bytes, path: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text ({line[:40]!r}); write the table as UTF-8") from None


def _chunks(path: str, follow: bool, stop: Callable[[], bool]) -> Iterator[bytes]:
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder; pass a table of segments, or - for standard input")
    file = os.dup(sys.stdin.fileno()) if path == "-" else os.open(path, os.O_RDONLY)
    try:
        while not stop():
            if path == "-" and os.name == "posix" and not select.select([file], [], [], POLL_S)[0]:
                continue
            if chunk := os.read(file, CHUNK):
                yield chunk
            elif path != "-" and follow:
                time.sleep(POLL_S)
            else:
                return
    finally:
        os.close(file)
