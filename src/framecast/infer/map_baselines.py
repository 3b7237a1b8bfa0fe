"""Baselines of maps ahead, fitted on the training split: what a network has to beat.

- climatology: the mean of that time of year, of the training years; what skill is measured against
- persistence: the newest known map of the target
- anomaly_persistence: the newest known departure from the climatology, times its correlation with the one
  asked for, cell by cell
- linear: ridge regression of every cell on the leading patterns (principal components) of all maps that the
  network reads, and on the cell's own past; its strength is chosen on the validation split
- gradient_boosting: trees (scikit-learn) on a cell's own past and surroundings, the leading patterns, place
  and season; one model for all cells

    baseline = fit_baseline("linear", train_series, validation_series)
    scores = score_baseline(baseline, test_series)

Shapes: I issue times, N outputs, H rows, W columns, P patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from framecast.data.map_series import MapSeries
from framecast.extras import import_extra
from framecast.registry import did_you_mean
from framecast.tasks.map_forecast import MapScores, MapScoring, score_predictions, valid_times

Issues = Sequence[int] | np.ndarray
NUM_PATTERNS = 40
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
MOST_ROWS = 150_000  # of the trees' table


class MapBaseline(Protocol):
    """What `score_predictions` asks: maps (I, N, H, W) in units of these issue times of a series."""

    def predict(self, series: MapSeries, issues: Issues) -> np.ndarray: ...


def fit_baseline(
    name: str, train: MapSeries, validation: MapSeries | None = None, *, seed: int = 0
) -> MapBaseline:
    """A baseline by name; ValueError for one that is not known."""
    if name not in BASELINES:
        raise ValueError(
            f"no baseline {name!r}{did_you_mean(name, BASELINES)}; known: {', '.join(BASELINES)}"
        )
    return BASELINES[name](train, validation, seed)


def score_baseline(baseline: MapBaseline, series: MapSeries, scoring: MapScoring | None = None) -> MapScores:
    """The scores that a network has, of a baseline."""
    return score_predictions(lambda issues: baseline.predict(series, issues), series, scoring)


# Without a fit --------------------------------------------------------------------------------------


class ClimatologyMaps:
    """The usual value of that time of year."""

    def predict(self, series: MapSeries, issues: Issues) -> np.ndarray:
        return np.stack([usual_maps(series, int(issue)) for issue in issues])


class PersistenceMaps:
    """The newest known map; with `damping` (N, H, W) the newest departure times that."""

    def __init__(self, damping: np.ndarray | None = None) -> None:
        self.damping = damping

    def predict(self, series: MapSeries, issues: Issues) -> np.ndarray:
        leads = len(series.window.leads)
        found = []
        for issue in issues:
            newest = np.repeat(newest_maps(series, int(issue)), leads, axis=0)
            if self.damping is not None:
                usual = np.repeat(newest_usual(series, int(issue)), leads, axis=0)
                departure = np.nan_to_num(newest - usual)
                newest = usual_maps(series, int(issue)) + self.damping * departure
            found.append(newest)
        return np.stack(found)


def newest_maps(series: MapSeries, issue: int) -> np.ndarray:
    """(targets, H, W) last known map of every target, in units; where it is missing, the usual value."""
    window = series.window
    step = [max(issue - window.delay, 0)]
    maps = [series.cube.target(name, step, series.rows, series.columns)[0] for name in window.targets]
    return np.where(np.isfinite(maps), maps, newest_usual(series, issue))


def newest_usual(series: MapSeries, issue: int) -> np.ndarray:
    """(targets, H, W) climatology of the time of the last known map."""
    step = [max(issue - series.window.delay, 0)]
    return np.stack([series.usual(name, step)[0] for name in series.window.targets])


def usual_maps(series: MapSeries, issue: int) -> np.ndarray:
    """(N, H, W) climatology of the times that are asked for."""
    valid = valid_times(series, issue, np.array(series.window.leads))
    return np.concatenate([series.usual_at(name, valid)[2] for name in series.window.targets])


def departures(series: MapSeries) -> np.ndarray:
    """(I, N, H, W) of the targets from their climatology, over all samples; NaN where unknown."""
    return np.stack([series.target_maps(int(i)) - usual_maps(series, int(i)) for i in series.issues])


def fit_anomaly_persistence(train: MapSeries, validation: MapSeries | None, seed: int) -> MapBaseline:
    """Regression through the origin, kept within 0 … 1."""
    later = departures(train)
    now = np.stack([newest_maps(train, int(i)) - newest_usual(train, int(i)) for i in train.issues])
    now = np.repeat(now, len(train.window.leads), axis=1)
    known = np.isfinite(later) & np.isfinite(now)
    later, now = np.where(known, later, 0.0), np.where(known, now, 0.0)
    power = np.square(now).sum(0)
    slope = np.divide((later * now).sum(0), power, out=np.zeros_like(power), where=power > 0)
    return PersistenceMaps(np.clip(slope, 0.0, 1.0).astype(np.float32))


# What the fitted ones read --------------------------------------------------------------------------


def table_of(series: MapSeries, issues: Issues) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic maps with their steps as channels (I, C, H, W), and still ones (I, K, H, W)."""
    found = [series.inputs(int(issue)) for issue in issues]
    dynamic = np.stack([f["dynamic"].reshape(-1, *series.shape) for f in found])
    return dynamic, np.stack([f["still"] for f in found])


