"""Temporal action segmentation: features of a whole video in, one class per frame out.

A batch is whole videos padded on the right; loss, prediction and metrics live here together. Metrics are
computed at the frame rate of the annotation, under named protocols.
Shapes: B batch, C channels, T frames, K classes, S stages.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from framecast.checkpoints import card_of
from framecast.data.segmentation import SegmentationData
from framecast.metrics.protocols import get_protocol
from framecast.metrics.segmentation import KEYS, SegmentationMetrics
from framecast.registry import create_model, find
from framecast.structures import FeatureTrack, Provenance, Segments
from framecast.tasks.ranks import merge_over_ranks, own_items
from framecast.tasks.segmentation_augment import Augmentation, Augmented
from framecast.tasks.segmentation_loss import smoothed_cross_entropy

IGNORED = -100


class SegmentationTask:
    """Trains a registered segmentation model on one side of a data set and scores it on the other."""

    def __init__(
        self,
        train_data: SegmentationData,
        eval_data: SegmentationData | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        smoothing: float = 0.15,
        clip: float = 16.0,
        average: Literal["videos", "frames"] = "videos",
        augmentation: Augmentation | None = None,
    ) -> None:
        self.source, self.eval_data = train_data, eval_data
        self.train_data = Augmented(train_data, augmentation) if augmentation else train_data
        self.model_name, self.model_config = model, dict(model_config or {})
        self.smoothing, self.clip, self.average = smoothing, clip, average
        for key, value in (("num_classes", len(train_data.classes)), ("feature_dim", train_data.feature_dim)):
            if (given := self.model_config.setdefault(key, value)) != value:
                raise ValueError(
                    f"model.config.{key} is {given} but the data in {train_data.folder.root} has {value}; "
                    f"leave {key} out, it is read from the data"
                )
        if eval_data is not None:
            check_features_of(train_data.provenance, eval_data, wanted_dim=train_data.feature_dim)
        if "segmentation" not in find("model", model).tags:
            raise ValueError(f"{model} is no segmentation model; `framecast list` shows which are")
        with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
            create_model(model, **self.model_config)

    @property
    def metric_names(self) -> list[str]:
        """What `evaluate` measures."""
        return score_names(self.eval_data.protocols) if self.eval_data is not None else []

    def build_model(self) -> nn.Module:
        model = create_model(self.model_name, **self.model_config)
        if getattr(model, "standardise", None) is not None:
            model.standardise.fit(sample["features"] for sample in self.source)
        return model

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """features (B, C, T), labels (B, T) with -100 on padding, mask (B, T); T is the longest video's."""
        longest = max(len(s["labels"]) for s in samples)
        channels = samples[0]["features"].shape[0]
        features = torch.zeros(len(samples), channels, longest)
        labels = torch.full((len(samples), longest), IGNORED)
        for i, sample in enumerate(samples):
            frames = len(sample["labels"])
            features[i, :, :frames] = torch.from_numpy(sample["features"])
            labels[i, :frames] = torch.from_numpy(sample["labels"])
        lengths = torch.tensor([len(s["labels"]) for s in samples])
        return {
            "features": features,
            "labels": labels,
            "mask": torch.arange(longest) < lengths[:, None],
            "videos": [s["video"] for s in samples],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the videos of the batch; the same for a video whatever it is batched with."""
        logits = model(batch["features"], batch["mask"])
        loss, parts = smoothed_cross_entropy(
            logits.float(), batch["labels"], smoothing=self.smoothing, clip=self.clip, average=self.average
        )
        return loss, {name: float(value) for name, value in parts.items()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores under every protocol that fits the data; the same on all processes."""
        assert self.eval_data is not None
        metrics = collect_predictions(model, self.eval_data, device)
        return score(metrics, self.eval_data.protocols)

    def card(self) -> dict[str, Any]:
        data = self.source
        provenance = data.provenance
        return {
            "task": "segmentation",
            "classes": list(data.classes),
            "features": provenance.to_json() if provenance else None,
            "sample_rate": data.sample_rate,
            "source": f"trained on {data.layout} features of {len(data)} videos",
            "notes": {"protocols": data.protocols},
        }


def predict_frames(model: nn.Module, features: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Class of every frame (T,) and class probabilities (K, T) from the last stage, for features (C, T)."""
    device = next(model.parameters()).device
    x = torch.from_numpy(np.array(features, dtype=np.float32)).to(
        device
    )  # a copy: files are mapped read-only
    with torch.inference_mode():
        probabilities = model(x[None])[-1, 0].float().softmax(0)
    return probabilities.argmax(0).cpu().numpy(), probabilities.cpu().numpy()


def segment_track(model: nn.Module, track: FeatureTrack, video: str = "") -> Segments:
    """Segments of a video from its feature track, which must be made as the model's training features were.

    Raises ValueError where the width or the provenance of the track is another one.
    """
    card = card_of(model)
    check_features(card.features, track, wanted_dim=cast(Any, model).config.feature_dim)
    labels, probabilities = predict_frames(model, track.values[:, :: card.sample_rate])
    repeated = np.arange(len(track)) // card.sample_rate
    return Segments.from_frames(
        labels[repeated],
        card.classes,
        video=video or track.source,
        times=track.times,
        frame_probs=probabilities[:, repeated],
    )


def check_features_of(expected: Provenance | None, data: SegmentationData, *, wanted_dim: int) -> None:
    """Refuse a data set whose features are not those that a model is trained on; see `check_features`."""
    nothing = np.empty((data.feature_dim, 0))
    source = str(data.folder.feature_path(data.videos[0]))
    check_features(expected, FeatureTrack(nothing, None, data.provenance, source), wanted_dim=wanted_dim)


def check_features(expected: Provenance | None, track: FeatureTrack, *, wanted_dim: int) -> None:
    """Refuse a track that the model was not trained for."""
    if track.feature_dim != wanted_dim:
        raise ValueError(
            f"{track.source or 'the features'}: {track.feature_dim} channels, the model reads {wanted_dim}; "
            "extract features with the backbone that the model was trained on"
        )
    if expected is None or track.provenance is None:
        return
    if differences := expected.differences(track.provenance):
        raise ValueError(
            f"{track.source or 'the features'} were made in another way than the model's training features "
            f"({'; '.join(differences)}); extract them again with the model's settings"
        )


def collect_predictions(
    model: nn.Module, data: SegmentationData, device: torch.device | str = "cpu"
) -> SegmentationMetrics:
    """Predictions and labels of every video at the annotation's frame rate; ranks share the work."""
    metrics = SegmentationMetrics(data.classes)
    for i in own_items(len(data)):
        sample = data[i]
        x = torch.from_numpy(sample["features"])[None].to(device)
        predicted = model(x)[-1, 0].argmax(0).cpu().numpy()
        metrics.update(data.to_annotation_rate(predicted, i), data.annotation(i), video=sample["video"])
    return merge_over_ranks(metrics, lambda: SegmentationMetrics(data.classes))


def score(metrics: SegmentationMetrics, protocols: list[str]) -> dict[str, float]:
    """Scores under every protocol, by the names of `score_names`."""
    values = [scores[key] for scores in map(metrics.compute, protocols) for key in KEYS]
    return dict(zip(score_names(protocols), values, strict=True))


def score_names(protocols: list[str]) -> list[str]:
    """Plain names for the first protocol, "<averaging>: <name>" for the others.

    The prefix is the protocol's name without data set and split, so that splits can be averaged.
    """
    names = list(KEYS)
    for protocol in protocols[1:]:
        prefix = protocol.rpartition("/")[2].removeprefix(f"{get_protocol(protocol).split}-")
        names += [f"{prefix}: {key}" for key in KEYS]
    return names
