"""Which frames of a video make a clip: the rules of the published recipes, by name.

Pure functions of frame counts; random ones draw from torch's generator, which the training loop seeds per
sample. V frames of the video, T of the clip, clip c of S when one video is tested with several.

    clip_indices("sparse", 300, 16)                          # training: random
    clip_indices("sparse", 300, 16, clip=2, num_clips=4)     # testing

| name          | spread               | training                  | testing                                |
|---------------|----------------------|---------------------------|----------------------------------------|
| sparse        | over the whole video | one of each of T parts    | S places inside the parts              |
| segments      | over the whole video | one of each of T parts    | starts and centres of the parts, dealt |
| midpoints     | over the whole video | one of each of T parts    | the middle of each part                |
| dense         | T frames, stride s   | window starts anywhere    | windows from the start, V/S apart      |
| dense-centred | T frames, stride s   | window starts anywhere    | windows spread from end to end         |

Sources: sparse and segments as VideoMamba trains Kinetics and Something-Something
(https://arxiv.org/abs/2403.06977), dense and midpoints as TimeSformer does (https://arxiv.org/abs/2102.05095).
"""

from __future__ import annotations

import numpy as np
import torch

from framecast.registry import did_you_mean

SAMPLINGS = ("sparse", "segments", "midpoints", "dense", "dense-centred")


def clip_indices(
    sampling: str,
    video_frames: int,
    num_frames: int,
    *,
    clip: int | None = None,
    num_clips: int = 1,
    stride: int = 16,
) -> np.ndarray:
    """(T,) int64 frame numbers of a clip by the rule of that name, ascending; short videos repeat frames.

    clip: which of `num_clips` test clips, None = a random training clip. stride: source frames between
    those of a clip, for the dense rules.
    """
    check_sampling(sampling)
    if video_frames < 1 or num_frames < 1 or num_clips < 1:
        raise ValueError(
            f"cannot take {num_clips} clips of {num_frames} frames from {video_frames} frames; "
            "all three must be at least 1"
        )
    if clip is not None and not 0 <= clip < num_clips:
        raise ValueError(f"clip is {clip}; with num_clips={num_clips} it is from 0 to {num_clips - 1}")
    if sampling.startswith("dense"):
        if clip is None:
            return dense_train(video_frames, num_frames, stride)
        centred = sampling == "dense-centred"
        return dense(video_frames, num_frames, stride, clip, num_clips, centred=centred)
    if sampling == "sparse":
        if clip is None:
            return sparse_train(video_frames, num_frames)
        return sparse(video_frames, num_frames, clip, num_clips)
    if sampling == "midpoints":
        return (
            midpoints(video_frames, num_frames)
            if clip is not None
            else sparse_train(video_frames, num_frames)
        )
    if clip is None:
        return segments_train(video_frames, num_frames)
    return segments(video_frames, num_frames, clip, num_clips)


def check_sampling(sampling: str) -> None:
    """Refuse an unknown name."""
    if sampling not in SAMPLINGS:
        near = did_you_mean(sampling, SAMPLINGS)
        raise ValueError(f"unknown frame sampling {sampling!r}{near}; there are {', '.join(SAMPLINGS)}")


# --- over the whole video --------------------------------------------------------------------------------


def _borders(video_frames: int, num_frames: int) -> np.ndarray:
    """(T+1,) limits round(i (V-1) / T) of T parts; halves go to the even number."""
    return np.round(np.arange(num_frames + 1) * ((video_frames - 1) / num_frames)).astype(np.int64)


def sparse_ranges(video_frames: int, num_frames: int) -> np.ndarray:
    """(T, 2) first and last frame (included) from which each frame of a training clip is drawn."""
    borders = _borders(video_frames, num_frames)
    return np.stack([borders[:-1], borders[1:]], axis=1)


def sparse_train(video_frames: int, num_frames: int) -> np.ndarray:
    """One frame of every part, each with the same probability."""
    first, last = sparse_ranges(video_frames, num_frames).T
    return first + _random_below(last - first + 1)


