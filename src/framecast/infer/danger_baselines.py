"""Baselines of wildfire danger, fitted on the training windows and scored like a model.

- climatology: how often it burns in a season, whatever the weather (of the training windows, smoothed)
- logistic_regression, gradient_boosting: scikit-learn on numbers of the cell itself: each dynamic variable
  on its latest day, its mean and extremes over all days; static variables in the cell and on average round
  it; the day of the year as sine and cosine

Shapes: N samples, F numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from framecast.extras import import_extra
from framecast.tasks.danger import BATCH, DangerData, DangerScores, Regions, groups_of

BASELINES = ("climatology", "logistic_regression", "gradient_boosting")


def window_numbers(sample: dict[str, Any]) -> np.ndarray:
    """(F,) what a classifier of single cells reads of a window."""
    dynamic, static = sample["dynamic"], sample["static"]
    row, column = (n // 2 for n in dynamic.shape[-2:])
    series = dynamic[:, :, row, column]  # (V, T), the latest day first
    angle = 2 * np.pi * sample["day"] / 366
    parts = [series[:, 0], series.mean(1), series.min(1), series.max(1)]
    parts += [static[:, row, column], static.mean((1, 2)), [np.sin(angle), np.cos(angle)]]
    return np.concatenate(parts)


def table_of(data: DangerData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (N, F), days of the year (N,) and labels (N,) of all samples."""
    rows, days, labels = [], [], []
    for i in range(len(data)):
        sample: dict[str, Any] = data[i]
        rows.append(window_numbers(sample))
        days.append(sample["day"])
        labels.append(sample["label"])
    return np.stack(rows).astype(np.float32), np.array(days), np.array(labels)


def fit(
    name: str, numbers: np.ndarray, days: np.ndarray, labels: np.ndarray, seed: int = 0
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function from numbers (N, F) and days (N,) to P(fire) (N,)."""
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; known: {', '.join(BASELINES)}")
    if name == "climatology":
        around = np.array([season_rate(day, days, labels) for day in range(1, 367)])
        return lambda _, when: around[when - 1]
    classifier = _classifier(name, seed).fit(numbers, labels)
    return lambda rows, _: classifier.predict_proba(rows)[:, 1]


def season_rate(day: int, days: np.ndarray, labels: np.ndarray, width: float = 15.0) -> float:
    """Share of burnt samples, weighed by their distance in days of the year; the year is a circle."""
    apart = np.abs(days - day)
    apart = np.minimum(apart, 366 - apart)
    weight = np.exp(-0.5 * (apart / width) ** 2)
    prior = labels.mean()  # as much as one sample, so that empty seasons have an answer
    return float((np.sum(weight * labels) + prior) / (np.sum(weight) + 1))


def score_baselines(
    names: tuple[str, ...], train: DangerData, test: DangerData, regions: Regions | None = None, seed: int = 0
) -> dict[str, DangerScores]:
    """Scores on the test windows of each baseline, fitted on the training windows."""
    seen, asked = table_of(train), table_of(test)
    groups = groups_of(test, regions or {})
    found = {}
    for name in names:
        predicted = fit(name, *seen, seed=seed)(asked[0], asked[1])
        found[name] = DangerScores()
        for start in range(0, len(test), BATCH):
            part = slice(start, start + BATCH)
            found[name].add(predicted[part], asked[2][part], groups[part])
    return found


def _classifier(name: str, seed: int) -> Any:
    if name == "logistic_regression":
        scaler = import_extra("sklearn.preprocessing").StandardScaler()
        linear = import_extra("sklearn.linear_model").LogisticRegression(max_iter=2000)
        return import_extra("sklearn.pipeline").make_pipeline(scaler, linear)
    trees = import_extra("sklearn.ensemble").HistGradientBoostingClassifier
    return trees(max_iter=200, learning_rate=0.05, random_state=seed)
