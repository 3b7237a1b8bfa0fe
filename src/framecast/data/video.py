"""Frames of a video by the time at which they are shown.

Every time is in seconds from the first frame shown, whatever time stamps the file starts with; the frame at
time t is the one with the largest time stamp <= t, also where the frame rate varies. Frames come upright
(rotation and mirroring of the display matrix applied) as RGB uint8.

A new size is made in one step with the colours, by averaging over areas where it is smaller and bilinearly
where it is larger, which keeps within about 1 of 255 levels of antialiased bicubic. At its own size, a frame
has the pixels that FFmpeg's fast conversion gives, as in PyAV, OpenCV and torchcodec.

    clip = read_frames("cooking.mp4", sample_times(probe("cooking.mp4").duration_s, 16), size=(224, 224))
    for clip in iter_clips("cooking.mp4", step_s=0.5, size=(224, 224)): ...
"""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from av.video.frame import VideoFrame

from framecast.data.video_container import (
    UNTIMED,
    OnError,
    PacketTable,
    VideoError,
    VideoWarning,
    scan,
)
from framecast.data.video_decoding import Decoder, frames_at
from framecast.data.video_integrity import is_whole
from framecast.data.video_pixels import ClipMemory, Orientation, PixelReader, Size
from framecast.structures import Clip

Backend = Literal["auto", "pyav", "torchcodec"]

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv")
SUFFIXES += (".wmv", ".ogv", ".3gp", ".mxf", ".gif")
SAME_TIME_S = 1e-6  # a time that misses a frame by less is rounding: 3 * 0.1 > 0.3


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    path: str
    width: int  # of the upright frame
    height: int
    fps: float  # frames over duration
    duration_s: float  # from the first frame to the end of the last
    num_frames: int
    num_keyframes: int
    codec: str
    rotation: int  # degrees clockwise by which coded frames are turned to be upright
    has_audio: bool
    variable_frame_rate: bool
    damage: str = ""  # what is wrong with the file, "" = nothing seen without decoding it all


def probe(path: str | os.PathLike[str], *, on_error: OnError = "raise") -> VideoInfo:
    """Describe a video: reads every packet, decodes one frame.

    Raises FileNotFoundError, PermissionError, or VideoError with the reason; a damaged file is described
    with `on_error="keep"`.
    """
    table = _checked_scan(path, on_error)
    with Decoder(path, "keep", table=table) as decoder:
        first = next(decoder.every_frame(), None)
        if first is None:
            raise VideoError(f"{path}: none of its frames can be decoded; copy or download it again")
        _, frame = first
        orientation = Orientation.of(frame)
        height, width = orientation.upright(frame.height, frame.width)
        gaps = np.diff(table.frame_pts)
        spread = int(gaps.max() - gaps.min()) if len(gaps) else 0
        return VideoInfo(
            path=str(path),
            width=width,
            height=height,
            fps=len(table.frame_pts) / table.duration_s if table.duration_s > 0 else 0.0,
            duration_s=table.duration_s,
            num_frames=len(table.frame_pts),
            num_keyframes=int((table.keyframe & table.shown).sum()),
            codec=decoder.codec.codec.canonical_name,
            rotation=orientation.degrees,
            has_audio=bool(decoder.container.streams.audio),
            # two ticks either way are the rounding of a constant rate to the time base
            variable_frame_rate=bool(len(gaps)) and spread > max(2, 0.001 * float(np.median(gaps))),
            damage=table.damage,
        )


def frame_times(path: str | os.PathLike[str]) -> np.ndarray:
    """Times (T,) in seconds at which the frames are shown, from the packets, without decoding; first = 0."""
    return _checked_scan(path, "raise").times_s