@dataclass
class Patterns:
    """Principal components of all maps that are read, from the training samples."""

    mean: np.ndarray  # (F,)
    vectors: np.ndarray  # (F, P)
    scale: np.ndarray  # (P,) deviation of each pattern

    @classmethod
    def fit(cls, maps: np.ndarray, count: int = NUM_PATTERNS) -> Patterns:
        """From (I, F); at most as many as there are samples."""
        mean = maps.mean(0)
        count = min(count, len(maps) - 1, maps.shape[1])
        decompose: Callable[..., Any] = import_extra("sklearn.utils.extmath").randomized_svd
        _, values, vectors = decompose(maps - mean, count, random_state=0)
        return cls(mean, vectors.T, np.maximum(values / np.sqrt(len(maps)), 1e-12))

    def of(self, maps: np.ndarray) -> np.ndarray:
        """(I, F) -> (I, P), each with a deviation of 1 in training."""
        return (maps - self.mean) @ self.vectors / self.scale


# Ridge regression -----------------------------------------------------------------------------------


class LinearMaps:
    """Per cell and output: departure = w · [patterns, the cell's own channels, season] (+ climatology)."""

    def __init__(self, patterns: Patterns, weights: np.ndarray, bias: np.ndarray, strength: float) -> None:
        self.patterns, self.strength = patterns, strength
        self.weights, self.bias = weights, bias  # (H, W, features, N), (H, W, N)

    def predict(self, series: MapSeries, issues: Issues) -> np.ndarray:
        shared, own = linear_features(series, issues, self.patterns)
        count = shared.shape[1]
        found = np.einsum("if,hwfn->inhw", shared, self.weights[:, :, :count])
        found += np.einsum("ichw,hwcn->inhw", own, self.weights[:, :, count:])
        found += np.moveaxis(self.bias, -1, 0)
        return np.stack([usual_maps(series, int(i)) for i in issues]) + found.astype(np.float32)


def linear_features(series: MapSeries, issues: Issues, patterns: Patterns) -> tuple[np.ndarray, np.ndarray]:
    """Patterns and season (I, P + 2) of all cells, and a cell's own channels (I, C, H, W)."""
    dynamic, still = table_of(series, issues)
    shared = patterns.of(dynamic.reshape(len(dynamic), -1))
    if series.window.season:
        place = len(series.cube.static_names)
        shared = np.concatenate([shared, still[:, place : place + 2, 0, 0]], axis=1)
    return shared, dynamic


def fit_linear(train: MapSeries, validation: MapSeries | None, seed: int) -> MapBaseline:
    """One solve per cell by the normal equations; the strength of the validation split's least error."""
    dynamic, _ = table_of(train, train.issues)
    patterns = Patterns.fit(dynamic.reshape(len(dynamic), -1))
    shared, own = linear_features(train, train.issues, patterns)
    asked = departures(train)
    best: tuple[float, LinearMaps] | None = None
    for strength in STRENGTHS if validation is not None else STRENGTHS[2:3]:
        model = LinearMaps(patterns, *ridge(shared, own, asked, strength), strength)
        error = 0.0
        if validation is not None:
            truth = np.stack([validation.target_maps(int(i)) for i in validation.issues])
            off = (model.predict(validation, validation.issues) - truth)[:, :, validation.land]
            # every output in its own unit: relative to the climatology's error
            usual = departures(validation)[:, :, validation.land]
            error = float(np.mean(np.nanmean(off**2, (0, 2)) / np.nanmean(usual**2, (0, 2))))
        if best is None or error < best[0]:
            best = error, model
    assert best is not None
    return best[1]


