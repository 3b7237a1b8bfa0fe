"""Settings of recognition: the class of an image or a clip."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from framecast.settings import Settings
from framecast.train.recipe import DataSettings, Recipe


class RecognitionDataSettings(DataSettings):
    """Arguments of `framecast.data.recognition.open_recognition`, and how clips and views are taken.

    Where the data has no test side of its own, `split` says which share of it is held back: 1, 2, …
    """

    layout: str = "auto"
    annotations: str | None = None  # list or table beside the data, where the layout needs one
    holdout: float = Field(0.2, gt=0, lt=1)
    group_by: str | None = None  # column of labels.csv whose groups stay on one side
    label_by: str | None = None  # column of labels.csv that holds the class
    split: int | None = Field(None, ge=1)
    keep_mb: int = Field(0, ge=0)  # memory for decoded clips, of every process that reads data
    frames: int | None = Field(
        None, ge=1
    )  # of a clip that an image model reads; clip models say it themselves
    sampling: str = "sparse"  # rule of `framecast.data.clip_sampling`
    stride: int = Field(16, ge=1)  # source frames between those of a clip, for the dense samplings
    fps: float | None = Field(None, gt=0)  # rate at which training counts frames, None = that of the file
    channels: Literal["rgb", "bgr"] = "rgb"  # bgr: TimeSformer on Something-Something
    protocol: str | None = None  # evaluation views by name, None = one centre view


class RecognitionAugmentSettings(Settings):
    """What training does to an image or, alike for all its frames, to a clip."""

    scale: tuple[float, float] | None = (0.08, 1.0)  # area of the random crop, None = no random crop
    ratio: tuple[float, float] = (0.75, 4 / 3)
    short_side: tuple[int, int] | None = None  # without scale: range of the short side before the crop
    pad: int = Field(0, ge=0)  # without scale: pixels of black border before the crop
    hflip: float = Field(0.5, ge=0, le=1)
    rand_augment: str | None = None  # "rand-m9-mstd0.5-inc1" and the like
    color_jitter: float = Field(0.0, ge=0)
    erasing: float = Field(0.0, ge=0, le=1)  # probability of a random rectangle of noise
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    augment_first: bool = False  # RandAugment before the crop, as VideoMamba does
    mixup: float = Field(0.0, ge=0)  # alpha of the beta distribution, 0 = off
    cutmix: float = Field(0.0, ge=0)
    mix_prob: float = Field(1.0, ge=0, le=1)  # of a batch to be mixed at all
    mix_switch: float = Field(0.5, ge=0, le=1)  # of CutMix where both are on
    repeats: int = Field(1, ge=1)  # a sample is read once and augmented so often in one batch


class RecognitionLossSettings(Settings):
    """What is learned: classes; classes and a teacher's features; or a teacher's features alone."""

    objective: Literal["classes", "self_distillation", "masked_pretraining"] = "classes"
    smoothing: float = Field(0.0, ge=0, lt=1)
    teacher: str | None = None  # a saved model, or the name of a backbone whose weights are known
    teacher_weight: float = Field(1.0, ge=0)  # of its part of the loss in self_distillation
    keep: float = Field(0.2, gt=0, le=1)  # share of the patches that masked_pretraining reads

    @model_validator(mode="after")
    def _teacher_is_there(self) -> RecognitionLossSettings:
        if (self.objective == "classes") != (self.teacher is None):
            raise ValueError(
                "a teacher goes with objective self_distillation or masked_pretraining; "
                "set loss.teacher to a saved model, or loss.objective=classes"
            )
        return self


class RecognitionRecipe(Recipe):
    """One training run of an image or clip classifier."""

    task: Literal["recognition"] = "recognition"
    data: RecognitionDataSettings
    loss: RecognitionLossSettings = RecognitionLossSettings()
    augment: RecognitionAugmentSettings = RecognitionAugmentSettings()
    weights: str | None = None  # where training starts: a saved model, a release, "package:…" or a hub id
    trainable: Literal["all", "head"] = "all"
