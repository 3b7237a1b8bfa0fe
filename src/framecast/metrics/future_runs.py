"""Sampled futures beside the truth, as runs of frames in which no label changes.

Legend: n frames of the video, M predicted frames, S samples, K classes, R runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FutureRuns:
    """The predicted part of one video: labels of all samples and the truth, run by run."""

    video: str
    observed: float  # share of the video that was seen
    num_frames: int  # n, of the whole video
    first_frame: int  # of the video, at which the first run begins
    last_seen: int  # true label of the last observed frame, -1 where nothing was observed
    lengths: np.ndarray  # (R,) frames
    target: np.ndarray  # (R,)
    samples: np.ndarray  # (S, R)
    probabilities: np.ndarray | None = None  # (K, R), None = shares of the samples

    @property
    def end_frame(self) -> int:
        return self.first_frame + int(self.lengths.sum())

    def frequencies(self, num_classes: int) -> np.ndarray:
        """(R, K) share of the samples that show a class."""
        samples, runs = self.samples.shape
        index = np.arange(runs) * num_classes + self.samples
        return np.bincount(index.ravel(), minlength=runs * num_classes).reshape(runs, num_classes) / samples

    def split_at(self, limits: np.ndarray, ignored: tuple[int, ...]) -> tuple[FutureRuns, np.ndarray]:
        """Runs from the first to the last of growing frame limits (L,), none of them across a limit.

        Returns them with (R',), the limit at or before each run, 0..L-2. Ignored targets are left out.
        """
        ends = np.cumsum(self.lengths)
        edges = np.union1d(np.append(0, ends), np.clip(limits - self.first_frame, 0, self.lengths.sum()))
        place = np.searchsorted(limits - self.first_frame, edges[:-1], side="right") - 1
        source = np.searchsorted(ends, edges[:-1], side="right")
        kept = (place >= 0) & (place < len(limits) - 1) & ~np.isin(self.target[source], ignored)
        lengths, source, place = np.diff(edges)[kept], source[kept], place[kept]
        probabilities = None if self.probabilities is None else self.probabilities[:, source]
        runs = replace(
            self,
            first_frame=int(limits[0]),
            lengths=lengths,
            target=self.target[source],
            samples=self.samples[:, source],
            probabilities=probabilities,
        )
        return runs, place

    def equals(self, other: FutureRuns) -> bool:
        mine, theirs = vars(self), vars(other)
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, fit for JSON."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FutureRuns:
        """Rebuild from `to_json`."""
        kinds = {"lengths": np.int64, "target": np.int64, "samples": np.int16, "probabilities": np.float32}
        given = {k: kind for k, kind in kinds.items() if values[k] is not None}
        arrays: dict[str, Any] = {k: np.array(values[k], dtype=kind) for k, kind in given.items()}
        return cls(**(values | arrays))


def future_runs(
    predicted: np.ndarray,
    target: np.ndarray,
    observed: float,
    video: str,
    first_frame: int,
    probabilities: np.ndarray | None = None,
) -> FutureRuns:
    """Merge frames of sampled labels (S, M) that begin at `first_frame` of a video with true labels (n,).

    What is predicted beyond the end of the video is dropped. probabilities: (K, M) of each frame.
    """
    num_frames = len(target)
    frames = min(predicted.shape[1], num_frames - first_frame)
    predicted, truth = predicted[:, :frames], target[first_frame : first_frame + frames]
    changes = (predicted[:, 1:] != predicted[:, :-1]).any(axis=0) | (truth[1:] != truth[:-1])
    if probabilities is not None:
        probabilities = probabilities[:, :frames]
        changes |= (probabilities[:, 1:] != probabilities[:, :-1]).any(axis=0)
    starts = np.flatnonzero(np.append(True, changes)[:frames])
    seen = int(observed * num_frames)
    return FutureRuns(
        video,
        observed,
        num_frames,
        first_frame,
        int(target[seen - 1]) if seen else -1,
        np.diff(np.append(starts, frames)),
        truth[starts].astype(np.int64),
        predicted[:, starts].astype(np.int16),
        None if probabilities is None else probabilities[:, starts].astype(np.float32),
    )
