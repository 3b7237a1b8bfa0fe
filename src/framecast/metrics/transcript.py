"""Scores of what comes next and when, whatever the class's share of the video.

Over the segments of a horizon; means over the samples of a video, then over videos:
- edit, f1@10, f1@25, f1@50, 0..100: as in temporal segmentation (segmentation.py)
- next_action, 0..100: samples whose next action is the true one; "next" is the first label that differs from
  the last one observed
- start_error: by how much the start of the next action is missed, in percent of the video, and start_error_s
  in seconds where the frame rate is known. A sample that foresees no change counts as if it did at the end of
  the horizon.
The last two count the videos where a change happens within the horizon; num_changes says how many.

Legend: S samples, R runs of frames.
"""

from __future__ import annotations

import numpy as np

from framecast.metrics.future_runs import FutureRuns
from framecast.metrics.segmentation import KEYS, count_video

SEGMENT_KEYS = tuple(key for key in KEYS if key != "accuracy")


class TranscriptCounts:
    """Scores of the videos of one setting."""

    def __init__(self, num_classes: int, frames_per_second: float | None = None) -> None:
        self.frames_per_second = frames_per_second
        self.segments: list[np.ndarray] = []  # per video (4,) SEGMENT_KEYS
        self.changes: list[tuple[float, float, float]] = []  # next_action, start_error, start_error_s

    def add(self, runs: FutureRuns) -> None:
        """Add the frames of one video inside the horizon."""
        samples, times = np.unique(runs.samples, axis=0, return_counts=True)
        share = times / times.sum()
        rows = []
        for sample in samples:
            triples = np.stack([sample.astype(np.int64), runs.target, runs.lengths], axis=1)
            scores = count_video(triples, (), (), runs.video).scores()
            rows.append([scores[key] for key in SEGMENT_KEYS])
        self.segments.append(share @ np.array(rows))

        frame, action = first_change(runs.target[None], runs.lengths, runs.last_seen)
        if action[0] < 0:
            return
        frames, actions = first_change(samples, runs.lengths, runs.last_seen)
        missed = float(share @ np.abs(frames - frame))
        seconds = missed / self.frames_per_second if self.frames_per_second else 0.0
        right = 100 * float(share @ (actions == action))
        self.changes.append((right, 100 * missed / runs.num_frames, seconds))

    def scores(self) -> dict[str, float]:
        segments = np.mean(self.segments or [np.zeros(len(SEGMENT_KEYS))], axis=0)
        changes = np.mean(self.changes or [(0.0, 0.0, 0.0)], axis=0)
        scores = dict(zip(SEGMENT_KEYS, map(float, segments), strict=True))
        names = ("next_action", "start_error", "start_error_s")[: 3 if self.frames_per_second else 2]
        scores |= dict(zip(names, map(float, changes), strict=False))
        return scores | {"num_changes": float(len(self.changes))}


def first_change(labels: np.ndarray, lengths: np.ndarray, last_seen: int) -> tuple[np.ndarray, np.ndarray]:
    """(S,) frames until a label of (S, R) first differs from the one seen last, and that label.

    Where none does: all frames, and -1.
    """
    differs = labels != last_seen
    at, happens = differs.argmax(1), differs.any(1)
    starts = np.cumsum(lengths) - lengths
    action = labels[np.arange(len(labels)), at]
    return np.where(happens, starts[at], lengths.sum()), np.where(happens, action, -1)
