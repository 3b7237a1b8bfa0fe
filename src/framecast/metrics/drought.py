"""Scores of predicted vegetation, temperature and drought maps.

Per map and variable, over the cells that are known in prediction and target:
- MAE = mean |e|, RMSE = sqrt(mean e²), R2 = 1 - Σ e² / Σ (target - mean target)²
- Rs, Rp = rank (ties share their mean rank) and linear correlation
The score of a variable is the mean over maps, so that a map of few cells weighs as much as another.

Per drought class, from cells counted over all maps: precision, recall, F1 and IoU; the overall accuracy; and
the same for drought as one class, all classes up to `drought_up_to`. As in the release of Focal-TSMP, the
denominator of recall is a millionth larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MEASURES = ("MAE", "RMSE", "R2", "Rs", "Rp")
CLASSES = ("exceptional", "extreme", "severe", "moderate", "dry", "normal")


class DroughtMetrics:
    """Collects maps one by one; a map given twice (padded distributed samplers) counts once.

    metrics = DroughtMetrics()
    metrics.update({"NDVI": (predicted, target)}, classes=(predicted_class, target_class), name="2012023")
    metrics.compute()["NDVI_MAE"]
    """

    def __init__(self, classes: Sequence[str] = CLASSES, *, drought_up_to: int = 2) -> None:
        self.classes = tuple(classes)
        self.drought_up_to = drought_up_to
        self.reset()

    def reset(self) -> None:
        self._maps: dict[str, dict[str, float]] = {}  # by name of the map
        # (K, K) cells by target (row) and prediction (column); the last column is no class at all
        self._confusions: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def update(
        self,
        values: Mapping[str, tuple[Any, Any]],
        *,
        classes: tuple[Any, Any] | None = None,
        name: str = "",
    ) -> None:
        """Add a map: (predicted, target) of every variable, NaN where a cell does not count.

        classes: (predicted, target) class of every cell; a target that is NaN or not a class does not count.
        Raises ValueError where a prediction and its target differ in shape.
        """
        name = name or f"map {len(self) + 1}"
        if name in self._maps:
            return
        scores: dict[str, float] = {}
        for variable, (predicted, target) in values.items():
            p, t = _pair(predicted, target, f"{name}, {variable}")
            known = np.isfinite(p) & np.isfinite(t)
            scores |= {f"{variable}_{key}": value for key, value in map_scores(p[known], t[known]).items()}
        self._maps[name] = scores
        if classes is not None:
            self._confusions[name] = self._count(*_pair(*classes, f"{name}, classes"))

    def _count(self, predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
        k = len(self.classes)
        counts = np.isin(target, np.arange(k))
        rows = target[counts].astype(np.int64)
        columns = np.where(np.isin(predicted[counts], np.arange(k)), predicted[counts], k).astype(np.int64)
        return np.bincount(rows * (k + 1) + columns, minlength=k * (k + 1)).reshape(k, k + 1)

    def merge(self, other: DroughtMetrics) -> DroughtMetrics:
        """Take in the maps of another one, for example of another rank, and return self."""
        if (self.classes, self.drought_up_to) != (other.classes, other.drought_up_to):
            raise ValueError("only metrics with the same classes can be merged")
        self._maps = other._maps | self._maps
        self._confusions = other._confusions | self._confusions
        return self

    def confusion(self) -> np.ndarray:
        """(K, K + 1) cells by target (row) and prediction (column), the last column predicted as no class."""
        k = len(self.classes)
        return sum(self._confusions.values(), np.zeros((k, k + 1), dtype=np.int64))

    def compute(self) -> dict[str, float]:
        """Every variable's measures, and the class scores where classes were given.

        Keys: NDVI_MAE, …; accuracy, mean_recall, mean_f1, mean_iou; drought_precision, drought_recall,
        drought_f1, drought_iou; exceptional_f1, …; num_maps. A score that nothing is known of is nan.
        """
        out: dict[str, float] = {}
        for key in sorted({key for scores in self._maps.values() for key in scores}):
            known = [s[key] for s in self._maps.values() if np.isfinite(s.get(key, np.nan))]
            out[key] = float(np.mean(known)) if known else np.nan
        if self._confusions:
            out |= self._class_scores()
        return out | {"num_maps": float(len(self))}

    def _class_scores(self) -> dict[str, float]:
        confusion = self.confusion()
        k, drought = len(self.classes), slice(0, self.drought_up_to + 1)
        seen, predicted = confusion.sum(1), confusion.sum(0)[:k]
        each = class_scores(confusion.diagonal(), seen, predicted)
        both = confusion[drought, drought].sum()
        as_one = class_scores(both, confusion[drought].sum(), confusion[:, drought].sum())
        with np.errstate(invalid="ignore"):
            out = {"accuracy": float(np.divide(confusion.diagonal().sum(), seen.sum()))}
        for key in ("recall", "f1", "iou"):
            known = each[key][np.isfinite(each[key]) & (seen > 0)]
            out[f"mean_{key}"] = float(known.mean()) if known.size else np.nan
        out |= {f"drought_{key}": float(value) for key, value in as_one.items()}
        for index, name in enumerate(self.classes):
            out |= {f"{name}_{key}": float(value[index]) for key, value in each.items()}
        return out

    def state_dict(self) -> dict[str, Any]:
        return {"maps": dict(self._maps), "confusions": dict(self._confusions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._maps, self._confusions = dict(state["maps"]), dict(state["confusions"])


def _pair(predicted: Any, target: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    p, t = (np.asarray(x, dtype=np.float64) for x in (predicted, target))
    if p.shape != t.shape:
        raise ValueError(f"{where}: predicted {p.shape} and target {t.shape} differ in shape")
    return p.ravel(), t.ravel()


def map_scores(predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """MAE, RMSE, R2, Rs, Rp of one map's known cells (N,); nan where too few or constant."""
    if not len(target):
        return dict.fromkeys(MEASURES, np.nan)
    error = predicted - target
    spread = np.square(target - target.mean()).sum()
    return {
        "MAE": float(np.abs(error).mean()),
        "RMSE": float(np.sqrt(np.square(error).mean())),
        "R2": float(1 - np.square(error).sum() / spread) if spread > 0 else np.nan,
        "Rs": correlation(mean_ranks(predicted), mean_ranks(target)),
        "Rp": correlation(predicted, target),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; nan where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, equal ones share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def class_scores(correct: Any, seen: Any, predicted: Any) -> dict[str, Any]:
    """precision, recall, f1 and iou from counts of cells; nan where a class was never predicted or seen."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.divide(correct, predicted)
        recall = correct / (np.asarray(seen) + 1e-6)
        f1 = 2 * precision * recall / (precision + recall)
        iou = np.divide(correct, np.asarray(seen) + predicted - correct)
    return {"precision": precision, "recall": recall, "f1": f1, "iou": iou}