def read_frames(
    path: str | os.PathLike[str],
    times_s: Sequence[float] | np.ndarray,
    *,
    size: Size = None,
    backend: Backend = "auto",
    keyframes_only: bool = False,
    on_error: OnError = "raise",
) -> Clip:
    """The frames shown at given times, in the order of the times; `Clip.times` tells when each one starts.

    times_s: seconds, any order, repeats allowed. size: (height, width), aspect not kept.
    keyframes_only: take the keyframe nearest to each time instead: several times faster, but times move by
    up to half a keyframe interval and several may get the same frame; `Clip.times` holds the real ones.
    on_error: a damaged video is refused, naming the time at which it breaks; "keep" reads what there is and
    leaves out the times beyond, with a `VideoWarning`.
    Raises FileNotFoundError, PermissionError, VideoError, or ValueError for a time outside the video.
    """
    table = _checked_scan(path, on_error)
    wanted = _wanted_pts(path, table, np.asarray(times_s, dtype=np.float64), keyframes_only, on_error)
    pts, inverse = np.unique(wanted, return_inverse=True)
    if choose_backend(backend) == "torchcodec":
        from framecast.data.video_torchcodec import TorchcodecReader

        frames = TorchcodecReader(path, table, size).frames_at(pts)
        return Clip(frames[torch.from_numpy(inverse)], table.seconds(wanted), str(path))

    pixels: PixelReader | None = None
    rows = torch.empty(0)
    real_pts: dict[int, int] = {}  # index into pts -> time stamp of the frame that is shown then
    for i, frame in frames_at(path, table, pts, on_error):
        if pixels is None:
            pixels = PixelReader(str(path), frame, size)
            rows = pixels.empty(len(pts))
        pixels.read(frame, rows[i].numpy())
        real_pts[i] = int(pts[i]) if frame.pts is None or not table.timed else frame.pts
    if not real_pts:
        raise VideoError(f"{path}: none of the {len(wanted)} frames asked for can be decoded; copy it again")
    kept = np.array([i for i in inverse if i in real_pts])
    if len(kept) < len(pts) or not np.array_equal(kept, np.arange(len(pts))):
        rows = rows[torch.from_numpy(kept)]
    return Clip(rows, table.seconds(np.array([real_pts[i] for i in kept])), str(path))


def iter_clips(
    path: str | os.PathLike[str],
    *,
    frames_per_clip: int = 32,
    step_s: float | None = None,
    size: Size = None,
    backend: Backend = "auto",
    on_error: OnError = "raise",
    threads: int = 1,
) -> Iterator[Clip]:
    """Go through a video from start to end in clips of `frames_per_clip` frames, in constant memory.

    The last clip may be shorter. step_s: take the frame shown at 0, step_s, 2 step_s, … up to the last frame;
    `Clip.times` then holds those times. None: every frame. threads: of the decoder where every frame is read.
    Raises as `read_frames`; damage in the middle is met after the clips before it have been given out.
    """
    if frames_per_clip < 1:
        raise ValueError(f"frames_per_clip is {frames_per_clip}; a clip holds at least 1 frame")
    if step_s is not None and not step_s > 0:
        raise ValueError(f"step_s is {step_s}; frames are taken every step_s > 0 seconds")
    if choose_backend(backend) == "torchcodec":
        from framecast.data.video_torchcodec import TorchcodecReader

        table = _checked_scan(path, on_error)
        steps = table.times_s if step_s is None else _step_times(table, step_s)
        pts = _wanted_pts(path, table, steps, False, on_error)
        reader = TorchcodecReader(path, table, size)
        for start in range(0, len(steps), frames_per_clip):
            part = slice(start, start + frames_per_clip)
            yield Clip(reader.frames_at(pts[part]), steps[part], str(path))
        return

    if step_s is None:
        yield from _dense_clips(path, frames_per_clip, size, on_error, threads)
    else:
        table = _checked_scan(path, on_error)
        steps = _step_times(table, step_s)
        pts, inverse = np.unique(_wanted_pts(path, table, steps, False, on_error), return_inverse=True)
        shown = _repeated(frames_at(path, table, pts, on_error), inverse, steps)
        for frames, times in _collect(shown, str(path), frames_per_clip, size):
            yield Clip(frames, np.array(times), str(path))
            del frames


