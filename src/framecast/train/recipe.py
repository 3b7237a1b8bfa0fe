"""What a training run is: typed settings, all of them written into the run folder.

A recipe is frozen and refuses unknown keys. `framecast.train.config` reads it from YAML, changes
single values and writes it back.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from framecast.settings import Settings


class ModelSettings(Settings):
    """A registered model and the fields of its config that differ from the default."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class DataSettings(Settings):
    """Where the data is; each task says more."""

    root: str


class OptimSettings(Settings):
    """`adam` adds the weight decay to the gradient (L2), `adamw` decouples it, like their torch namesakes."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)  # adam, adamw
    eps: float = Field(1e-8, gt=0)  # adam, adamw
    momentum: float = Field(0.0, ge=0)  # sgd
    nesterov: bool = False  # sgd
    # "vectors": biases and norm gains (fewer than 2 axes) and what the model's `no_weight_decay()` names
    no_decay: Literal["nothing", "vectors"] = "nothing"
    # Learning rate of the n-th layer below the head × layer_decay^n, by the model's `layer_groups()`.
    # "release" slows patch embedding, positions and class token alone, by 0.75^(depth + 1), as VideoMamba's
    # scripts do unawares.
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Literal["release"] | None = None
    # Learning rate of parameters whose names begin so × the factor, the longest beginning counts.
    lr_factors: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind_of_factor(self) -> OptimSettings:
        if self.lr_factors and self.layer_decay is not None:
            raise ValueError("layer_decay and lr_factors both set learning rates; give one of them")
        return self


class ScheduleSettings(Settings):
    """Learning rate as a function of the epoch or the step, both counted from 0.

    `warmup` units rise linearly to lr, `hold` units stay there, then the named curve runs:
    cosine: half a cosine of length `t_max` (default: what is left of the run) down to `min_lr`, then flat.
    step: × `gamma` every `step_size` units, or at each of the `milestones`. warmup_cosine is cosine that
    must have a warm-up.
    """

    name: Literal["constant", "cosine", "step", "warmup_cosine"] = "constant"
    per: Literal["epoch", "step"] = "epoch"
    warmup: int = Field(0, ge=0)
    hold: int = Field(0, ge=0)
    t_max: int | None = Field(None, ge=1)
    min_lr: float = Field(0.0, ge=0)
    step_size: int = Field(1, ge=1)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _warmup_is_there(self) -> ScheduleSettings:
        if self.name == "warmup_cosine" and self.warmup == 0:
            raise ValueError("schedule warmup_cosine needs warmup of at least 1; or use cosine")
        return self


class Recipe(Settings):
    """One training run; each task has its own kind, with its data, loss and augmentation.

    `expected` says what result and cost to expect, for the docs.
    """

    name: str
    task: str
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings = OptimSettings()
    schedule: ScheduleSettings = ScheduleSettings()

    epochs: int | None = Field(None, ge=1)  # give epochs or steps
    steps: int | None = Field(None, ge=0)  # 0: nothing is trained, the start is scored and kept
    batch_size: int = Field(1, ge=1)  # samples per optimiser step, over all processes
    group_lengths: bool = False  # samples of like lengths share a batch: less padding, less mixing
    accumulate: int = Field(1, ge=1)  # micro-batches that a process cuts its share into
    clip_norm: float | None = Field(None, gt=0)  # largest 2-norm of the whole gradient
    ema_decay: float | None = Field(None, gt=0, lt=1)  # evaluate and keep averaged weights; faster at first
    ema_every: int = Field(1, ge=1)  # steps from one averaging to the next
    ema_start: int | None = Field(None, ge=0)  # the rule of diffusion releases: copies until this step
    nonfinite: Literal["stop", "skip"] = "stop"  # what to do when loss or gradient is not finite

    precision: Literal["float32", "bf16"] = "float32"
    activation_checkpointing: bool = False  # recompute blocks in the backward pass: less memory, more time
    parallel: Literal["ddp", "fsdp"] = "ddp"  # several processes: copies of the model, or shards
    unused_parameters: bool = False  # ddp: some parameters get no gradient in some steps
    num_workers: int = Field(0, ge=0)  # data-loading processes per training process
    seed: int = Field(0, ge=0)
    deterministic: bool = False  # refuse operations without a deterministic form

    eval_every: int = Field(1, ge=1)  # epochs
    save_every: int = Field(1, ge=1)  # epochs
    eval_every_steps: int | None = Field(None, ge=1)  # steps, instead of eval_every
    save_every_steps: int | None = Field(None, ge=1)  # steps, instead of save_every
    keep_last: int = Field(2, ge=1)  # checkpoints
    select: str | None = None  # evaluation metric whose best weights are kept, None = the last weights
    select_mode: Literal["max", "min"] = "max"

    log_every: int = Field(10, ge=1)  # steps
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()  # beside metrics.jsonl
    watch_every: int | None = Field(None, ge=1)  # steps; layers into stability.jsonl (train.stability)
    expected: str = ""

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a recipe needs either epochs or steps")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch
