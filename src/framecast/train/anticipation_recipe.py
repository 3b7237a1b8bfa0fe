"""Settings of anticipation: the classes of what follows the first part of a video."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from framecast.settings import Settings
from framecast.train.recipe import Recipe
from framecast.train.segmentation_recipe import SegmentationDataSettings


class AnticipationDataSettings(SegmentationDataSettings):
    """Arguments of `framecast.data.anticipation.open_anticipation`, but for the subset."""

    observe: Literal["labels", "features", "both"] = "labels"


class ObservedSettings(Settings):
    """Arguments of `framecast.tasks.anticipation.ObservedShares`: what training samples see."""

    shares: tuple[float, ...] = (0.2, 0.3, 0.5)
    redraw: float = Field(0.4, ge=0, le=1)
    redraw_range: tuple[float, float] = (0.15, 0.40)
    predicted: float = Field(0.5, gt=0)

    @model_validator(mode="after")
    def _inside_the_video(self) -> ObservedSettings:
        low, high = self.redraw_range
        if not self.shares or not all(0 < share < 1 for share in (*self.shares, low, high)) or low > high:
            raise ValueError(f"shares are above 0 and below 1, got {self.shares} and range {low} to {high}")
        return self


class SamplingSettings(Settings):
    """Arguments of `framecast.tasks.forecasting.Sampling`: how futures are drawn in evaluation."""

    samples: int = Field(25, ge=1)
    steps: int = Field(50, ge=1)
    solver: Literal["ddim", "dpm++2m"] = "ddim"
    eta: float = Field(0.0, ge=0, le=1)
    seed: int = Field(0, ge=0)
    draw: Literal["walks", "redrawn", "coupled"] = "walks"
    temperature: float = Field(1.0, ge=0)


class AnticipationLossSettings(Settings):
    """Weights of classes and noise levels, see `DenseAnticipationTask` and `LabelAnticipationTask`."""

    class_weight: float = Field(0.0, ge=0, le=1)
    noise_bias: float = Field(0.0, ge=0)


class AnticipationRecipe(Recipe):
    """One training run of an anticipation model."""

    task: Literal["anticipation"] = "anticipation"
    data: AnticipationDataSettings
    observed: ObservedSettings = ObservedSettings()
    loss: AnticipationLossSettings = AnticipationLossSettings()
    sampling: SamplingSettings = SamplingSettings()
    protocol: str = "anticipation/official-25"
