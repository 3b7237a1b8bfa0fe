"""Settings of models that answer questions about videos."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from framecast.settings import Settings
from framecast.train.recipe import DataSettings, Recipe


class VideoQaDataSettings(DataSettings):
    """Questions with their videos: a public set, instructions, or a file of your own.

    Public sets have splits, named by `train` and `test`; of others a share of the videos is held back.
    """

    layout: str = "auto"
    videos: str | None = None  # folder of the videos where it is not the usual one
    train: str | None = None  # split of a public set, for example "train"
    test: str | None = None  # that is scored; None without `train` = what is held back
    holdout: float = Field(0.25, ge=0, lt=1)  # share of the videos; 0 = nothing is scored
    holdout_seed: int = Field(0, ge=0)
    missing: Literal["raise", "leave-out"] = "raise"  # questions about videos that are not there
    max_turns: int = Field(8, ge=1)  # questions that share one sequence, and so their clip
    keep_mb: int = Field(2048, ge=0)  # of decoded clips in memory
    split: int | None = Field(None, ge=1, le=1)  # for `--splits`; there is one division


class TeacherSettings(Settings):
    """A frozen vision backbone whose patch features the language model's hidden states are drawn to."""

    # A backbone whose weights are known, a saved model, or a folder of transformers; None = no teacher.
    teacher: str | None = None
    weight: float = Field(1.0, ge=0)
    image_size: int = Field(224, ge=1)  # longer side of its frames; whole patches for each visual token
    layer: int | None = None  # of the teacher, None = its last
    layer_step: int = Field(4, ge=1)  # of the language model every so many layers are taken
    heads: int = Field(8, ge=1)


class VideoQaRecipe(Recipe):
    """One training stage of a model that answers questions."""

    task: Literal["video_qa"] = "video_qa"
    data: VideoQaDataSettings
    alignment: TeacherSettings = TeacherSettings()
    start: str | None = None  # run or saved model of the stage before; its settings hold where none are given
    max_new_tokens: int = Field(32, ge=1)  # of an answer when scored
    blind: bool = False  # a baseline: the questions without their clips
