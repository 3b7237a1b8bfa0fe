"""From a video or a feature file to segments, with the backbone of the model's training features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.checkpoints import ModelCard, card_of, load
from framecast.data.features import FEATURE_SUFFIXES, load_track
from framecast.infer.backbone import open_backbone
from framecast.infer.classifier import Classifier
from framecast.infer.frame_features import FeatureSettings, extract_features, weights_hash
from framecast.structures import FeatureTrack, Labels, Provenance, Segments
from framecast.tasks.segmentation import segment_track


class Predictor:
    """A segmentation model and, once a video asks for it, its backbone; both are loaded once.

    predictor = Predictor("runs/kitchen")
    segments = predictor("cooking.mp4")

    weights: where the backbone's weights are, None = where the training features had them from.
    """

    def __init__(
        self, model: nn.Module | str | Path, *, weights: str | None = None, device: str | torch.device = "cpu"
    ) -> None:
        loaded = load(model, device) if isinstance(model, (str, Path)) else model.to(device).eval()
        self.model: Any = loaded
        self.card = card_of(loaded)
        self.device = device
        self.weights = weights
        self._backbone: nn.Module | None = None
        if self.card.task != "segmentation":
            name = getattr(loaded, "registered_name", type(loaded).__name__)
            raise ValueError(
                f"predict needs a segmentation model that was trained, with class names; {name} is none. "
                "Load a run folder, or train one with `framecast train segmentation --data FOLDER`"
            )

    def __call__(self, source: str | os.PathLike[str] | FeatureTrack) -> Segments:
        """Segments of a video file, a feature file or a feature track."""
        if isinstance(source, FeatureTrack):
            return segment_track(self.model, source)
        path = Path(source)
        if path.suffix in FEATURE_SUFFIXES:
            track = load_track(path, feature_dim=self.model.config.feature_dim)
        else:
            track = self.features(path)
        return segment_track(self.model, track, video=path.stem)

    def features(self, video: str | os.PathLike[str]) -> FeatureTrack:
        """The track of a video, made as the model's training features were."""
        made = self._made()
        return extract_features(self.backbone, video, settings_of(made), self.device, provenance=made)

    @property
    def backbone(self) -> nn.Module:
        """The backbone that made the training features, loaded when it is first asked for."""
        if self._backbone is None:
            self._backbone = backbone_of(self._made(), self.weights)
        return self._backbone

    def _made(self) -> Provenance:
        return features_of(self.card)


def features_of(card: ModelCard) -> Provenance:
    """How the features were made that a model was trained on; ValueError where that is not known."""
    if card.features is None:
        raise ValueError(
            "the model's training features do not say how they were made, so features of a new video "
            "cannot be made alike; pass a feature file instead of a video"
        )
    return card.features


def settings_of(made: Provenance) -> FeatureSettings:
    """The extraction settings that give tracks of this provenance."""
    return FeatureSettings(
        backbone=made.backbone,
        weights=made.weights_source,
        layer=made.layer,
        pooling=made.pooling,  # ty: ignore[invalid-argument-type]
        image_size=made.image_size,
        step_s=made.step_s,
    )


def backbone_of(made: Provenance, weights: str | None = None) -> nn.Module:
    """The very backbone that made a track; ValueError when the weights at hand are other ones."""
    try:
        backbone, source = open_backbone(made.backbone, weights or made.weights_source or None)
    except FileNotFoundError as error:
        if weights:
            raise
        raise FileNotFoundError(
            f"the {made.backbone} that made the model's training features is not here ({error}); "
            "pass its weights with --weights"
        ) from None
    if (found := weights_hash(backbone)) != made.weights:
        raise ValueError(
            f"the model was trained on features of {made.backbone} with weights {made.weights}, but {source} "
            f"holds {found}; pass the right ones with --weights"
        )
    return backbone


def predict(
    model: nn.Module | str | Path,
    source: str | os.PathLike[str] | FeatureTrack,
    *,
    weights: str | None = None,
    device: str | torch.device = "cpu",
) -> Segments | Labels:
    """What the model's task gives: segments of a video or feature track, labels of an image or clip.

    For several sources keep a `Predictor` or a `Classifier`.
    """
    loaded = load(model, device) if isinstance(model, (str, Path)) else model
    if card_of(loaded).task == "recognition" and not isinstance(source, FeatureTrack):
        return Classifier(loaded, device=device)(source)
    return Predictor(loaded, weights=weights, device=device)(source)
