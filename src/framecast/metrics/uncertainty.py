"""Does a forecast know what it does not know? Scores of per-frame class probabilities and sampled futures.

Probabilities are the model's own where it gives them, else the shares of the samples. Over the frames of a
horizon, all videos together:
- ece = sum over 15 equal bins of confidence of (share of frames) |accuracy - mean confidence|, where the
  most probable class is predicted
- brier = mean of sum_k (p_k - [k = y])^2, 0..2
- entropy = mean of -sum_k p_k log p_k; entropy_right, entropy_wrong = the same over frames where the most
  probable class is right or wrong
- entropy_auc = chance that a wrong frame has the higher entropy of a wrong and a right one, ties count half;
  0.5 where there are no two to compare
Over the classes of a horizon, summed, then the mean over videos:
- presence_brier = (share of samples in which the class occurs - [it occurs])^2
- crps = E|X - y| - E|X - X'| / 2, where X is the share of the horizon that a sample gives to the class, y its
  true share: 0 is perfect, 2 is a sure and wholly wrong forecast

Sources: Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599); Gneiting and Raftery, JASA 2007.
Legend: S samples, K classes, R runs of frames.
"""

from __future__ import annotations

import numpy as np

from framecast.metrics.future_runs import FutureRuns
from framecast.metrics.recognition import BINS


class UncertaintyCounts:
    """Sums over the videos of one setting."""

    def __init__(self, num_classes: int, frames_per_second: float | None = None) -> None:
        self.num_classes = num_classes
        self.bins = np.zeros((3, BINS))  # frames, sum of confidences, right frames
        self.squares = 0.0
        self.presence: list[float] = []
        self.crps: list[float] = []
        self.entropies: list[np.ndarray] = []  # per video (R, 3): entropy, whether wrong, frames

    def add(self, runs: FutureRuns) -> None:
        """Add the frames of one video inside the horizon."""
        if runs.probabilities is None:
            p = runs.frequencies(self.num_classes)  # (R, K)
        else:
            p = runs.probabilities.T.astype(np.float64)
        frames = runs.lengths.astype(np.float64)
        wrong = p.argmax(1) != runs.target
        confidence = p.max(1)
        place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        for sums, values in zip(self.bins, (1.0, confidence, ~wrong), strict=True):
            sums += np.bincount(place, values * frames, minlength=BINS)
        of_target = p[np.arange(len(p)), runs.target]
        self.squares += float(frames @ (np.square(p).sum(1) - 2 * of_target + 1))
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
        self.entropies.append(np.stack([entropy, wrong, frames], axis=1))
        self._add_classes(runs)

    def _add_classes(self, runs: FutureRuns) -> None:
        share = class_shares(runs.samples, runs.lengths, self.num_classes)  # (S, K)
        true = class_shares(runs.target[None], runs.lengths, self.num_classes)[0]
        self.presence.append(float(np.square((share > 0).mean(0) - (true > 0)).sum()))
        self.crps.append(float(ensemble_crps(share, true).sum()))

    def scores(self) -> dict[str, float]:
        frames, confidence, right = self.bins
        total = max(float(frames.sum()), 1.0)
        entropy, wrong, weight = np.concatenate([np.zeros((0, 3)), *self.entropies]).T
        return {
            "ece": float(np.abs(right - confidence).sum() / total),
            "brier": self.squares / total,
            "presence_brier": float(np.mean(self.presence or [0.0])),
            "crps": float(np.mean(self.crps or [0.0])),
            "entropy": float(entropy @ weight / total),
            "entropy_right": weighted_mean(entropy, weight * (1 - wrong)),
            "entropy_wrong": weighted_mean(entropy, weight * wrong),
            "entropy_auc": area_under_curve(entropy, weight * wrong, weight * (1 - wrong)),
        }

    def reliability(self) -> dict[str, np.ndarray]:
        """Mean confidence, accuracy (nan in empty bins) and share of frames of each bin (15,)."""
        frames, confidence, right = self.bins
        with np.errstate(invalid="ignore"):
            means = {"confidence": confidence / frames, "accuracy": right / frames}
        return means | {"frames": frames / max(frames.sum(), 1)}


def class_shares(labels: np.ndarray, lengths: np.ndarray, num_classes: int) -> np.ndarray:
    """(S, K) share of the frames that each row of labels (S, R), runs of so many frames, gives to a class."""
    rows = np.arange(len(labels))[:, None] * num_classes + labels
    weights = np.broadcast_to(lengths, labels.shape)
    sums = np.bincount(rows.ravel(), weights.ravel(), minlength=len(labels) * num_classes)
    return sums.reshape(len(labels), num_classes) / lengths.sum()


def ensemble_crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K,) continuous ranked probability score of samples (S, K), taken as the distribution; truth (K,)."""
    count = len(samples)
    rank = 2 * np.arange(1, count + 1)[:, None] - count - 1
    spread = (rank * np.sort(samples, axis=0)).sum(0) / count**2  # E|X - X'| / 2
    return np.abs(samples - truth).mean(0) - spread


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """0 where all weights are."""
    total = float(weights.sum())
    return float(values @ weights) / total if total else 0.0


def area_under_curve(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive value is above a negative one, from weights (N,) of both; ties count half."""
    if not positive.sum() or not negative.sum():
        return 0.5
    distinct, place = np.unique(np.round(values, 12), return_inverse=True)
    p = np.bincount(place, positive, minlength=len(distinct))
    n = np.bincount(place, negative, minlength=len(distinct))
    below = np.cumsum(n) - n
    return float(p @ (below + n / 2) / (p.sum() * n.sum()))
