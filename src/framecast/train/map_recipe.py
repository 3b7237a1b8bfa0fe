"""Settings of maps ahead: target maps of a cube from its maps of the past."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from framecast.settings import Settings
from framecast.train.recipe import DataSettings, Recipe

Box = tuple[float, float, float, float]


class MapDataSettings(DataSettings):
    """A cube (its YAML, store or prepared folder), what is read of it and what is asked.

    The fields from `targets` to `periods` are those of `framecast.data.map_series.MapWindow`.
    """

    split: int | None = None  # a cube has one division; `train`, `validation` and `test` name its parts
    train: str = "train"
    validation: str | None = "val"  # chooses the weights; None = the last ones are kept
    test: str = "test"  # `framecast evaluate` scores here

    targets: tuple[str, ...] = ()  # all of the cube
    steps: int = Field(1, ge=1)
    leads: tuple[int, ...] = (1,)
    past_targets: bool = False
    season: bool = False
    place: bool = False
    anomalies: bool = False
    corrects: bool = False
    periods: int = 52

    vegetation: str | None = None  # target that is the NDVI: VCI and drought classes are scored
    temperature: str | None = None  # target that is the brightness temperature: TCI and VHI too
    regions: dict[str, Box] = Field(default_factory=dict)  # west, south, east, north: scored for themselves
    keep_mb: int = Field(512, ge=0)  # a cube smaller than this is kept in memory

    @model_validator(mode="after")
    def _indices(self) -> MapDataSettings:
        if self.temperature is not None and self.vegetation is None:
            raise ValueError("data.temperature makes VHI together with data.vegetation; name that target too")
        return self


class MapLossSettings(Settings):
    """Arguments of `framecast.tasks.map_loss.map_loss`."""

    difference: Literal["l1", "l2", "huber"] = "l1"
    weights: dict[str, float] = Field(default_factory=dict)  # per target, 1 where it is not named
    perceptual: str | None = None  # file with VGG19's weights
    perceptual_weight: float = Field(0.1, ge=0)


class MapAugmentSettings(Settings):
    """What training samples go through."""

    noise: float = Field(0.0, ge=0)  # standard deviation, in standardised units, of the dynamic maps
    flip: bool = False  # mirror images, west to east, of half of the samples
    turn: bool = False  # half turns of half of the samples
    crop: int | None = Field(None, ge=4)  # side of a square at a random place


class MapRecipe(Recipe):
    """One training run of a network that writes maps."""

    task: Literal["maps"] = "maps"
    data: MapDataSettings
    loss: MapLossSettings = MapLossSettings()
    augment: MapAugmentSettings = MapAugmentSettings()
