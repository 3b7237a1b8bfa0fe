"""Video files before any decoding: opening them, what is wrong with them, where each packet lies in time.

A video is timed by the presentation time stamps (pts) of its packets, in ticks of the stream's time base.
One pass over the packets, which decodes nothing, gives the time of every frame, the keyframes and the
place where a damaged file breaks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from framecast.data.video_integrity import matroska_break, missing_bytes

OnError = Literal["raise", "keep"]

# Demuxers that read one self-contained file. Playlists, image sequences and text formats stay out: a file
# somebody sent could name other files on this machine or addresses on the network.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,ogg,gif,mxf,nut,wtv,dv,ivf,rm,"
    "mp3,wav,aac,flac,aiff,ac3,amr"  # sound only: opened to say that there is no picture in them
)

UNTIMED = (
    "avi",
)  # holds frames in decoding order without time stamps: what FFmpeg makes up may be in disorder

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a numpy array"),
)


class VideoError(ValueError):
    """A file cannot be read as a video; the message names the file and the reason in one line."""


class VideoWarning(UserWarning):
    """A damaged video was read as far as it goes."""


@dataclass(frozen=True)
class PacketTable:
    """Where the packets of the picture stream lie in time, in the order in which they are decoded.

    N packets. A packet is *shown* unless an edit list cuts it away or it comes before the first keyframe.
    """

    pts: np.ndarray  # (N,) int64 ticks
    dts: np.ndarray  # (N,) int64 ticks, decoding order
    keyframe: np.ndarray  # (N,) bool
    shown: np.ndarray  # (N,) bool
    time_base: Fraction  # seconds per tick
    last_duration: int  # ticks for which the last frame stays
    timed: bool  # False = some packets carry no pts, times have to come from decoding
    damage: str = ""  # what is wrong with the file, "" = nothing seen
    breaks_at: int = 0  # ticks, where the damage begins
    frame_pts: np.ndarray = field(init=False, repr=False)  # (F,) int64 ticks, ascending: every frame shown

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_pts", np.unique(self.pts[self.shown]))

    def seconds(self, pts: np.ndarray) -> np.ndarray:
        """Ticks to seconds from the first frame."""
        return (np.asarray(pts, dtype=np.int64) - self.frame_pts[0]).astype(np.float64) * float(
            self.time_base
        )

    @property
    def breaks_at_s(self) -> float:
        return float(self.seconds(np.array(self.breaks_at)))

    @property
    def times_s(self) -> np.ndarray:
        return self.seconds(self.frame_pts)

    @property
    def duration_s(self) -> float:
        return float(self.seconds(self.frame_pts[-1:] + self.last_duration)[0])


def open_video(path: str | os.PathLike[str], *, threads: int = 1) -> tuple[InputContainer, VideoStream]:
    """Open a video file and its picture stream; the caller closes the container.

    threads: of the decoder; 1 gives every process of a pool its own core.
    Raises FileNotFoundError, PermissionError, or VideoError with the reason.
    """
    path = Path(path)
    head = _read_head(path)
    try:
        container = av.open(
            f"file:{path}",  # a name such as "concat:a|b" stays a file name
            metadata_errors="ignore",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        raise VideoError(f"{path}: {_why_unreadable(path, head, error)}") from None
    pictures = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    reason = ""
    if not pictures:
        reason = "holds sound but no picture" if container.streams.audio else "holds no video stream"
    elif pictures[0].codec_context is None:
        reason = (
            "is coded in a format that this build of FFmpeg cannot decode; re-encode it, for example as H.264"
        )
    if reason:
        container.close()
        raise VideoError(f"{path}: {reason}")
    stream = pictures[0]
    stream.codec_context.thread_count = threads
    stream.thread_type = "FRAME" if threads > 1 else "SLICE"
    return container, stream


def _read_head(path: Path) -> bytes:
    """First bytes of a regular file that is there, may be read and is not empty."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise VideoError(f"{path}: is a folder; pass a video in it, or a pattern such as '{path}/*.mp4'")
    if not path.is_file():
        raise VideoError(f"{path}: is not a regular file; copy the video to disk first")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except PermissionError:
        raise PermissionError(
            f"{path}: no permission to read it; change its mode or run as its owner"
        ) from None
    if not head:
        raise VideoError(f"{path}: is empty (0 bytes); copy or download it again")
    return head


