"""Scores of recognition: accuracy, calibration, proper scores, confusion.

With N samples, K classes, p the probability of a class and y the target:
- top1, top5 = share of samples whose target is among the 1 or 5 most probable classes (ties: the class with
  the lower index comes first), in 0..100; mean_class_accuracy = mean over the classes that occur of top1
- ece = sum over 15 equal bins of confidence of (share of samples) |accuracy - mean confidence|
- brier = mean of sum_k (p_k - [k = y])^2, nll = mean of -log p_y (both 0 where all is right and sure)

Sources: Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599) for the calibration error; Brier, 1950.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

KEYS = ("top1", "top5", "mean_class_accuracy", "ece", "brier", "nll")
BINS = 15
SMALLEST = np.finfo(np.float64).tiny  # a target of probability 0 costs -log of it, not infinity
SAME = 1e-3  # two passes over one sample may differ by rounding


class RecognitionMetrics:
    """Collects samples one by one; a sample given twice (padded distributed samplers) counts once.

    metrics = RecognitionMetrics(data.classes)
    metrics.update(probabilities, target, source="dog/3.jpg")     # (K,), int
    metrics.compute()["top1"]
    """

    def __init__(self, classes: Sequence[str] | None = None, *, num_classes: int | None = None) -> None:
        if (classes is None) == (num_classes is None):
            raise ValueError("give RecognitionMetrics either classes=(names) or num_classes")
        self.classes = tuple(classes) if classes is not None else None
        self.num_classes = len(self.classes) if self.classes is not None else int(num_classes or 0)
        if self.num_classes < 1:
            raise ValueError(f"there must be at least 1 class, got {self.num_classes}")
        self.reset()

    def reset(self) -> None:
        self._sources: list[str] = []
        # per sample: target, most probable class, rank of the target, p of both, sum of p squared
        self._rows: list[tuple[int, int, int, float, float, float]] = []
        self._place: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, probabilities: Any, target: int, source: str = "") -> None:
        """Add one sample: class probabilities (K,), array or CPU tensor, and the true class.

        Raises ValueError for another shape, values that are no probabilities, or a class out of range.
        """
        name = f"sample {source!r}" if source else f"sample {len(self) + 1}"
        p = np.asarray(probabilities, dtype=np.float64)
        if p.shape != (self.num_classes,):
            raise ValueError(f"{name}: probabilities have shape {p.shape}, expected ({self.num_classes},)")
        if not np.isfinite(p).all() or p.min() < -SAME or abs(p.sum() - 1) > 1e-2:
            raise ValueError(
                f"{name}: these are no probabilities (least {p.min():.3g}, sum {p.sum():.3g}); "
                "pass the softmax of the logits"
            )
        target = int(target)
        if not 0 <= target < self.num_classes:
            raise ValueError(f"{name}: target {target} is not one of the {self.num_classes} classes")
        rank = int((p > p[target]).sum() + (p[:target] == p[target]).sum())
        first = int(p.argmax())
        row = (target, first, rank, float(p[first]), float(p[target]), float((p * p).sum()))
        self._add(source, row)

    def _add(self, source: str, row: tuple[int, int, int, float, float, float]) -> None:
        if source and source in self._place:
            old = self._rows[self._place[source]]
            if old[0] != row[0] or abs(old[4] - row[4]) > SAME:
                raise ValueError(
                    f"sample {source!r} was counted before with another target or prediction; "
                    "call reset() between evaluations"
                )
            return
        if source:
            self._place[source] = len(self)
        self._sources.append(source)
        self._rows.append(row)

    def merge(self, other: RecognitionMetrics) -> RecognitionMetrics:
        """Take in the samples of another one, for example of another rank, and return self."""
        if (self.classes, self.num_classes) != (other.classes, other.num_classes):
            raise ValueError("only metrics with the same classes can be merged")
        for source, row in zip(list(other._sources), list(other._rows), strict=True):
            self._add(source, row)
        return self

    def compute(self) -> dict[str, float]:
        """top1, top5, mean_class_accuracy in 0..100, ece, brier, nll, num_samples."""
        target, first, rank, confidence, p_target, squares = self._columns()
        recalls = self.per_class().values()
        return {
            "top1": 100 * float((rank == 0).mean()),
            "top5": 100 * float((rank < 5).mean()),
            "mean_class_accuracy": float(np.mean([r for r in recalls if not np.isnan(r)])),
            "ece": calibration_error(confidence, first == target),
            "brier": float((squares - 2 * p_target + 1).mean()),
            "nll": float(-np.log(np.maximum(p_target, SMALLEST)).mean()),
            "num_samples": float(len(self)),
        }

    def per_class(self) -> dict[str, float]:
        """Accuracy in 0..100 of every class by name (or index), nan where no sample is of that class."""
        confusion = self.confusion()
        counts = confusion.sum(1)
        share = np.divide(
            100.0 * confusion.diagonal(), counts, out=np.full(len(counts), np.nan), where=counts > 0
        )
        names = self.classes or tuple(map(str, range(self.num_classes)))
        return dict(zip(names, share.tolist(), strict=True))

    def confusion(self) -> np.ndarray:
        """(K, K) int64 samples by target (row) and most probable class (column)."""
        target, first, *_ = self._columns()
        table = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        np.add.at(table, (target.astype(np.int64), first.astype(np.int64)), 1)
        return table

    def predictions(self) -> list[dict[str, Any]]:
        """Per sample: source, target, predicted class and its probability."""
        return [
            {"source": source, "target": row[0], "predicted": row[1], "probability": row[3]}
            for source, row in zip(self._sources, self._rows, strict=True)
        ]

    def _columns(self) -> tuple[np.ndarray, ...]:
        if not self._rows:
            raise ValueError("no sample was given; call update first")
        return tuple(np.array(column) for column in zip(*self._rows, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far as plain lists, fit for JSON and for gathering over ranks."""
        return {
            "num_classes": self.num_classes,
            "sources": list(self._sources),
            "rows": [list(row) for row in self._rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what was collected by a state from `state_dict`."""
        if state["num_classes"] != self.num_classes:
            raise ValueError(f"the saved metrics have {state['num_classes']} classes, not {self.num_classes}")
        self.reset()
        for source, row in zip(state["sources"], state["rows"], strict=True):
            target, first, rank, confidence, p_target, squares = row
            self._add(source, (int(target), int(first), int(rank), confidence, p_target, squares))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of (N,) confidences in 0..1 and whether each prediction was right."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins (k/n, (k+1)/n]
    gap = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))