def ridge(
    shared: np.ndarray, own: np.ndarray, asked: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (H, W, features, N) and bias (H, W, N); samples without a known target are left out."""
    height, width = own.shape[-2:]
    features, outputs = shared.shape[1] + own.shape[1], asked.shape[1]
    weights = np.zeros((height, width, features, outputs), dtype=np.float64)
    bias = np.zeros((height, width, outputs))
    for row in range(height):
        for column in range(width):
            x = np.concatenate([shared, own[:, :, row, column]], axis=1).astype(np.float64)
            y = asked[:, :, row, column].astype(np.float64)
            known = np.isfinite(y).all(1)
            if known.sum() < 2:
                continue
            x, y = x[known], y[known]
            middle, level = x.mean(0), y.mean(0)
            x -= middle
            gram = x.T @ x + strength * np.eye(features)
            solved = np.linalg.solve(gram, x.T @ (y - level))
            weights[row, column], bias[row, column] = solved, level - middle @ solved
    return weights, bias


# Gradient boosting ----------------------------------------------------------------------------------


class BoostedMaps:
    """One regression of trees per output, for all cells."""

    def __init__(self, patterns: Patterns, models: list[Any]) -> None:
        self.patterns, self.models = patterns, models

    def predict(self, series: MapSeries, issues: Issues) -> np.ndarray:
        found = np.stack([usual_maps(series, int(i)) for i in issues])
        land = series.land
        for position, issue in enumerate(issues):
            rows = cell_table(series, [int(issue)], self.patterns)[0][land]
            for output, model in enumerate(self.models):
                found[position, output][land] += model.predict(rows)
        return found


def cell_table(series: MapSeries, issues: Issues, patterns: Patterns) -> np.ndarray:
    """(I, H, W, features): own channels, their mean over 3 x 3 cells, still channels, place, patterns."""
    dynamic, still = table_of(series, issues)
    shared = patterns.of(dynamic.reshape(len(dynamic), -1))[:, :10]
    height, width = series.shape
    padded = np.pad(dynamic, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    around = sum(padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    place = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float32)
    parts = [dynamic, around, still, np.broadcast_to(place, (len(dynamic), *place.shape))]
    parts.append(np.broadcast_to(shared[:, :, None, None], (*shared.shape, height, width)))
    return np.moveaxis(np.concatenate(parts, axis=1), 1, -1).astype(np.float32)


def fit_boosting(train: MapSeries, validation: MapSeries | None, seed: int) -> MapBaseline:
    """Trees on at most MOST_ROWS cells drawn from all training samples; a tenth of them stops the fit."""
    rng = np.random.default_rng(seed)
    dynamic, _ = table_of(train, train.issues)
    patterns = Patterns.fit(dynamic.reshape(len(dynamic), -1))
    cells = np.flatnonzero(train.land.ravel())
    share = min(1.0, MOST_ROWS / (len(cells) * len(train)))
    tables, targets = [], []
    for issue in train.issues:
        chosen = cells[rng.random(len(cells)) < share]
        rows = cell_table(train, [int(issue)], patterns)[0]
        tables.append(rows.reshape(len(train.land.ravel()), -1)[chosen])
        asked = train.target_maps(int(issue)) - usual_maps(train, int(issue))
        targets.append(asked.reshape(len(asked), -1)[:, chosen].T)
    x, y = np.concatenate(tables), np.concatenate(targets)
    regressor = import_extra("sklearn.ensemble").HistGradientBoostingRegressor
    models = []
    for output in range(y.shape[1]):
        known = np.isfinite(y[:, output])
        model = regressor(
            learning_rate=0.06,
            max_iter=300,
            max_leaf_nodes=15,
            min_samples_leaf=100,
            l2_regularization=10.0,
            early_stopping=True,
            random_state=seed,
        )
        models.append(model.fit(x[known], y[known, output]))
    return BoostedMaps(patterns, models)


BASELINES: dict[str, Callable[[MapSeries, MapSeries | None, int], MapBaseline]] = {
    "climatology": lambda train, validation, seed: ClimatologyMaps(),
    "persistence": lambda train, validation, seed: PersistenceMaps(),
    "anomaly_persistence": fit_anomaly_persistence,
    "linear": fit_linear,
    "gradient_boosting": fit_boosting,
}
