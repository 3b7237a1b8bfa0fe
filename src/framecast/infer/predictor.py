"""From a video or a feature file to segments, with the backbone that the model's training features came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.checkpoints import load
from framecast.data.features import load_track
from framecast.infer.backbone import open_backbone
from framecast.infer.frame_features import FeatureSettings, extract_features, weights_hash
from framecast.structures import FeatureTrack, Provenance, Segments
from framecast.tasks.segmentation import segment_track

FEATURE_SUFFIXES = (".npy", ".safetensors")


class Predictor:
    """A segmentation model and, once a video asks for it, its backbone; both are loaded once.

        predictor = Predictor("runs/kitchen")
        segments = predictor("cooking.mp4")
    """

    def __init__(
        self, model: nn.Module | str | Path, *, weights: str | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.model = load(model, device) if isinstance(model, (str, Path)) else model.to(device).eval()
        self.device = device
        self.weights = weights  # where the backbone's weights are, None = where the training features had them
        self._backbone: Any = None
        card = getattr(self.model, "card", None)
        if card is None or card.task != "segmentation":
            raise ValueError(
                "predict needs a trained segmentation model with class names; "
                "load a run folder, or train one with `framecast train segmentation --data FOLDER`"
            )

    def __call__(self, source: str | os.PathLike[str] | FeatureTrack) -> Segments:
        """Segments of a video file, a feature file or a feature track."""
        if isinstance(source, FeatureTrack):
            return segment_track(self.model, source)
        path = Path(source)
        if path.suffix in FEATURE_SUFFIXES:
            track = load_track(path, feature_dim=self.model.config.feature_dim)  # ty: ignore[unresolved-attribute]
        else:
            track = self.features(path)
        return segment_track(self.model, track, video=path.stem)

    def features(self, video: str | os.PathLike[str]) -> FeatureTrack:
        """The track of a video, made as the model's training features were."""
        made = self.model.card.features  # ty: ignore[unresolved-attribute]
        if made is None:
            raise ValueError(
                "the model's training features do not say how they were made, so features of a new video cannot "
                "be made alike; pass a feature file instead of a video"
            )
        if self._backbone is None:
            self._backbone = backbone_of(made, self.weights)
        return extract_features(self._backbone, video, settings_of(made), self.device)


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
    backbone, source = open_backbone(made.backbone, weights or made.weights_source or None)
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
) -> Segments:
    """Segments of a video file, a feature file or a feature track; for several, keep a `Predictor`."""
    return Predictor(model, weights=weights, device=device)(source)
