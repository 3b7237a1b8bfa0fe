"""Frames of any shape as Video-Panda reads them: which frames, scaled into a square with a margin, mirrored.

The release mirrors every clip by a toss of a coin, also when it answers, and student and teacher by two
different ones (`mirrored(..., "release")`); here nothing is mirrored unless asked for, and then both alike.
Its frame positions fail for videos of one frame and for less than half a frame per second; these do not.
Legend: T frames, H and W pixels of a video, S side of the square.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from framecast.data.images import IMAGE_SUFFIXES, read_image
from framecast.data.video import frame_times, read_frames

Mirror = Literal["never", "together", "release"]


def frame_positions(video_frames: int, frames_per_second: float, count: int = 8) -> list[int]:
    """At most `count` frames of a video: one per second, thinned out evenly; of a short video more.

    A video with fewer frames than `count` gives all of them.
    """
    if video_frames < 1:
        raise ValueError("the video has no frames")
    if not 0 < frames_per_second < math.inf:
        raise ValueError(f"frames per second must be positive, got {frames_per_second}")
    positions = list(range(0, video_frames, max(1, round(frames_per_second))))
    if len(positions) < count:
        positions = list(range(0, video_frames, max(1, (video_frames - 1) // max(count - 1, 1))))
    if len(positions) <= count:
        return positions
    chosen = torch.linspace(0, len(positions) - 1, count, dtype=torch.float64).long()
    return [positions[i] for i in chosen.tolist()]


def letterboxed_size(height: int, width: int, size: int = 448, unit: int = 28) -> tuple[int, int]:
    """Pixels that an H x W frame gets inside a square: the long side all of it, the short side whole units.

    The unit is a teacher's patch, which is two of the student's; so the aspect ratio changes a little.
    """
    if size % unit:
        raise ValueError(f"a square of {size} pixels is not cut into units of {unit}")
    long, short = max(height, width), min(height, width)
    if short < 1:
        raise ValueError(f"a frame of {height} x {width} pixels shows nothing")
    scaled = unit * -(-(size // unit * short) // long)  # rounded up, exactly
    return (size, scaled) if height >= width else (scaled, size)


def letterbox(
    frames: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    size: int = 448,
    unit: int = 28,
    num_frames: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Frames (T, 3, H, W) uint8 to a normalised clip (3, T, S, S) and its valid pixels (T, S, S) bool.

    The margin is the mean colour, which is zero after normalisation. num_frames: shorter clips are filled up
    with empty frames. A teacher reads the same frames with its own size and unit, 224 and 14.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"expected uint8 frames (T, 3, H, W), but got {frames.dtype} {tuple(frames.shape)}")
    count = len(frames)
    if num_frames is not None and count > num_frames:
        raise ValueError(f"{count} frames for a clip of {num_frames}; choose with frame_positions first")
    if not count:
        raise ValueError("the clip has no frames")
    height, width = letterboxed_size(*frames.shape[-2:], size, unit)
    scaled = vision.resize(frames, [height, width], InterpolationMode.BICUBIC, antialias=True)
    pixels = vision.normalize(scaled.float() / 255, list(mean), list(std))
    top, left = ((size - side) // unit // 2 * unit for side in (height, width))
    clip = pixels.new_zeros(3, num_frames or count, size, size)
    clip[:, :count, top : top + height, left : left + width] = pixels.transpose(0, 1)
    valid = torch.zeros(clip.shape[1:], dtype=torch.bool)
    valid[:count, top : top + height, left : left + width] = True
    return clip, valid


class Letterboxed(NamedTuple):
    """A clip, or an image as a clip of one frame, as Video-Panda reads it."""

    clip: Tensor  # (3, T, S, S) normalised
    valid: Tensor  # (T, S, S) bool, False = margin
    times: np.ndarray  # (t,) seconds of the frames that are there; the others are empty


def read_letterboxed(
    path: str | os.PathLike[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    size: int = 448,
    unit: int = 28,
    num_frames: int = 8,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Letterboxed:
    """A video, or the part of it from `start_s` to `end_s`, or an image.

    Raises FileNotFoundError, VideoError or ImageError where it cannot be read, ValueError where no frame lies
    between the two times.
    """
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        clip, valid = letterbox(read_image(path)[None], mean, std, size=size, unit=unit)
        return Letterboxed(clip, valid, np.zeros(1))
    times = frame_times(path)
    first, last = (0.0 if start_s is None else start_s), (math.inf if end_s is None else end_s)
    inside = times[(times >= first) & (times < last)]
    if not len(inside):
        raise ValueError(
            f"{path} has no frame from {first:g} to {last:g} seconds; it lasts {times[-1]:.1f} seconds"
        )
    rate = (len(inside) - 1) / (inside[-1] - inside[0]) if len(inside) > 1 else 1.0
    read = read_frames(path, inside[frame_positions(len(inside), float(rate), num_frames)])
    clip, valid = letterbox(read.frames, mean, std, size=size, unit=unit, num_frames=num_frames)
    return Letterboxed(clip, valid, read.times)


def mirrored(
    student: Tensor, teacher: Tensor | None, mirror: Mirror, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor | None]:
    """What a student and its teacher read, (…, W) each, left and right changed or not.

    mirror: "never"; "together" = one toss of a coin for both; "release" = one for each, so that half of the
    targets lie on the wrong side.
    """
    tosses = torch.rand(2, generator=generator) < 0.5
    turn, turn_teacher = tosses.tolist() if mirror == "release" else [tosses[0].item()] * 2
    if mirror == "never":
        turn = turn_teacher = False
    student = student.flip(-1) if turn else student
    return student, teacher.flip(-1) if teacher is not None and turn_teacher else teacher