def sample_times(
    duration_s: float,
    num_frames: int,
    *,
    stride_s: float | None = None,
    mode: Literal["uniform", "center", "random"] = "uniform",
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Times (num_frames,) at which to look at a video of `duration_s` seconds.

    uniform: the middle of each of num_frames equal parts. random: one place inside each part. With
    `stride_s` the frames lie stride_s apart in one window instead, which starts at 0 (uniform), is centred
    (center) or lies anywhere (random); a window longer than the video is squeezed to fit.
    """
    if num_frames < 1 or not duration_s > 0:
        raise ValueError(f"cannot take {num_frames} frames of {duration_s} s; both must be positive")
    if mode not in ("uniform", "center", "random"):
        raise ValueError(f"unknown sampling mode {mode!r}; it is 'uniform', 'center' or 'random'")
    if mode == "random" and generator is None:
        generator = np.random.default_rng()
    if stride_s is None:
        place = generator.random(num_frames) if mode == "random" and generator else 0.5
        return (np.arange(num_frames) + place) * (duration_s / num_frames)
    if not stride_s > 0:
        raise ValueError(f"stride_s is {stride_s}; frames lie stride_s > 0 seconds apart")
    stride_s = min(stride_s, duration_s / num_frames)
    slack = duration_s - stride_s * num_frames
    start = {"uniform": 0.0, "center": 0.5, "random": generator.random() if generator else 0.0}[mode] * slack
    return start + np.arange(num_frames) * stride_s


def find_videos(path_or_glob: str | os.PathLike[str]) -> list[Path]:
    """Video files, sorted: one file, all in a folder, or those that match a pattern ("clips/**/*.mp4")."""
    text = os.fspath(path_or_glob)
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES]
        if not found:
            raise FileNotFoundError(f"{path}: no videos in this folder (looked for {', '.join(SUFFIXES)})")
        return sorted(found)
    found = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not found:
        raise FileNotFoundError(f"{text}: no such file, and as a pattern it matches no file")
    return sorted(found)


def choose_backend(backend: Backend = "auto") -> Literal["pyav", "torchcodec"]:
    """Who decodes: "auto" is PyAV unless the environment variable FRAMECAST_VIDEO_BACKEND says otherwise.

    Installing torchcodec alone changes nothing, so that two machines give the same pixels. Asked for, it is
    tried by loading it and refused with the reason where it does not load.
    """
    name = os.environ.get("FRAMECAST_VIDEO_BACKEND", "pyav") if backend == "auto" else backend
    if name == "torchcodec":
        from framecast.data.video_torchcodec import require_torchcodec

        require_torchcodec()
        return "torchcodec"
    if name != "pyav":
        raise ValueError(f"unknown video backend {name!r}; it is 'auto', 'pyav' or 'torchcodec'")
    return "pyav"


def _dense_clips(
    path: str | os.PathLike[str], frames_per_clip: int, size: Size, on_error: OnError, threads: int
) -> Iterator[Clip]:
    """Every frame; no scan unless the file is damaged or holds no time stamps."""
    with Decoder(path, on_error, threads=threads) as decoder:
        if not is_whole(path) or decoder.container.format.name in UNTIMED:
            decoder.follow(_checked_scan(path, on_error))
        empty = True
        for frames, pts in _collect(decoder.every_frame(), str(path), frames_per_clip, size):
            times = (np.array(pts) - (decoder.first_pts or 0)) * decoder.seconds_per_tick
            yield Clip(frames, times, str(path))
            del frames
            empty = False
    if empty:
        raise VideoError(f"{path}: none of its frames can be decoded; copy or download it again")


def _collect(
    stamped_frames: Iterator[tuple[float, VideoFrame]], source: str, frames_per_clip: int, size: Size
) -> Iterator[tuple[torch.Tensor, list[float]]]:
    """Groups of frames as pixels, with whatever stamp they came with."""
    pixels: PixelReader | None = None
    memory = ClipMemory(())
    last: VideoFrame | None = None
    stamps: list[float] = []
    group, rows = torch.empty(0), np.empty(0)
    for stamp, frame in stamped_frames:
        if pixels is None:
            pixels = PixelReader(source, frame, size)
            memory = ClipMemory((frames_per_clip, 3, pixels.height, pixels.width))
        if not stamps:
            group = memory.take()
            rows = group.numpy()
        if frame is last and stamps:  # the same frame shown at several steps
            rows[len(stamps)] = rows[len(stamps) - 1]
        else:
            pixels.read(frame, rows[len(stamps)])
        last = frame
        stamps.append(stamp)
        if len(stamps) == frames_per_clip:
            done = group, stamps
            group, rows, stamps = torch.empty(0), np.empty(0), []
            yield done
            del done  # else two groups are alive while the next one is read
    if stamps:
        yield group[: len(stamps)], stamps


def _repeated(
    frames: Iterator[tuple[int, VideoFrame]], inverse: np.ndarray, times: np.ndarray
) -> Iterator[tuple[float, VideoFrame]]:
    """Show each decoded frame at every step that it covers."""
    step = 0
    for i, frame in frames:
        while step < len(inverse) and inverse[step] <= i:
            yield float(times[step]), frame
            step += 1


def _step_times(table: PacketTable, step_s: float) -> np.ndarray:
    last = float(table.times_s[-1])
    return np.arange(int((last + SAME_TIME_S) / step_s) + 1) * step_s


def _checked_scan(path: str | os.PathLike[str], on_error: OnError) -> PacketTable:
    """The packet table; a damaged file is refused, or kept with a warning."""
    if on_error not in ("raise", "keep"):
        raise ValueError(f"on_error is {on_error!r}; it is 'raise' or 'keep'")
    table = scan(path)
    if table.damage:
        where = f"{path}: breaks at {table.breaks_at_s:.2f} s ({table.damage})"
        if on_error == "raise":
            raise VideoError(f"{where}; copy it again, or read what there is with on_error='keep'")
        warnings.warn(f"{where}; what can be read is kept", VideoWarning, stacklevel=3)
    return table


def _wanted_pts(
    path: str | os.PathLike[str],
    table: PacketTable,
    times_s: np.ndarray,
    keyframes_only: bool,
    on_error: OnError,
) -> np.ndarray:
    """Time stamp of the frame shown at each time, or of the keyframe nearest to it."""
    if times_s.ndim != 1 or len(times_s) == 0 or not np.isfinite(times_s).all():
        raise ValueError(f"times must be a non-empty vector of seconds, got {times_s!r}")
    end = table.duration_s + float(table.last_duration * table.time_base)
    beyond = (times_s < -SAME_TIME_S) | (times_s > end + SAME_TIME_S)
    if beyond.any() and on_error == "keep" and table.damage:
        times_s = times_s[~beyond]
        if len(times_s) == 0:
            raise VideoError(f"{path}: breaks at {table.breaks_at_s:.2f} s, before all times asked for")
    elif beyond.any():
        raise ValueError(
            f"{path}: a frame at {times_s[beyond][0]:g} s is asked for, but the video lasts from 0 to "
            f"{table.duration_s:g} s"
        )
    if keyframes_only:
        keys = np.unique(table.pts[table.keyframe & table.shown])
        if not len(keys):
            raise VideoError(f"{path}: shows no keyframe; read it with keyframes_only=False")
        seconds = table.seconds(keys)
        after = np.searchsorted(seconds, times_s).clip(1, max(1, len(keys) - 1))
        before = after - 1
        after = after.clip(max=len(keys) - 1)
        return np.where(times_s - seconds[before] <= seconds[after] - times_s, keys[before], keys[after])
    index = np.searchsorted(table.times_s, times_s + SAME_TIME_S, side="right") - 1
    return table.frame_pts[index.clip(min=0)]
