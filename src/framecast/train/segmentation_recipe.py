"""Settings of temporal action segmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from framecast.settings import Settings
from framecast.train.recipe import DataSettings, Recipe


class SegmentationDataSettings(DataSettings):
    """Arguments of `framecast.data.segmentation.open_segmentation`, but for the subset."""

    layout: str = "auto"
    features: str = "features"
    split: int | None = Field(None, ge=1)
    folds: int | None = Field(None, ge=2)  # deal the videos into this many splits where the data has none
    sample_rate: int = Field(1, ge=1)  # keep every n-th step of features and labels
    feature_dim: int | None = Field(None, ge=1)
    label_fps: float | None = Field(None, gt=0)  # of the labels, where features have another rate


class SegmentationLossSettings(Settings):
    """Arguments of `framecast.tasks.segmentation_loss.smoothed_cross_entropy`."""

    smoothing: float = Field(0.15, ge=0)  # weight of the smoothness term
    clip: float = Field(16.0, gt=0)  # bound of the squared jump of log-probabilities: τ² with τ = 4
    average: Literal["videos", "frames"] = "videos"  # "frames" is the release's mean, padding included


class SegmentationAugmentSettings(Settings):
    """Arguments of `framecast.tasks.segmentation_augment.Augmentation`; all off by default."""

    speed: float = Field(0.0, ge=0)  # parts of a video stretched by 1/(1+speed) to 1+speed
    noise: float = Field(0.0, ge=0)  # Gaussian, in deviations of the channel
    crop: float = Field(0.0, ge=0, lt=1)  # largest share of frames cut away at the ends
    channel_drop: float = Field(0.0, ge=0, lt=1)  # probability of a channel to be flattened


class SegmentationRecipe(Recipe):
    """One training run of a segmentation model on feature tracks."""

    task: Literal["segmentation"] = "segmentation"
    data: SegmentationDataSettings
    loss: SegmentationLossSettings = SegmentationLossSettings()
    augment: SegmentationAugmentSettings = SegmentationAugmentSettings()