def sparse(video_frames: int, num_frames: int, clip: int = 0, num_clips: int = 1) -> np.ndarray:
    """round(i v) + floor(v (c+1) / (S+1)) with v = (V-1) / T: one place in every part, later for later c."""
    part = (video_frames - 1) / num_frames
    offset = int(part / (num_clips + 1) * (clip + 1))
    return np.minimum(_borders(video_frames, num_frames)[:-1] + offset, video_frames - 1)


def segments_train(video_frames: int, num_frames: int) -> np.ndarray:
    """One frame of every part [i V/T, (i+1) V/T)."""
    borders = np.arange(num_frames + 1) * video_frames // num_frames
    return borders[:-1] + _random_below(np.maximum(np.diff(borders), 1))


def segments(video_frames: int, num_frames: int, clip: int = 0, num_clips: int = 2) -> np.ndarray:
    """Every S-th frame, from the c-th on, of the starts and centres of T parts in order.

    The published rule is for S = 2, where each clip has T frames; S = 1 takes the centres.
    """
    if num_clips > 2:
        raise ValueError(
            f"sampling 'segments' knows starts and centres: 1 or 2 clips, not {num_clips}; use 'sparse'"
        )
    tick = video_frames / num_frames
    starts = (np.arange(num_frames) * tick).astype(np.int64)
    centres = (np.arange(num_frames) * tick + tick / 2).astype(np.int64)
    return centres if num_clips == 1 else np.sort(np.concatenate([starts, centres]))[clip::2]


def midpoints(video_frames: int, num_frames: int) -> np.ndarray:
    """The frame half-way between the rounded limits of each part, rounded down."""
    borders = _borders(video_frames, num_frames)
    return (borders[:-1] + borders[1:]) // 2


# --- a window --------------------------------------------------------------------------------------------


def dense_train(video_frames: int, num_frames: int, stride: int = 16) -> np.ndarray:
    """T frames `stride` apart from a random start; a window longer than the video stays on its last frame."""
    slack = max(video_frames - num_frames * stride, 0)
    return _window(float(torch.rand(())) * slack, video_frames, num_frames, stride)


def dense(
    video_frames: int,
    num_frames: int,
    stride: int = 16,
    clip: int = 0,
    num_clips: int = 1,
    *,
    centred: bool = False,
) -> np.ndarray:
    """Window c of S starts at slack c / S, slack = V - T stride: one clip starts at frame 0, as released.

    centred: at slack (c + 1/2) / S instead, so that one clip lies in the middle.
    """
    slack = max(video_frames - num_frames * stride, 0)
    return _window(slack * (clip + 0.5 * centred) / num_clips, video_frames, num_frames, stride)


def _window(start: float, video_frames: int, num_frames: int, stride: int) -> np.ndarray:
    if stride < 1:
        raise ValueError(f"stride is {stride}; frames of a clip lie at least 1 frame apart")
    places = np.linspace(start, start + num_frames * stride - 1, num_frames)
    return np.clip(places, 0, video_frames - 1).astype(np.int64)


def trimmed(
    video_frames: int, first: int, last: int, num_frames: int, clip: int = 0, num_clips: int = 1
) -> np.ndarray:
    """The sparse rule inside a window of a long video, from its first to its last frame (both included)."""
    return first + sparse(min(last, video_frames - 1) - first + 1, num_frames, clip, num_clips)


def trimmed_windows(
    video_frames: int, fps: float, *, window_s: float = 60.0, step_s: float = 16.0
) -> list[tuple[int, int]]:
    """First and last frame (included) of windows that are tested one by one; the last may be short."""
    if not (video_frames > 0 and fps > 0 and window_s > 0 and step_s > 0):
        raise ValueError(
            f"cannot cut {video_frames} frames at {fps} per second into windows of {window_s} s "
            f"every {step_s} s; all must be positive"
        )
    duration_s = video_frames / fps
    count = 1 + max(0, int(np.ceil((duration_s - window_s) / step_s)))
    starts = [round(k * step_s * fps) for k in range(count)]
    return [(start, min(start + round(window_s * fps), video_frames - 1)) for start in starts]


def _random_below(limits: np.ndarray) -> np.ndarray:
    """A uniform integer in [0, limit) for every limit."""
    draws = torch.rand(len(limits), dtype=torch.float64).numpy()
    return np.minimum((draws * limits).astype(np.int64), limits - 1)
