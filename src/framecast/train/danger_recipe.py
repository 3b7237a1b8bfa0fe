"""Settings of wildfire danger: does the cell in the middle of a window burn?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from framecast.settings import Settings
from framecast.train.recipe import DataSettings, Recipe


class DangerDataSettings(DataSettings):
    """A cube (its YAML or folder), or the folder of FireCube's published samples.

    Of a cube, `train`, `validation` and `test` are names of its splits; samples always have those three
    ("train", "val", "test"): the years before `val_year`, that year, and later ones.
    """

    train: str = "train"
    validation: str | None = "val"  # scored during training; it chooses the weights where `select` is set
    test: str = "test"  # that `framecast evaluate` scores
    target: str | None = None  # of a cube; None = its first
    negatives: int | None = Field(2, ge=1)  # cells that did not burn per one that did, in training
    test_negatives: int | None = Field(None, ge=1)  # the same where it is scored; None = all of them
    sampling_seed: int = Field(0, ge=0)  # of the draw of those
    val_year: int = 2019  # of samples
    keep_mb: int = Field(512, ge=0)  # a cube's maps are held in memory where they take no more
    regions: dict[str, tuple[float, float, float, float]] = Field(default_factory=dict)  # W, S, E, N
    split: int | None = Field(None, ge=1, le=1)  # for `--splits`; a cube says itself what is tested


class DangerLossSettings(Settings):
    """Arguments of `framecast.models.loan.danger_loss`."""

    class_weights: tuple[float, float] = (0.5, 0.5)  # background, fire


class DangerAugmentSettings(Settings):
    """Of `framecast.data.danger_patches.augment`; off by default, as in the release."""

    enabled: bool = False
    noise: float = Field(0.01, ge=0)


class DangerRecipe(Recipe):
    """One training run of a model of wildfire danger."""

    task: Literal["danger"] = "danger"
    data: DangerDataSettings
    loss: DangerLossSettings = DangerLossSettings()
    augment: DangerAugmentSettings = DangerAugmentSettings()
