"""Baselines of anticipation by name, fitted on the training side of a data set and scored like a model.

    baseline = fit_baseline("grammar", AnticipationDataSettings(root="DATA/breakfast", split=1))
    futures = Forecaster(baseline)(segments, horizon_s=60)

All of them read labels, whatever a model beside them observes, at the rate of the annotation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from framecast.checkpoints import ModelCard
from framecast.data.anticipation import AnticipationData
from framecast.infer.evaluation import Evaluation, evaluate_forecaster
from framecast.models.anticipation_baselines import FORECASTERS, create_forecaster
from framecast.recipes.build import anticipation_sides
from framecast.train.anticipation_recipe import AnticipationDataSettings, SamplingSettings


class FittedBaseline(nn.Module):
    """A forecaster that has seen the training side of a data set, with the card of a trained model."""

    def __init__(self, name: str, data: AnticipationData) -> None:
        super().__init__()
        self.registered_name = name
        self.forecaster = create_forecaster(name).fit(
            [data.annotation(i) for i in range(len(data))], len(data.classes)
        )
        self.card = ModelCard(
            task="anticipation",
            classes=data.classes,
            protocol="anticipation/official-25",
            source=f"fitted on {data.layout} annotations of {len(data)} videos",
            notes={"observe": "labels", "frames_per_second": data.frames_per_second},
        )

    def forecast(
        self,
        observed: np.ndarray,
        num_future: int,
        total_length: int,
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """(S, num_future) labels, see `LabelForecaster.forecast`."""
        return self.forecaster.forecast(observed, num_future, total_length, samples, rng)


def on_labels(settings: AnticipationDataSettings) -> AnticipationDataSettings:
    """The data as a baseline reads it: every label, no features."""
    return settings.model_copy(update={"observe": "labels", "sample_rate": 1, "feature_dim": None})


def baseline_names(wanted: Sequence[str]) -> list[str]:
    """The names, each once; "all" is every one. ValueError for an unknown one."""
    names = [name for word in wanted for name in (FORECASTERS if word == "all" else [word])]
    for name in names:
        create_forecaster(name)
    return list(dict.fromkeys(names))


def fit_baseline(name: str, settings: AnticipationDataSettings) -> FittedBaseline:
    """A baseline that has learned from the training side, or from all videos of a folder without splits."""
    create_forecaster(name)  # an unknown name is said before the labels are read
    train_side, _ = anticipation_sides(on_labels(settings))
    return FittedBaseline(name, train_side)


def evaluate_baselines(
    names: Sequence[str],
    settings: AnticipationDataSettings,
    sampling: SamplingSettings | None = None,
    protocols: list[str] | None = None,
) -> dict[str, Evaluation]:
    """Scores of baselines on the test side of a data set, fitted on its training side.

    Raises ValueError where the data has no test side: a baseline that was fitted on the videos that it is
    scored on would look better than it is.
    """
    labels = on_labels(settings)
    train_side, test_side = anticipation_sides(labels)
    if test_side is None:
        raise ValueError(f"{settings.root} has no test side without a split; pass one, for example --split 1")
    found = {}
    for name in names:
        fitted = FittedBaseline(name, train_side)
        found[name] = evaluate_forecaster(fitted, labels, sampling or SamplingSettings(), name, protocols)
    return found