def _why_unreadable(path: Path, head: bytes, error: Exception) -> str:
    for signature, what in SIGNATURES:
        if head.startswith(signature):
            return f"is {what}, not a video"
    if head[4:8] == b"ftyp" and missing_bytes(path) != 0:
        return (
            f"is cut off: {path.stat().st_size:,} bytes are there but not the index at the end; "
            "copy or download it again"
        )
    text = head.rstrip(b"\x00")
    if text and all(byte in b"\t\n\r\x0c\x1b" or 32 <= byte < 127 or byte >= 160 for byte in text):
        return "is text, not a video"
    return f"is not a video that FFmpeg can open ({reason_of(error)})"


def scan(path: str | os.PathLike[str]) -> PacketTable:
    """Read every packet without decoding; the answer is kept while the file stays the same.

    Raises VideoError when there is no packet to show, and as `open_video` does.
    """
    path = Path(path)
    _read_head(path)
    stat = path.stat()
    return _scan(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _scan(path: Path, size: int, mtime_ns: int) -> PacketTable:
    rows: list[tuple[int | None, int | None, bool, bool, int]] = []
    duration, damage, damaged_row = 0, "", None
    container, stream = open_video(path)
    with container:
        time_base = stream.time_base
        try:
            for packet in container.demux(stream):
                if packet.size == 0:  # the mark at the end of the stream
                    continue
                if packet.is_corrupt:
                    if not damage:
                        damage, damaged_row = "a packet is incomplete", len(rows)
                    continue
                rows.append((packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.pos or 0))
                duration = packet.duration or duration
        except av.FFmpegError as error:
            damage = f"reading stops, {reason_of(error)}"
    missing = missing_bytes(path)
    if not rows or time_base is None:
        reason = (
            f"is cut off before the first frame, {missing:,} bytes are missing"
            if missing
            else "holds no frames"
        )
        raise VideoError(f"{path}: {reason if missing else 'holds no frames'}; copy or record it again")

    pts, dts, keyframe, discard, place = (list(column) for column in zip(*rows, strict=True))
    timed = None not in pts and container.format.name not in UNTIMED
    pts = np.array([p if p is not None else (d or 0) for p, d in zip(pts, dts, strict=True)], dtype=np.int64)
    dts = np.array([d if d is not None else p for p, d in zip(pts, dts, strict=True)], dtype=np.int64)
    keyframe = np.array(keyframe)
    if not keyframe.any():
        raise VideoError(f"{path}: holds no keyframe, so no frame can be decoded; re-encode its source")
    first = keyframe.argmax()
    shown = ~np.array(discard) & (pts >= pts[first]) & (np.arange(len(pts)) >= first)
    if not shown.any():
        raise VideoError(f"{path}: holds no frames that are shown; its edit list cuts all of them away")
    stamps = np.unique(pts[shown])
    if timed:
        refuse_shared_times(path, int(shown.sum()), len(stamps))
    gaps = np.diff(stamps)
    duration = duration or (int(np.median(gaps)) if len(gaps) else 0)

    broken_byte = matroska_break(path) if not missing else None
    if missing:
        damage, damaged_row = f"cut off, {missing:,} of {size + missing:,} bytes are missing", None
    elif broken_byte is not None:
        damage = f"bytes {broken_byte:,} and after make no sense"
        damaged_row = int(np.searchsorted(np.maximum.accumulate(place), broken_byte))
    before = pts[:damaged_row][shown[:damaged_row]]
    breaks_at = (int(before.max()) + duration) if len(before) else int(pts[first])
    return PacketTable(pts, dts, keyframe, shown, time_base, duration, timed, damage, breaks_at)


def refuse_shared_times(path: str | os.PathLike[str], frames: int, stamps: int) -> None:
    """VideoError where most frames share their time stamp with others: nobody knows when they are shown."""
    if stamps * 3 < frames:  # two packets of one time may be the fields of one frame
        raise VideoError(
            f"{path}: its {frames:,} frames have {stamps:,} different time{'s' if stamps > 1 else ''}; give "
            "them a rate, for example: ffmpeg -r 25 -i broken.mp4 fixed.mp4"
        )


def reason_of(error: Exception) -> str:
    """What FFmpeg says, as the end of a sentence."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason[0].lower() + reason[1:]
