"""Scores of danger: how well it ranks, decides and is calibrated.

With N cells, p the probability of fire, y whether it burnt, k a class (0 background, 1 fire):
- auroc = chance that a burnt cell has a higher p than another one, equal ones count half
- auprc = average precision: sum over the distinct p, falling, of (recall gained) * precision
- predicted is fire where p > threshold; precision_k = TP / predicted, recall_k = TP / support,
  f1_k = 2 TP / (predicted + support), iou_k = TP / union; oa = correct / N; mean_* over both classes
- brier = mean (p - y)^2; skill = 1 - brier / (that of the mean of y)
- reliability: in equal bins of p, mean p against the share that burnt; ece = mean |difference| over cells

All lie in 0..1. What is undefined, as the precision of a class that is never predicted, is nan (LOAN's
release divides by zero there; its recall differs from ours by at most 1e-6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = ("background", "fire")


@dataclass(frozen=True)
class Reliability:
    """How often it burns where a probability is forecast, in equal bins of probability."""

    edges: np.ndarray  # (bins + 1,)
    forecast: np.ndarray  # (bins,) mean probability, nan in empty bins
    observed: np.ndarray  # (bins,) share that burnt
    counts: np.ndarray  # (bins,) cells

    def to_json(self) -> dict[str, list[float | None]]:
        """forecast, observed and counts; None in empty bins."""
        return {
            name: [None if np.isnan(value) else float(value) for value in getattr(self, name)]
            for name in ("forecast", "observed", "counts")
        }


class DangerMetrics:
    """Collects probabilities and what happened.

    metrics = DangerMetrics()
    metrics.update(probability, burnt)     # arrays of one shape
    metrics.compute()["auroc"]
    """

    def __init__(self, threshold: float = 0.5, bins: int = 10) -> None:
        if not 0 <= threshold <= 1 or bins < 1:
            raise ValueError(f"threshold {threshold} must be in 0..1 and bins {bins} at least 1")
        self.threshold, self.bins = threshold, bins
        self.reset()

    def reset(self) -> None:
        self._probability: list[np.ndarray] = []
        self._burnt: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._burnt))

    def update(self, probability: Any, burnt: Any) -> None:
        """Add cells: P(fire) and whether it burnt (0, 1 or bool), of one shape; nan, as at sea, is left out.

        Raises ValueError for other shapes, probabilities outside 0..1 and targets that are neither 0 nor 1.
        """
        p, y = np.asarray(probability), np.asarray(burnt)
        if p.shape != y.shape:
            raise ValueError(f"probabilities have shape {p.shape}, but what happened has {y.shape}")
        known = ~np.isnan(p)
        p, y = p[known], y[known]
        if p.size and not (p.min() >= 0 and p.max() <= 1):
            raise ValueError(f"probabilities of fire must be in 0..1, got {p.min():.3g}..{p.max():.3g}")
        if not np.isin(y, (0, 1)).all():
            raise ValueError("what happened must be 0 (no fire) or 1 (fire) in every cell with a probability")
        self._probability.append(p.astype(np.float64))
        self._burnt.append(y.astype(bool))

    def merge(self, other: DangerMetrics) -> DangerMetrics:
        """Take in the cells of another one, for example of another rank or region, and return self."""
        if (self.threshold, self.bins) != (other.threshold, other.bins):
            raise ValueError("only metrics with the same threshold and bins can be merged")
        self._probability += list(other._probability)
        self._burnt += list(other._burnt)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far as plain lists."""
        p, y = self._cells() if len(self) else (np.zeros(0), np.zeros(0, bool))
        return {"threshold": self.threshold, "bins": self.bins, "p": p.tolist(), "burnt": y.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what was collected by a state from `state_dict`."""
        if (state["threshold"], state["bins"]) != (self.threshold, self.bins):
            raise ValueError("the saved metrics have another threshold or other bins")
        self.reset()
        self.update(np.asarray(state["p"], dtype=np.float64), np.asarray(state["burnt"], dtype=bool))

    def compute(self) -> dict[str, float]:
        """auroc, auprc, brier, skill, ece, oa, {precision, recall, f1, iou}_{background, fire}, mean_*."""
        p, y = self._cells()
        predicted = p > self.threshold
        scores = {"auroc": auroc(p, y), "auprc": average_precision(p, y)}
        brier, chance = float(np.mean((p - y) ** 2)), float(y.mean() * (1 - y.mean()))
        scores |= {"brier": brier, "skill": 1 - brier / chance if chance else np.nan}
        scores |= {"ece": self._calibration_error(), "oa": float((predicted == y).mean())}
        for name, said, true in zip(CLASSES, (~predicted, predicted), (~y, y), strict=True):
            hits = int((said & true).sum())
            scores[f"precision_{name}"] = _share(hits, said.sum())
            scores[f"recall_{name}"] = _share(hits, true.sum())
            scores[f"f1_{name}"] = _share(2 * hits, said.sum() + true.sum())
            scores[f"iou_{name}"] = _share(hits, (said | true).sum())
        for score in ("recall", "f1", "iou"):
            scores[f"mean_{score}"] = float(np.mean([scores[f"{score}_{name}"] for name in CLASSES]))
        return scores | {"num_cells": float(len(p)), "num_fires": float(y.sum())}

    def reliability(self) -> Reliability:
        """Forecast probability against the share that burnt; bins are [k/n, (k+1)/n), the last one closed."""
        p, y = self._cells()
        place = np.minimum((p * self.bins).astype(np.int64), self.bins - 1)
        counts, sums, fires = (
            np.bincount(place, weights=w, minlength=self.bins) for w in (None, p, y.astype(np.float64))
        )
        full = counts > 0
        means = (np.divide(s, counts, out=np.full(self.bins, np.nan), where=full) for s in (sums, fires))
        return Reliability(np.linspace(0, 1, self.bins + 1), *means, counts)

    def _calibration_error(self) -> float:
        r = self.reliability()
        return float(np.nansum(np.abs(r.forecast - r.observed) * r.counts) / r.counts.sum())

    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        if not len(self):
            raise ValueError("no cell was given; call update first")
        return np.concatenate(self._probability), np.concatenate(self._burnt)


def auroc(probability: np.ndarray, burnt: np.ndarray) -> float:
    """Area under the ROC curve from mean ranks, exact; nan where all cells or none burnt."""
    fires, others = int(burnt.sum()), int((~burnt).sum())
    if not fires or not others:
        return float("nan")
    _, place, counts = np.unique(probability, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal ones share their mean rank
    return float((ranks[burnt].sum() - fires * (fires + 1) / 2) / (fires * others))


def average_precision(probability: np.ndarray, burnt: np.ndarray) -> float:
    """Area under the precision-recall curve as a sum of steps, exact; nan where nothing burnt."""
    fires = int(burnt.sum())
    if not fires:
        return float("nan")
    values, place = np.unique(-probability, return_inverse=True)
    cells = np.bincount(place, minlength=len(values))
    hits = np.bincount(place, weights=burnt.astype(np.float64), minlength=len(values))
    precision = np.cumsum(hits) / np.cumsum(cells)
    return float((precision * hits).sum() / fires)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
