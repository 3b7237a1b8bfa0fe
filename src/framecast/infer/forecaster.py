"""From what was seen of a video to what may follow: a timeline, a feature file or the video itself.

    forecaster = Forecaster("runs/breakfast_manta")
    futures = forecaster(segments, horizon_s=60, samples=25)

A model that observes labels is told what was seen so far by a timeline, or by a segmentation model; the
latter is not sure, so each future starts from a past drawn from its class probabilities, segment by segment.
Legend: K classes, T steps, P observed steps, S samples.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from framecast.checkpoints import card_of, load
from framecast.data.anticipation import observation
from framecast.data.features import FEATURE_SUFFIXES, load_track
from framecast.infer.frame_features import extract_features
from framecast.infer.predictor import Predictor, backbone_of, features_of, settings_of
from framecast.structures import FeatureTrack, Futures, Segments
from framecast.tasks.forecasting import LabelForecaster, Sampling, forecast_steps
from framecast.tasks.segmentation import check_features


class Forecaster:
    """An anticipation model, with what it needs to observe a video: its backbone, or a segmentation model.

    segmenter: a trained segmentation model of the same classes, for models that observe labels. sampling:
    how futures are drawn, None = as in the evaluation of the training; `samples` of a call goes before it.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        *,
        segmenter: Predictor | None = None,
        weights: str | None = None,
        sampling: Sampling | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        loaded = load(model, device) if isinstance(model, (str, Path)) else model.to(device).eval()
        self.model: Any = loaded
        self.card, self.device, self.weights = card_of(loaded), device, weights
        self.segmenter = segmenter
        self.sampling = sampling or Sampling(**self.card.notes.get("sampling", {}))
        self._backbone: nn.Module | None = None
        if self.card.task != "anticipation":
            name = getattr(loaded, "registered_name", type(loaded).__name__)
            raise ValueError(
                f"anticipation needs a model that was trained for it, with class names; {name} is none. "
                "Load a run folder, or train one with `framecast train anticipation --data FOLDER`"
            )
        if segmenter is not None and segmenter.card.classes != self.card.classes:
            raise ValueError(
                f"the segmentation model knows {len(segmenter.card.classes)} classes and the anticipation "
                f"model {len(self.card.classes)}, or in another order; train both on the same mapping"
            )

    @property
    def observe(self) -> str:
        """ "labels", "features" or "both": what the model is shown of the past."""
        return str(self.card.notes.get("observe", "labels"))

    @property
    def step_s(self) -> float | None:
        """Seconds between the steps that the model reads and writes, None where its data does not say."""
        rate = self.card.notes.get("frames_per_second")
        if rate:
            return self.card.sample_rate / float(rate)
        made = self.card.features
        return None if made is None or made.step_s is None else made.step_s * self.card.sample_rate

    def __call__(
        self,
        source: str | os.PathLike[str] | FeatureTrack | Segments,
        horizon_s: float | None = None,
        *,
        steps: int | None = None,
        samples: int | None = None,
        seed: int | None = None,
        length_s: float | None = None,
    ) -> Futures:
        """Futures after a timeline, a feature track or file, or a video, all of it observed.

        horizon_s: seconds to look ahead, or `steps` of the model. length_s: how long the whole video is taken
        to be, None = it ends with the horizon; models learn from whole videos and see how far one is. Raises
        ValueError where the model needs what the source does not give.
        """
        wanted = self.num_steps(horizon_s, steps)
        changes = {"samples": samples, "seed": seed}
        sampling = replace(self.sampling, **{k: v for k, v in changes.items() if v is not None})
        past, features = self._observed(source)
        labels = None if past is None else self._labels_of(past)
        drawn = self._drawn_pasts(past, labels, sampling)
        whole = 0 if length_s is None or self.step_s is None else round(length_s / self.step_s)
        found = [
            self._forecast(
                one, features, wanted, replace(sampling, samples=count), i, whole, sampling.samples > 1
            )
            for i, (one, count) in enumerate(drawn)
        ]
        probabilities = None
        if all(p is not None for _, _, p in found):
            weights = np.array([count for _, count in drawn]) / sum(count for _, count in drawn)
            probabilities = sum(w * p for w, (_, _, p) in zip(weights, found, strict=True))
        seen = past if past is not None else self._as_segments(found[0][0], source)
        rows = np.concatenate([rows for _, rows, _ in found])
        return Futures(seen, rows, step_s=self.step_s, step_probs=probabilities)

    def num_steps(self, horizon_s: float | None, steps: int | None = None) -> int:
        """Steps of the model in a horizon; ValueError where nobody knows how long one is."""
        if (horizon_s is None) == (steps is None):
            raise ValueError("say how far to look ahead: either horizon_s seconds or a number of steps")
        if steps is None:
            if self.step_s is None:
                raise ValueError(
                    "the model's data does not say how long a step is; give the horizon in steps, or train "
                    "it with data.label_fps, the frames per second of the labels"
                )
            assert horizon_s is not None
            steps = round(horizon_s / self.step_s)
        if steps < 1:
            raise ValueError(f"the horizon is {steps} steps; look at least one step of {self.step_s} s ahead")
        return steps

    # What is observed -----------------------------------------------------------------------------------

    def _observed(
        self, source: str | os.PathLike[str] | FeatureTrack | Segments
    ) -> tuple[Segments | None, np.ndarray | None]:
        """The timeline of the past where labels are observed, features (C, P) where they are."""
        if isinstance(source, Segments):
            if self.observe != "labels":
                raise ValueError("this model observes features; give it a video or a feature file")
            return source, None
        features = None
        if self.observe != "labels":
            track = source if isinstance(source, FeatureTrack) else self._track(Path(source))
            wanted = self.model.config.feature_dim
            wanted -= len(self.card.classes) if self.observe == "both" else 0
            check_features(self.card.features, track, wanted_dim=wanted)
            features = np.asarray(track.values[:, :: self.card.sample_rate], dtype=np.float32)
        if self.observe == "features":
            return None, features
        if self.segmenter is None:
            raise ValueError(
                "this model observes labels; give it a timeline (--timeline observed.csv), or a segmentation "
                "model of the same classes that makes one of the video (--segmenter RUN)"
            )
        return self.segmenter(source), features

    def _track(self, path: Path) -> FeatureTrack:
        if path.suffix in FEATURE_SUFFIXES:
            return load_track(path)
        made = features_of(self.card)
        if self._backbone is None:
            self._backbone = backbone_of(made, self.weights)
        return extract_features(self._backbone, path, settings_of(made), self.device, provenance=made)

    def _labels_of(self, past: Segments) -> np.ndarray:
        """(P,) label of every step of the past: what the timeline says at its time.

        Where labels alone are observed, steps count back from the end: the last one is what goes on now.
        """
        unknown = sorted(set(past.names) - set(self.card.classes) - {"unlabelled"})
        if unknown:
            raise ValueError(
                f"the timeline has {unknown[0]!r}, which the model does not know; its classes are "
                f"{', '.join(self.card.classes[:8])}{', …' if len(self.card.classes) > 8 else ''}"
            )
        own = np.array([self.card.classes.index(n) if n != "unlabelled" else -100 for n in past.names])
        limits = past.limits_s
        if limits is None or self.step_s is None:
            frames = np.repeat(own, past.ends - past.starts)
            places = np.arange(0, len(frames), self.card.sample_rate)
            late = len(frames) - 1 - places[-1] if self.observe == "labels" else 0
            return frames[places + late]
        times = np.arange(limits[0, 0], limits[-1, 1], self.step_s) + 1e-9
        if self.observe == "labels":
            times += max(0.0, limits[-1, 1] - 1e-6 - times[-1])
        return own[np.searchsorted(limits[:, 0], times, side="right") - 1]

    def _drawn_pasts(
        self, past: Segments | None, labels: np.ndarray | None, sampling: Sampling
    ) -> list[tuple[np.ndarray | None, int]]:
        """Pasts with the number of futures that start from each: one, or drawn where it is not sure."""
        if past is None or past.frame_probs is None or labels is None:
            return [(labels, sampling.samples)]
        means = np.stack(
            [past.frame_probs[:, a:b].mean(1) for a, b in zip(past.starts, past.ends, strict=True)]
        )
        rng = np.random.default_rng(sampling.seed)
        chances = means.cumsum(1)
        draws = rng.random((sampling.samples, len(chances), 1)) * chances[:, -1:]
        chosen = (chances[None] <= draws).sum(-1)  # (S, N)
        pasts, counts = np.unique(chosen, axis=0, return_counts=True)
        return [
            (self._labels_of(replace(past, labels=row)), int(count))
            for row, count in zip(pasts, counts, strict=True)
        ]

    # What follows ---------------------------------------------------------------------------------------

    def _forecast(
        self,
        labels: np.ndarray | None,
        features: np.ndarray | None,
        steps: int,
        sampling: Sampling,
        number: int,
        whole: int,
        several: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Labels (P,) of the past as the model sees it, futures (S, T), probabilities (K, T) or None."""
        seeds = np.random.SeedSequence([sampling.seed, number])
        if isinstance(self.model, LabelForecaster):
            assert labels is not None
            past = labels[labels >= 0]
            if not len(past):
                raise ValueError("the timeline has no labelled step; there is nothing to go on from")
            rng = np.random.default_rng(seeds)
            total = max(whole, len(past) + steps)  # the networks of 2018 are told the length of the video
            # Asked for one future they give their best guess, also where it is one of many after drawn pasts.
            asked = max(2, sampling.samples) if several else 1
            found = self.model.forecast(past, steps, total, asked, rng)
            return past, found[: sampling.samples], None
        if features is not None and labels is not None:
            shortest = min(features.shape[1], len(labels))
            features, labels = features[:, :shortest], labels[:shortest]
        seen = observation(self.observe, len(self.card.classes), labels=labels, features=features)  # ty: ignore[invalid-argument-type]
        seed = int(seeds.generate_state(1)[0])
        past = seen.shape[1]
        found = forecast_steps(self.model, seen, max(whole, past + steps), sampling, seed)
        probabilities = found.probabilities
        mode = np.array([np.bincount(column).argmax() for column in found.labels[:, :past].T])
        coming = slice(past, past + steps)
        return mode, found.labels[:, coming], None if probabilities is None else probabilities[:, coming]

    def _as_segments(self, labels: np.ndarray, source: Any) -> Segments:
        """The past as the model itself labels it, where it observes features alone."""
        times = None if self.step_s is None else self.step_s * np.arange(len(labels))
        name = getattr(source, "source", "") if isinstance(source, FeatureTrack) else Path(source).stem
        return Segments.from_frames(labels, self.card.classes, video=name, times=times)
