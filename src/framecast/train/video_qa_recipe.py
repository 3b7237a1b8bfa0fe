"""Settings of models that answer questions about videos."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
    types: tuple[str, ...] = ()  # of questions, as the data calls them; () = all, divided alike
    scored: int | None = Field(None, ge=1)  # held-back clips that are scored in training, None = all
    max_turns: int = Field(8, ge=1)  # questions that share one sequence, and so their clip
    mirror: float = Field(0, ge=0, le=1)  # chance that a clip is turned left to right in training
    augment: float = Field(0, ge=0, le=0.3)  # how much a clip is moved and recoloured in training
    keep_mb: int = Field(2048, ge=0)  # of decoded clips in memory
    split: int | None = Field(None, ge=1, le=1)  # for `--splits`; there is one division


class AlignmentSettings(Settings):
    """What teaches the eyes, and how much each part weighs.

    The answers' next-token loss teaches through the language model, and a frozen vision backbone by its patch
    features, to which the language model's hidden states are drawn. The answers also teach directly: without
    the other two the language model does not run, and its table of words is all that is needed.
    """

    text: float = Field(1.0, ge=0)
    answers: float = Field(0.0, ge=0)
    # A backbone whose weights are known, a saved model, or a folder of transformers; None = no teacher.
    teacher: str | None = None
    teacher_weight: float = Field(1.0, gt=0)
    image_size: int = Field(224, ge=1)  # longer side of its frames; whole patches for each visual token
    layer: int | None = None  # of the teacher, None = its last
    layer_step: int = Field(4, ge=1)  # of the language model every so many layers are taken
    heads: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _something_is_learnt(self) -> AlignmentSettings:
        if not (self.text or self.answers or self.teacher):
            raise ValueError("alignment: text and answers weigh 0 and there is no teacher; nothing is learnt")
        return self


class VideoQaRecipe(Recipe):
    """One training stage of a model that answers questions."""

    task: Literal["video_qa"] = "video_qa"
    data: VideoQaDataSettings
    alignment: AlignmentSettings = AlignmentSettings()
    start: str | None = None  # run or saved model of the stage before; its settings hold where none are given
    max_new_tokens: int = Field(32, ge=1)  # of an answer when scored
    blind: bool = False  # a baseline: the questions without their clips

    @model_validator(mode="after")
    def _the_teacher_sees_the_same(self) -> VideoQaRecipe:
        if self.data.augment and self.alignment.teacher:
            raise ValueError(
                "a teacher's features are computed once and cannot follow augmented clips; set "
                "data.augment=0 or alignment.teacher=null"
            )
        return self

    @model_validator(mode="after")
    def _the_blind_read(self) -> VideoQaRecipe:
        if self.blind and not self.alignment.text:
            raise ValueError("blind=true has no eyes to align; set alignment.text=1")
        return self
