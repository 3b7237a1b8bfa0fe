"""Segments as tokens for a network that anticipates the next one: growing transcripts, training examples.

A token is the class of a segment as one-hot, and its length in a unit of the video's length in the last slot
(Abu Farha et al., CVPR 2018, https://arxiv.org/abs/1804.00892).
Legend: V sequences, N segments, K classes, M cuts of a video, L shares at which a segment is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from framecast.models.label_encoding import runs_of


class Transcripts:
    """Segments of V sequences that grow until each has enough frames; lengths are real numbers of frames."""

    def __init__(
        self, runs: Sequence[tuple[np.ndarray, np.ndarray]], wanted: np.ndarray, unit: np.ndarray
    ) -> None:
        self.count = np.array([len(labels) for labels, _ in runs])
        self.labels = np.zeros((len(runs), self.count.max()), dtype=np.int64)
        self.lengths = np.zeros(self.labels.shape)
        for i, (labels, lengths) in enumerate(runs):
            self.labels[i, : len(labels)], self.lengths[i, : len(labels)] = labels, lengths
        self.wanted = wanted  # (V,) frames
        self.unit = unit  # (V,) frames of a length of 1
        self.made = np.zeros(len(runs), dtype=np.int64)  # frames that were added

    def unfinished(self) -> np.ndarray:
        return np.flatnonzero(self.made < self.wanted)

    def tokens(
        self, rows: np.ndarray, num_classes: int, max_tokens: int, kept: Literal["last", "first"] = "last"
    ) -> tuple[np.ndarray, np.ndarray]:
        """(V, K + 1, N) tokens and (V, N) mask of these sequences, of each the last or first `max_tokens`."""
        count = np.minimum(self.count[rows], max_tokens)
        first = self.count[rows] - count if kept == "last" else np.zeros_like(count)
        place = np.arange(count.max())
        mask = place < count[:, None]
        source = np.where(mask, first[:, None] + place, 0)
        tokens = np.zeros((len(rows), num_classes + 1, len(place)), dtype=np.float32)
        sequence, step = np.nonzero(mask)
        source = source[sequence, step]
        tokens[sequence, self.labels[rows[sequence], source], step] = 1
        tokens[sequence, -1, step] = self.lengths[rows[sequence], source] / self.unit[rows[sequence]]
        return tokens, mask

    def extend(self, rows: np.ndarray, labels: np.ndarray, lengths: np.ndarray, rest: np.ndarray) -> None:
        """Prolong the last segment by `rest` frames, append one of `lengths`; both need a frame."""
        goes_on, follows = rest >= 1, lengths >= 1
        stuck = ~(goes_on | follows)  # as long as was wanted, and done
        self.lengths[rows, self.count[rows] - 1] += np.where(goes_on, rest, stuck * self.wanted[rows])
        wanted = self.wanted[rows]
        for given, frames in ((goes_on, rest), (follows, lengths), (stuck, wanted)):
            self.made[rows] += given * np.minimum(frames, wanted).astype(np.int64)
        if self.count.max() == self.labels.shape[1]:
            more = ((0, 0), (0, self.labels.shape[1]))
            self.labels, self.lengths = np.pad(self.labels, more), np.pad(self.lengths, more)
        rows = rows[follows]
        self.labels[rows, self.count[rows]] = labels[follows]
        self.lengths[rows, self.count[rows]] = lengths[follows]
        self.count[rows] += 1

    def future(self, row: int, observed: int) -> np.ndarray:
        """(wanted,) labels after the observed frames."""
        count = self.count[row]
        enough = observed + self.wanted[row]
        lengths = np.minimum(self.lengths[row, :count], enough).astype(np.int64)
        return np.repeat(self.labels[row, :count], lengths)[observed:enough]


@dataclass(frozen=True)
class CutExamples:
    """One video cut inside each of its N segments but the last, at L shares: all that is learned from it."""

    tokens: np.ndarray  # (K + 1, N) float32, whole segments
    cuts: np.ndarray  # (N,) bool
    lengths: np.ndarray  # (M, L) float32, seen of the segment that is cut
    target: np.ndarray  # (M, L, 3) float32: next class, next length, rest of the cut segment

    def sequences(self, max_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each example by itself: tokens (L M, K + 1, N), number of them (L M,), target (L M, 3).

        In the order of the release: shares outside, cuts inside. Of more than `max_tokens` the last are kept.
        """
        num_cuts, num_shares = self.lengths.shape
        tokens = np.zeros((num_shares, num_cuts, len(self.tokens), max_tokens), dtype=np.float32)
        count = np.minimum(np.arange(num_cuts) + 1, max_tokens)
        for m, n in enumerate(count):
            tokens[:, m, :, :n] = self.tokens[:, m + 1 - n : m + 1]
            tokens[:, m, -1, n - 1] = self.lengths[m]
        flat = tokens.reshape(-1, *tokens.shape[2:])
        return flat, np.tile(count, num_shares), self.target.transpose(1, 0, 2).reshape(-1, 3)


def cut_examples(
    labels: np.ndarray,
    num_classes: int,
    time_units: float,
    num_shares: int = 10,
    next_length: Literal["full", "partial"] = "full",
) -> CutExamples:
    """Examples from the labels (T,) of a video, each segment cut after the shares 0.5/L, 1.5/L, ... of it.

    next_length: the whole length of the next segment, or, as in the release, the share of it that was seen of
    the one that is cut, but for the last cut.
    """
    classes, lengths = runs_of(labels)
    unit = (1.0 / time_units) * len(labels)
    tokens = np.zeros((num_classes + 1, len(classes)), dtype=np.float32)
    tokens[classes, np.arange(len(classes))] = 1
    tokens[-1] = lengths / unit
    shares = (np.arange(num_shares) + 0.5) / num_shares
    seen = (lengths[:, None] * shares).astype(np.int64)  # (N, L)
    following = seen[1:].copy() if next_length == "partial" else np.tile(lengths[1:, None], num_shares)
    following[-1:] = lengths[-1]
    classes_next = np.tile(classes[1:, None], num_shares)
    rest = lengths[:-1, None] - seen[:-1]
    target = np.stack([classes_next, following / unit, rest / unit], axis=-1).astype(np.float32)
    cuts = np.arange(len(classes)) < len(classes) - 1
    return CutExamples(tokens, cuts, (seen[:-1] / unit).astype(np.float32), target)
